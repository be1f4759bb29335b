"""``counterscan attribute``: every option, and that "not here" is an answer."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from tests.cli.test_cli import run
from tests.models import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    """Six grey images and a manifest, by which four have no pacemaker."""
    folder, rng = tmp_path_factory.mktemp("set"), np.random.default_rng(0)
    lines = ["path,pacemaker"]
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (40, 40), np.uint8)).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{int(i >= 4)}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_several_methods_a_second_opinion_and_formats(model, radiographs, tmp_path):
    words = ["--method", "sdedit", "--method", "ddim", "--attention", "--format", "png", "--format", "nifti"]
    words += ["--finding", "pacemaker", "--model", model, "-o", tmp_path, "--json"]
    result, code, said = run("attribute", radiographs / "4.png", *words)
    assert code == 0, said
    (item,) = json.loads(result.stdout)["items"]
    kinds = [f"{kind}{end}" for kind in ("map", "mask", "spread", "attention") for end in ("", "_nifti")]
    assert all((tmp_path / item[kind]).is_file() for kind in [*kinds, "overlay"])
    assert item["rate"] is None and (item["uncertainty"] is None) == (not item["present"])
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["method"] == ["sdedit", "ddim"]


def test_a_rate_is_promised_by_images_without_the_finding(model, radiographs, tmp_path):
    words = ["--finding", "pacemaker", "--model", model, "--json"]
    first = ["--calibration", radiographs / "manifest.csv", "--rate", 0.2, "-o", tmp_path / "a"]
    result, code, said = run("attribute", radiographs / "0.png", *words, *first)
    assert code == 0, said
    (item,) = json.loads(result.stdout)["items"]
    peaks = json.loads((tmp_path / "a/calibration.json").read_text())["peaks"]
    assert len(peaks) == 4 and item["rate"] == 0.2 and item["threshold"] >= max(peaks) - 1e-6
    assert item["present"] is False and item["regions"] == []
    again = ["--calibration", tmp_path / "a/calibration.json", "--rate", 0.2, "-o", tmp_path / "b"]
    result, code, said = run("attribute", radiographs / "0.png", *words[:-1], *again)
    assert code == 0 and "pacemaker not seen, at a false-positive rate of 20 %" in result.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--rate", 0.1], "--calibration"),
        (["--calibration", "SET/manifest.csv"], "calibrate on 19 or more"),
        (["--calibration", "SET/manifest.csv", "--rate", 0], "between 0 and 1"),
        (["--calibration", "SET/manifest.csv", "--finding", "pleural effusion"], "no image is known to be without"),
        (["--calibration", "SET/none.json"], "no calibration"),
        (["--format", "jpeg"], "known are png, nifti, dicom-seg"),
        (["--method", "sdedit", "--method", "nothing"], "nothing"),
    ],
    ids=str,
)
def test_wrong_words(words, says, model, radiographs, tmp_path):
    words = [str(word).replace("SET", str(radiographs)) for word in words]
    finding = [] if "--finding" in words else ["--finding", "pacemaker"]
    _, code, said = run("attribute", radiographs / "0.png", *finding, *words, "--model", model, "-o", tmp_path / "o")
    assert code and says in said and said.count("\n") <= 1
    assert not (tmp_path / "o").exists()


def test_a_segmentation_that_cannot_be_is_refused_before_any_work(radiographs, tmp_path, monkeypatch):
    words = ["--finding", "pacemaker", "--model", "never-opened", "--format", "dicom-seg", "-o", tmp_path / "o"]
    scan = get_testdata_file("CT_small.dcm")
    monkeypatch.setitem(sys.modules, "highdicom", None)
    _, code, said = run("attribute", scan, *words)
    assert (code, said) == (1, "DICOM segmentations need highdicom; pip install counterscan[dicom]")
    monkeypatch.setitem(sys.modules, "highdicom", ModuleType("highdicom"))
    _, code, said = run("attribute", scan, radiographs / "0.png", *words)
    assert (
        code == 2 and said == f"{radiographs / '0.png'}: a DICOM segmentation needs a DICOM image; ask for png or nifti"
    )
    _, code, said = run("attribute", scan, tmp_path / "absent.dcm", *words)
    assert code == 2 and "no model 'never-opened'" in said


def test_without_the_finding_there_is_no_segmentation(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", ModuleType("highdicom"))
    monkeypatch.setattr("counterscan.attribution.threshold", lambda null: 2.0)  # more than any change
    words = ["--finding", "pacemaker", "--model", model, "--format", "dicom-seg", "-o", tmp_path, "--json"]
    result, code, said = run("attribute", get_testdata_file("CT_small.dcm"), *words)
    assert code == 0, said
    (item,) = json.loads(result.stdout)["items"]
    assert item["present"] is False and "segmentation" not in item
