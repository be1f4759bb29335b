"""``evaluate edits``: the means of known edits, pairing, null edits, and a killed run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from counterscan.cli import main
from counterscan.errors import DataError, WordsError
from counterscan.evaluate.edits import edits
from counterscan.evaluate.groups import column_of
from counterscan.evaluate.spaces import open_space
from counterscan.imaging import read
from counterscan.metrics.counterfactual import prediction_gain
from counterscan.result import Counterfactual
from counterscan.robustness.opening import open_classifier
from counterscan.robustness.study import probabilities
from counterscan.types import Change, Edit


def write(world, folder, amount, n=20, *, null=False):
    """Counterfactuals of the first real images, a square darker by ``amount``, saved as ``edit`` does."""
    for path in sorted((world / "real").iterdir())[:n]:
        factual = read(path)
        pixels = factual.pixels.copy()
        pixels[10:30, 10:30] = np.clip(pixels[10:30, 10:30] * (1 - amount), 0, 255).astype(np.uint8)
        counterfactual = factual.with_pixels(pixels)
        edit = Edit("a", "b", (Change("pacemaker", "remove"),))
        change = counterfactual.unit() - factual.unit()
        edit = edit.null() if null else edit
        Counterfactual(factual, counterfactual, change, change != 0, edit, "square", evaluations=7).save(folder)
    return folder


def test_means_are_those_of_the_metrics_with_patients_and_pairs(world, judge, tmp_path):
    strong, weak = write(world, tmp_path / "strong", 0.8), write(world, tmp_path / "weak", 0.1)
    null = write(world, tmp_path / "null", 0.0, null=True)
    told = edits(
        [f"A={strong}", str(weak), str(null)], tmp_path / "out", judge=str(judge), manifest=world / "manifest.csv"
    )
    assert [(r["source"], r["n"], r["patients"], r["null"]) for r in told["rows"]] == [
        ("A", 20, 10, False), ("weak", 20, 10, False), ("null", 20, 10, True),
    ]  # fmt: skip
    outputs = open_classifier(judge)
    before, after, l1 = [], [], []
    for path in sorted(strong.glob("*.json")):
        saved = Counterfactual.load(path)
        before.append(probabilities(outputs, saved.factual)[0, 1])
        after.append(probabilities(outputs, saved.counterfactual)[0, 1])
        l1.append(np.abs(saved.counterfactual.unit() - saved.factual.unit()).mean())
    row = told["rows"][0]
    assert row["gain"]["mean"] == pytest.approx(prediction_gain(before, after, np.zeros(20)).mean(), abs=1e-5)
    assert row["gain"]["patients"] == 10 and row["gain"]["low"] <= row["gain"]["mean"] <= row["gain"]["high"]
    assert row["l1"]["mean"] == pytest.approx(np.mean(l1), rel=1e-5)
    assert row["evaluations"]["mean"] == 7
    assert told["rows"][2]["l1"]["mean"] == 0 and told["rows"][2]["gain"]["mean"] == 0
    (test,) = (t for t in told["paired"] if (t["a"], t["b"], t["measure"]) == ("A", "weak", "l1"))
    assert test["difference"]["mean"] > 0 and test["p"] < 0.01
    assert any("10 patients" in warning for warning in told["warnings"])
    assert "worst" in (tmp_path / "out" / "report.html").read_text()


def test_a_killed_evaluation_ends_with_the_same_numbers(world, judge, tmp_path):
    folder = write(world, tmp_path / "edited", 0.5, n=40)
    whole = edits([str(folder)], tmp_path / "whole", judge=str(judge))
    words = json.dumps(
        {"sources": [str(folder)], "judge": str(judge), "folder": str(tmp_path / "o"), "paths": ["folder"]}
    )
    killed = subprocess.run([sys.executable, Path(__file__).with_name("killed.py"), "edits", "16", words])
    assert killed.returncode == -9
    assert edits([str(folder)], tmp_path / "o", judge=str(judge)) == whole


def test_a_manifest_of_pairs_made_by_anything(world, judge, tmp_path, capsys):
    lines = ["path,counterfactual,finding,direction,patient"]
    lines += [f"{world}/real/{i:03d}.png,{world}/made/{i:03d}.png,pleural effusion,add,P{i // 2}" for i in range(8)]
    lines += [f"{world}/real/008.png,{world}/absent.png,pleural effusion,add,P9"]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    words = ["evaluate", "edits", tmp_path / "pairs.csv", "--judge", judge, "-o", tmp_path / "out", "--json"]
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    told = json.loads(capsys.readouterr().out)
    assert stop.value.code == 1  # one image is absent, the others are evaluated
    (row,) = told["rows"]
    assert (row["finding"], row["direction"], row["n"], row["patients"]) == ("pleural effusion", "add", 8, 4)
    assert "absent.png" in told["failed"][0]
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["model"]["fingerprint"] == open_space(str(judge)).fingerprint and record["scores"] == told["rows"]


def test_images_of_one_name_are_no_pair_and_share_no_null_edit(world, judge, tmp_path):
    write(world, tmp_path / "A", 0.5, n=3)
    for source, stem in (("001", "000"), ("002", "001")):  # each by the name of the one before
        Counterfactual.load(tmp_path / "A" / f"{source}.json").save(tmp_path / "B", stem)
    write(world, tmp_path / "null", 0.0, n=1, null=True)
    told = edits([str(tmp_path / name) for name in ("A", "B")], tmp_path / "out", judge=str(judge))
    l1 = [test["difference"] for test in told["paired"] if test["measure"] == "l1"]
    assert [(test["mean"], test["n"]) for test in l1] == [(0, 2)]  # the same edits of 001 and 002
    told = edits([str(tmp_path / name) for name in ("B", "null")], tmp_path / "other", judge=str(judge))
    assert [(row["source"], row["finding"]) for row in told["rows"]] == [("B", "pacemaker"), ("null", "(null)")]


def test_the_judges_label_is_found_by_any_word_for_the_finding():
    labels = ("Pleural_Effusion", "Support Devices")
    assert column_of("Effusion", labels) == 0
    assert column_of("Pacemaker", labels) == column_of("chest port", labels) == 1
    assert column_of("gout", labels) is None


def test_wrong_words(world, judge, tmp_path):
    with pytest.raises(DataError, match="row 1, counterfactual, finding, direction"):
        edits([str(world / "made.csv")], tmp_path / "o", judge=str(judge))
    with pytest.raises(DataError, match="holds no counterfactuals"):
        edits([str(world / "made")], tmp_path / "o", judge=str(judge))
    folder = write(world, tmp_path / "a", 0.5, n=2)
    with pytest.raises(WordsError, match="two sources"):
        edits([str(folder), str(folder)], tmp_path / "o", judge=str(judge))
