"""``evaluate privacy``: planted copies are found, honest images are not, and a killed run ends alike."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.models import tiny

from counterscan.cli import main
from counterscan.errors import WordsError
from counterscan.evaluate.privacy import privacy
from counterscan.evaluate.spaces import open_space
from counterscan.worlds import chest


def save(image, path):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray((image * 255).round().astype(np.uint8)).save(path)


def flipped(x):
    return x[:, ::-1]


def brightened(x):
    return np.clip(1.15 * x + 0.08, 0, 1)


def cropped(x):
    n = round(0.05 * len(x))
    small = Image.fromarray(np.ascontiguousarray(x[n:, : len(x) - n], np.float32))
    return np.asarray(small.resize((x.shape[1], x.shape[0]), Image.Resampling.BILINEAR))


def compressed(x):
    file = io.BytesIO()
    Image.fromarray((x * 255).round().astype(np.uint8)).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file), np.float32) / 255


DISGUISES = (flipped, brightened, cropped, compressed)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """60 training, 30 held-out and 30 honest images, and 8 disguised copies among the honest ones."""
    folder = tmp_path_factory.mktemp("planted")
    lines = ["path,patient,split,caption"]
    for i in range(90):
        image = chest.sample(2000 + i, size=128).image
        save(image, folder / "real" / f"{i:03d}.png")
        lines.append(f"real/{i:03d}.png,P{i},{'train' if i < 60 else 'test'},chest")
        if i < 8:
            save(DISGUISES[i % 4](image), folder / "made" / f"copy{i}.png")
    for i in range(30):
        save(chest.sample(5000 + i, size=128).image, folder / "made" / f"honest{i:02d}.png")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    made = [f"made/{path.name},prompt {path.name[:5]}" for path in sorted((folder / "made").iterdir())]
    (folder / "made.csv").write_text("\n".join(["path,caption", *made]) + "\n")
    return folder


def test_disguised_copies_are_found_and_honest_images_are_not(planted, judge, tmp_path, capsys):
    model = str(tiny(tmp_path / "tiny"))
    words = ["evaluate", "privacy", planted / "made.csv", planted / "manifest.csv", "--space", judge, "--rate", "0.04"]
    words += ["--model", model, "--members", "8", "-o", tmp_path / "out", "--json"]
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert stop.value.code == 0, err
    told = json.loads(out)
    assert told["images"] == {"train": 60, "held_out": 30, "generated": 38}
    found = {Path(line["path"]).stem: Path(line["twin"]).stem for line in told["copies"]}
    assert all(found[f"copy{i}"] == f"{i:03d}" for i in range(8))
    assert len(found) - 8 <= 2  # 4 % of 30 is 1.2
    assert {line["prompt"] for line in told["prompts"]} >= {"prompt copy0", "prompt copy7"}
    assert told["copy_rate"]["mean"] == pytest.approx(len(found) / 38)
    assert 0 <= told["membership"]["auroc"]["mean"] <= 1 and told["membership"]["images"] == [8, 8]
    assert "most alike" in (tmp_path / "out" / "report.html").read_text()
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [used["name"] for used in record["model"]] == [open_space(str(judge)).name, "tiny"]
    assert record["scores"] == {key: told[key] for key in ("copy_rate", "membership")}
    assert record["settings"]["space"] == str(judge) and record["settings"]["model"] == model


def test_a_killed_audit_ends_with_the_same_numbers(planted, judge, tmp_path):
    words = {"space": str(judge), "rate": 0.04}
    paths = {"generated": planted / "made", "train": planted / "manifest.csv"}
    whole = privacy(**paths, folder=tmp_path / "whole", **words)
    told = words | {key: str(path) for key, path in paths.items()} | {"folder": str(tmp_path / "k")}
    told["paths"] = ["generated", "train", "folder"]
    killed = subprocess.run([sys.executable, Path(__file__).with_name("killed.py"), "privacy", "32", json.dumps(told)])
    assert killed.returncode == -9
    assert privacy(**paths, folder=tmp_path / "k", **words) == whole


def test_wrong_words(planted, judge, tmp_path):
    with pytest.raises(WordsError, match="--held-out"):
        privacy(planted / "made", planted / "real", tmp_path, space=str(judge))
    with pytest.raises(WordsError, match="between 0 and 1"):
        privacy(planted / "made", planted / "manifest.csv", tmp_path, space=str(judge), rate=1.0)


def test_few_held_out_patients_do_not_hide_identical_images(planted, judge, tmp_path):
    few = ["path", *(f"{planted}/real/{i:03d}.png" for i in (60, 61))]
    train = ["path", *(f"{planted}/real/{i:03d}.png" for i in range(8))]
    for name, lines in (("few", few), ("train", train)):
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    sources = tmp_path / "train.csv", tmp_path / "train.csv", tmp_path / "out"
    told = privacy(*sources, held_out=tmp_path / "few.csv", space=str(judge))
    assert told["threshold"] < 1 and told["copy_rate"]["mean"] == 1
    assert any("capped at 0.99" in warning for warning in told["warnings"])
