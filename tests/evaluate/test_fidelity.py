"""``evaluate fidelity``: the numbers of the metrics, by streams that survive a kill and do not grow."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from counterscan.cli import main
from counterscan.errors import DataError, WordsError
from counterscan.evaluate import rows
from counterscan.evaluate.features import extract, square
from counterscan.evaluate.fidelity import fidelity
from counterscan.evaluate.spaces import Space, open_space
from counterscan.imaging import read
from counterscan.metrics.distribution import frechet_distance, moments


def scores(summary):
    return {name: score for space in summary["spaces"] for name, score in space["scores"].items()}


def test_the_scores_are_those_of_the_features(world, judge, tmp_path):
    summary = fidelity(world / "manifest.csv", world / "made", tmp_path, spaces=[str(judge)])
    space = open_space(str(judge))
    a, b = (
        space(torch.stack([square(read(path), space) for path in sorted((world / kind).iterdir())])).numpy()
        for kind in ("real", "made")
    )
    told = scores(summary)
    assert told["FID/small-judge"]["value"] == pytest.approx(frechet_distance(moments([a]), moments([b])), rel=1e-4)
    assert told["FID/small-judge"]["limit"] < told["FID/small-judge"]["value"]
    assert summary["real"] == {"images": 60, "patients": 30}
    assert 0 <= told["precision/small-judge"]["low"] <= told["precision/small-judge"]["mean"] <= 1
    assert any("extrapolated" in warning for warning in summary["warnings"])
    page = (tmp_path / "report.html").read_text()
    assert "FID/small-judge" in page and "worst" in page and 'src="http' not in page


def test_a_killed_evaluation_ends_with_the_same_numbers(world, judge, tmp_path):
    words = {"real": str(world / "manifest.csv"), "generated": str(world / "made.csv"), "spaces": [str(judge)]}
    undisturbed = fidelity(Path(words["real"]), Path(words["generated"]), tmp_path / "whole", spaces=[str(judge)])
    told = json.dumps(words | {"folder": str(tmp_path / "killed"), "paths": ["real", "generated", "folder"]})
    killed = subprocess.run([sys.executable, Path(__file__).with_name("killed.py"), "fidelity", "32", told])
    assert killed.returncode == -9
    (index,) = (tmp_path / "killed" / "work").glob("*.jsonl")
    assert 0 < len(list(rows.read(index))) < 60
    with index.open("a") as file:
        file.write('{"name": "torn')  # as when the disk was still writing
    assert (
        fidelity(Path(words["real"]), Path(words["generated"]), tmp_path / "killed", spaces=[str(judge)]) == undisturbed
    )


def test_bad_images_are_all_told_and_cost_nobody_else(world, judge, tmp_path, capsys):
    folder = tmp_path / "made"
    folder.mkdir()
    for i, path in enumerate(sorted((world / "made").iterdir())[:20]):
        (folder / path.name).write_bytes(path.read_bytes() if i not in (3, 17) else b"no image")
    words = ["evaluate", "fidelity", world / "manifest.csv", folder, "--split", "train", "--space", judge]
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in [*words, "-o", tmp_path / "out", "--json"]])
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert stop.value.code == 1
    assert told["generated"]["images"] == 18 and told["real"]["images"] == 40
    assert [reason.split(":")[0] for reason in told["failed"]] == ["003.png", "017.png"]
    assert "003.png" in err and "017.png" in err
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    space = open_space(str(judge))
    assert record["command"] == "evaluate fidelity"
    assert record["model"] == {"name": space.name, "fingerprint": space.fingerprint}
    assert record["scores"] == told["spaces"][0]["scores"]


def test_memory_does_not_grow_with_the_images(tmp_path):
    space = Space("mean", 32, 1, 3, lambda x: x.flatten(1)[:, :3])
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)

    def peak(n):
        folder = tmp_path / str(n)
        folder.mkdir()
        for i in range(n):
            Image.fromarray(pixels).save(folder / f"{i:04d}.png")
        tracemalloc.start()
        extract(folder, space, tmp_path / f"work{n}")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(32)  # what is imported the first time
    assert (peak(320) - peak(64)) / 256 < 1000  # bytes an image: its name, not its 4096 pixels


def test_wrong_words_and_empty_folders(world, tmp_path):
    with pytest.raises(WordsError, match="no feature space"):
        fidelity(world / "real", world / "made", tmp_path, spaces=["absent.module:f"])
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        fidelity(tmp_path / "none", world / "made", tmp_path, spaces=["chest-nih-judge"])
    with pytest.raises(DataError, match=f"{tmp_path / 'absent'}: no such file or folder"):
        fidelity(tmp_path / "absent", world / "made", tmp_path, spaces=["chest-nih-judge"])
    (tmp_path / "few").mkdir()
    (tmp_path / "few/a.png").write_bytes((world / "made/000.png").read_bytes())
    with pytest.raises(DataError, match="few: has 1 readable images, fidelity needs at least 7"):
        fidelity(tmp_path / "few", tmp_path / "few", tmp_path, spaces=["chest-nih-judge"])
    with pytest.raises(DataError, match="no split"):
        fidelity(world / "real", world / "made", tmp_path, spaces=["chest-nih-judge"], split="test")


def test_an_image_of_several_captions_is_one_image_and_no_caption_is_no_prompt(world, judge, tmp_path):
    lines = ["path,caption", *(f"{world}/made/{i:03d}.png,prompt {k}" for i in range(8) for k in range(3))]
    (tmp_path / "many.csv").write_text("\n".join(lines))
    told = fidelity(tmp_path / "many.csv", tmp_path / "many.csv", tmp_path / "out", spaces=[str(judge)])
    assert told["real"] == {"images": 8, "patients": 8} and told["generated"] == {"images": 8, "prompts": 1}
    told = fidelity(tmp_path / "many.csv", world / "made", tmp_path / "out", spaces=[str(judge)])
    assert told["generated"] == {"images": 40, "prompts": 0}
