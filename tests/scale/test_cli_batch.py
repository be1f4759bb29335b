"""``counterscan batch``: the contract of the command line."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from tests.scale.conftest import write_images
from typer.testing import CliRunner

from counterscan.backbones.compact_pixel import build
from counterscan.cli import app
from counterscan.errors import DataError, WordsError
from counterscan.result import Counterfactual
from counterscan.robustness.classifier import Classifier
from counterscan.robustness.opening import open_classifier
from counterscan.robustness.study import probabilities


def run(*words):
    return CliRunner().invoke(app, ["batch", *map(str, words)])


def test_json_and_exit_codes(model, tmp_path):
    manifest, out = write_images(tmp_path, 3), tmp_path / "out"
    words = (manifest, "--remove", "pacemaker", "--method", "ddim", "--model", model, "--seed", 2, "-o", out, "--json")
    result = run(*words)
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["items"], summary["done"], summary["failed"], summary["model"]) == (3, 3, 0, "tiny")
    assert (out / summary["ledger"]).is_dir()
    record = json.loads((out / "run.json").read_text())
    assert record["command"] == "batch" and record["settings"]["seed"] == 2
    (tmp_path / "images/0/scan 000.png").unlink()
    manifest.write_text(manifest.read_text() + "absent.png,1\n")
    result = run(*words)
    assert result.exit_code == 1
    summary = json.loads(result.stdout)
    assert (summary["done"], summary["failed"], summary["skipped"]) == (3, 1, 3)
    assert result.stderr.splitlines() == ["counterscan: absent.png: no such file"]


def test_rows_that_name_no_image_are_recorded_and_the_others_done(model, tmp_path):
    manifest, out = write_images(tmp_path, 2), tmp_path / "out"
    good = manifest.read_text()
    manifest.write_text(good + ",30\nx.png,31,old, very\n")
    words = (manifest, "--remove", "pacemaker", "--method", "sdedit", "--model", model, "-o", out, "--json")
    for skipped in (0, 2):
        result = run(*words)
        assert result.exit_code == 1
        summary = json.loads(result.stdout)
        assert [summary[name] for name in ("items", "done", "failed", "skipped")] == [4, 2, 2, skipped]
        assert result.stderr.splitlines() == [
            "counterscan: row 3: its path is empty; name an image",
            "counterscan: row 4: has 4 fields, the header 2; quote a field with a ','",
        ]
    rows = pd.read_parquet(out / "ledger").set_index("item")
    assert list(rows.loc[["row 3", "row 4"], "status"]) == ["failed"] * 2
    manifest.write_text(good)
    assert run(*words).exit_code == 0


def test_a_manifest_without_rows_is_refused(model, tmp_path):
    (tmp_path / "m.csv").write_text("path,age\n")
    result = run(tmp_path / "m.csv", "--remove", "pacemaker", "--model", model, "-o", tmp_path / "out")
    assert isinstance(result.exception, DataError) and str(result.exception) == f"{tmp_path / 'm.csv'}: lists no image"
    assert not (tmp_path / "out").exists()


def test_a_judge_scores_every_result_in_the_ledger(model, tmp_path):
    judge = Classifier(["gout", "pacemaker"], size=32, width=8).save(tmp_path / "judge", {"name": "judge"})
    manifest, out = write_images(tmp_path, 2), tmp_path / "out"
    words = (manifest, "--remove", "pacemaker", "--method", "sdedit", "--model", model, "-o", out)
    assert run(*words, "--judge", judge).exit_code == 0
    outputs = open_classifier(judge)
    for row in pd.read_parquet(out / "ledger").itertuples():
        saved = Counterfactual.load(out / next(name for name in row.files if name.endswith(".json")))
        assert list(row.judged) == ["pacemaker"]
        for told, picture in ((row.before, saved.factual), (row.after, saved.counterfactual)):
            assert list(told) == pytest.approx([probabilities(outputs, picture)[0, 1]], abs=1e-5)
    result = run(*words)
    assert isinstance(result.exception, WordsError) and "its judge differ" in str(result.exception)


def test_wrong_words_are_refused_before_anything_is_written(model, tmp_path):
    manifest, out = write_images(tmp_path, 1), tmp_path / "out"
    result = run(manifest, "--remove", "unicorn", "--model", model, "-o", out)
    assert isinstance(result.exception, WordsError) and not out.exists()
    assert run(manifest, "--remove", "pacemaker", "--region", "heart", "--mask", "m.png", "-o", out).exit_code == 2


def test_a_method_that_the_model_cannot_run_is_refused_once_and_before_anything_is_written(model, tmp_path):
    classes, small = ("no lesion", "lesion", ""), {"resolution": 16, "blocks": (8, 16), "layers": 1, "head_width": 8}
    pixel = build(tmp_path / "pixel", classes=classes, findings=["lesion"], template="brain mri", **small)
    manifest, out = write_images(tmp_path, 2), tmp_path / "out"
    for name, method, finding, says in (
        (pixel, "prism", "lesion", "does not offer"),
        (model, "instruct", "pacemaker", "sees the image"),
    ):
        result = run(manifest, "--remove", finding, "--method", method, "--model", name, "-o", out)
        assert isinstance(result.exception, WordsError) and says in str(result.exception) and not out.exists()


def test_what_must_stay_has_a_weight_of_its_own(model, tmp_path):
    """As in ``counterscan edit``: --keep asks for factored guidance where the model's default has it as its twin."""
    manifest = write_images(tmp_path, 1)
    words = (manifest, "--remove", "pacemaker", "--keep", "pleural effusion", "--model", model)
    assert run(*words, "-o", tmp_path / "kept").exit_code == 0
    assert json.loads((tmp_path / "kept" / "job.json").read_text())["method"] == "factored"
    assert run(*words, "--method", "ddim", "-o", tmp_path / "named").exit_code == 0
    assert json.loads((tmp_path / "named" / "job.json").read_text())["method"] == "ddim"
