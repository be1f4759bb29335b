"""``evaluate attribution``: maps that are right, maps that are wrong, thresholds from validation images, a killed run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score
from tests.models import tiny

from counterscan.attribution import Calibration
from counterscan.cli import main
from counterscan.errors import DataError, WordsError
from counterscan.evaluate import mapping
from counterscan.evaluate.attribution import attribution
from counterscan.evaluate.truths import known_as, questions, read_boxes, same_finding
from counterscan.robustness.classifier import Classifier
from counterscan.worlds.dataset import write_world

BOX = (40, 10, 60, 30)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """64-pixel noise; where there is a pacemaker, a square is brighter and a mask says where."""
    folder = tmp_path_factory.mktemp("scenes")
    lines, rng = ["path,patient,split,mask,pacemaker"], np.random.default_rng(0)
    truth = np.zeros((64, 64), np.uint8)
    truth[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    Image.fromarray(truth).save(folder / "mask.png")
    for i in range(60):
        present = i % 3 == 0
        pixels = rng.integers(80, 120, (64, 64)).astype(np.uint8) + truth // 4 * np.uint8(present)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        lines.append(f"{i}.png,P{i // 2},{'val' if i < 33 else 'test'},{'mask.png' if present else ''},{int(present)}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def bright(unit):
    """What a good removal would find: the bright square, but for its left edge."""
    heat = np.where(unit > 0.49, unit - 0.3, 0).astype(np.float32)
    heat[:, : BOX[0] + 2] = 0
    return heat


@pytest.fixture
def seeing(monkeypatch):
    """A mapper whose removal finds bright squares and is unsure of their edge, and whose word attention looks elsewhere."""

    def look(self, pictures):
        out = []
        for picture in pictures:
            heat, wrong = bright(picture.unit()), np.zeros((64, 64), np.float32)
            wrong[50:, :10] = 1
            spread = np.where((heat == 0) & (picture.unit() > 0.49), 0.2, 0.01)
            maps = {"signed": -heat, "spread": spread, "removal": heat, "word attention": wrong}
            out.append(maps | {"centre": np.ones_like(heat)} | self._peers(picture))
        return out

    monkeypatch.setattr(mapping.Mapper, "__call__", look)


def test_right_maps_score_high_and_wrong_ones_low(scenes, model, seeing, tmp_path):
    told = attribution(
        scenes / "manifest.csv", tmp_path, finding="pacemaker", model=model, judge=None, repeats=2, rate=0.05
    )
    removal, words, centre = told["rows"]
    assert told["n"] == {
        "validation_with": 11, "validation_without": 22, "validation_located": 11,
        "test_with": 9, "test_without": 18, "test_located": 9,
    }  # fmt: skip
    assert removal["auprc"]["mean"] > 0.9 and removal["pointing"]["mean"] == 1 and removal["boxes_iou"]["mean"] > 0.5
    assert removal["dice_validation"]["mean"] == pytest.approx(removal["dice_best"]["mean"], abs=0.02)
    assert words["pointing"]["mean"] == 0 and words["auprc"]["mean"] < 0.2
    assert centre["auprc"]["mean"] == pytest.approx(400 / 64**2, abs=1e-6)  # a map that says nothing: the prevalence
    assert removal["false_alarms"]["mean"] == 0 and removal["sensitivity"]["mean"] == 1
    assert removal["error_ranking"]["mean"] > 0.9
    (test,) = (t for t in told["paired"] if (t["b"], t["measure"]) == ("centre", "auprc"))
    assert test["difference"]["low"] > 0 and test["p"] < 0.05
    assert len(Calibration.load(tmp_path / "calibration.json").peaks) == 22
    with np.load(next(tmp_path.glob("work/*/*.npz"))) as maps:
        assert maps["removal"].shape == (64, 64)
    assert "worst" in (tmp_path / "report.html").read_text()


def test_pooled_auprc_is_that_of_all_pixels(scenes, model, seeing, tmp_path):
    told = attribution(scenes / "manifest.csv", tmp_path, finding="pacemaker", model=model, judge=None, limit=4)
    heat, truth = [], []
    mask = np.asarray(Image.open(scenes / "mask.png")) > 0
    for i in (33, 36, 39, 42):
        unit = np.asarray(Image.open(scenes / f"{i}.png"), np.float32) / 255
        heat.append(bright(unit).astype(np.float16).ravel())
        truth.append(mask.ravel())
    expected = average_precision_score(np.concatenate(truth), np.concatenate(heat))
    assert told["rows"][0]["auprc_pooled"] == pytest.approx(expected, abs=1e-3)
    assert any("19 needed to promise" in warning for warning in told["warnings"])
    assert not any("missing" in warning for warning in told["warnings"])  # no judge was named


def test_a_judge_that_does_not_know_the_finding_is_told(scenes, model, seeing, tmp_path):
    Classifier(["gout"], size=32, width=8).save(tmp_path / "c", {"name": "c"})
    judge = str(tmp_path / "c")
    told = attribution(scenes / "manifest.csv", tmp_path / "o", finding="pacemaker", model=model, judge=judge, limit=4)
    assert [row["map"] for row in told["rows"]] == ["removal", "word attention", "centre"]
    says = f"Grad-CAM and integrated gradients are missing: {judge} does not know pacemaker; name a --judge that does"
    assert says in told["warnings"]


def test_a_killed_evaluation_ends_with_the_same_numbers(scenes, model, judge, tmp_path):
    words = {
        "finding": "pacemaker",
        "model": model,
        "judge": str(judge),
        "methods": ["sdedit"],
        "limit": 6,
        "rate": 0.2,
    }
    whole = attribution(scenes / "manifest.csv", tmp_path / "whole", **words)
    assert [row["map"] for row in whole["rows"]] == [
        "removal", "word attention", "Grad-CAM", "integrated gradients", "centre",
    ]  # fmt: skip
    told = words | {
        "manifest": str(scenes / "manifest.csv"),
        "folder": str(tmp_path / "k"),
        "paths": ["manifest", "folder"],
    }
    killed = subprocess.run(
        [sys.executable, Path(__file__).with_name("killed.py"), "attribution", "8", json.dumps(told)]
    )
    assert killed.returncode == -9
    assert attribution(scenes / "manifest.csv", tmp_path / "k", **words) == whole


def test_boxes_instead_of_masks_on_the_command_line(scenes, model, judge, seeing, tmp_path, capsys):
    manifest = (scenes / "manifest.csv").read_text().replace("mask.png", "")
    (tmp_path / "manifest.csv").write_text(manifest.replace("\n", f"\n{scenes}/").removesuffix(f"{scenes}/"))
    boxes = [f"{i}.png,Pacemaker,{BOX[0]},{BOX[1]},20,20" for i in range(33, 60, 3)]
    (tmp_path / "boxes.csv").write_text("\n".join(["file,finding,x,y,w,h", *boxes]) + "\n")
    words = ["evaluate", "attribution", tmp_path / "manifest.csv", "--finding", "pacemaker", "--model", model]
    words += ["--boxes", tmp_path / "boxes.csv", "-o", tmp_path / "out", "--judge", judge, "--json"]
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert stop.value.code == 0, err
    told = json.loads(out)
    assert told["n"]["test_located"] == 9 and told["rows"][0]["boxes_iou"]["mean"] > 0.5
    assert told["rows"][0]["dice_validation"] is None  # boxes are of test images only
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [len(used["fingerprint"]) for used in record["model"]] == [16, 16] and record["scores"] == told["rows"]


def test_a_worlds_word_for_several_findings_is_labelled_by_their_columns(tmp_path):
    lines = ["path,split,mask,glioma,meningioma,white matter lesions"]
    lines += [
        "a.png,test,m.png,0,1,0",
        "b.png,test,,0,0,0",
        "c.png,test,,0,0,",
        "d.png,test,,-1,0,1",
        "e.png,test,m.png,,,",
    ]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")

    def told(finding):
        asked = questions(tmp_path / "manifest.csv", finding, ("val", "test"), {}, None)
        return {question.item.name[0]: question.present for question in asked}

    assert told("lesion") == {"a": True, "b": False, "d": True}
    assert told("meningioma") == {"a": True, "b": False, "c": False, "d": False}
    assert told("scar") == {"a": True, "e": True}  # no column tells of it: the mask does
    assert known_as("Gliomas", ["lesion"]) == "lesion"
    assert known_as("glioma", ["glioma", "lesion"]) == known_as("glioma", ["mass"]) == "glioma"


def test_a_finding_that_the_model_knows_by_a_broader_word_in_a_world_of_contrasts(tmp_path, monkeypatch):
    shapes = []

    def look(self, pictures):
        shapes.extend(picture.pixels.shape for picture in pictures)
        maps = {name: np.ones((32, 32), np.float32) for name in ("signed", "spread", "removal", "centre")}
        return [maps for _ in pictures]

    monkeypatch.setattr(mapping.Mapper, "__call__", look)
    manifest = write_world("brain", tmp_path / "world", 20, size=32)
    splits = {"validation": "train", "test": "val"}
    told = attribution(manifest, tmp_path / "out", finding="glioma", model="brain-world", judge=None, **splits)
    assert told["finding"] == "lesion" and "the model knows glioma as lesion" in told["warnings"]
    assert set(shapes) == {(32, 32, 4)}
    assert told["n"]["test_located"] == told["n"]["test_with"] > 0


def test_an_empty_mask_says_that_the_finding_is_not_there(scenes, model, seeing, tmp_path):
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "none.png")
    lines = ["path,split,mask"]
    for i in range(0, 60, 3):
        lines.append(f"{scenes}/{i}.png,{'val' if i < 30 else 'test'},{scenes}/mask.png")
        lines.append(f"{scenes}/{i + 1}.png,{'val' if i < 30 else 'test'},{tmp_path}/none.png")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    told = attribution(tmp_path / "m.csv", tmp_path / "out", finding="pacemaker", model=model, judge=None)
    assert told["failed"] == []
    assert told["n"] == {
        f"{split}_{kind}": 10 for split in ("validation", "test") for kind in ("with", "without", "located")
    }


@pytest.mark.parametrize("box", ["nan,5,10,10", "1e400,5,10,10", "50,50,-10,10", "50,50,10,0", "-30,5,10,10"])
def test_boxes_that_hold_nothing_are_refused_by_file_and_row(tmp_path, box):
    (tmp_path / "boxes.csv").write_text(f"file,finding,x,y,w,h\n0.png,pacemaker,1,2,3,4\n0.png,pacemaker,{box}\n")
    with pytest.raises(DataError, match=r"boxes.csv: boxes have .* wrong are row 2"):
        read_boxes(tmp_path / "boxes.csv", "pacemaker")


def test_a_box_outside_of_its_image_is_named_and_nothing_is_mapped(scenes, model, tmp_path):
    (tmp_path / "boxes.csv").write_text("file,finding,x,y,w,h\n36.png,pacemaker,500,500,10,10\n")
    (tmp_path / "m.csv").write_text(f"path,split,pacemaker\n{scenes}/36.png,test,1\n")
    with pytest.raises(DataError, match="boxes.csv, row 1: the box holds no pixel of the 64x64 image"):
        attribution(
            tmp_path / "m.csv",
            tmp_path / "out",
            finding="pacemaker",
            model=model,
            judge=None,
            boxes=tmp_path / "boxes.csv",
        )


def test_wrong_words(scenes, model, tmp_path):
    with pytest.raises(WordsError, match="between 0 and 1"):
        attribution(scenes / "manifest.csv", tmp_path, finding="pacemaker", model=model, judge=None, rate=2)
    with pytest.raises(WordsError, match="gout"):
        attribution(scenes / "manifest.csv", tmp_path, finding="gout", model=model, judge=None)
    with pytest.raises(DataError, match="no image of the split 'other'"):
        attribution(
            scenes / "manifest.csv", tmp_path, finding="pacemaker", model=model, judge=None, test="other", limit=1
        )
    (tmp_path / "boxes.csv").write_text("file,finding,x,y,w,h\na.png,pacemaker,1,2,three,4\nb.png,pacemaker,1,2,3,4\n")
    with pytest.raises(DataError, match="wrong are row 1"):
        read_boxes(tmp_path / "boxes.csv", "pacemaker")
    assert same_finding("Effusion", "pleural effusion") and not same_finding("Mass", "pleural effusion")
