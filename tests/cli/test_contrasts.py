"""Slices of several contrasts from the command line: ``.npy`` in, ``.npy`` out, exact outside the change."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from PIL import Image
from tests.cli.test_cli import run
from tests.models import tiny

import counterscan
from counterscan.backbones.compact_pixel import build
from counterscan.editing import _flat
from counterscan.errors import ImageError
from counterscan.imaging import from_array, read, write
from counterscan.result import Counterfactual


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    classes, small = ("no lesion", "lesion", ""), {"resolution": 16, "blocks": (8, 16), "layers": 1, "head_width": 8}
    folder = tmp_path_factory.mktemp("model") / "pixel"
    return str(build(folder, classes=classes, findings=["lesion"], template="brain mri", **small))


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("slices"), np.random.default_rng(0)
    np.save(folder / "a.npy", rng.random((24, 20, 4), np.float32))
    Image.fromarray(rng.integers(0, 255, (24, 20), np.uint8)).save(folder / "grey.png")
    return folder


def test_edit_keeps_every_contrast_and_what_it_did_not_change(model, slices, tmp_path):
    words = ["--remove", "lesion", "--model", model, "-o", tmp_path, "--json"]
    result, code, said = run("edit", slices / "a.npy", *words)
    assert code == 0, said
    (item,) = json.loads(result.stdout)["items"]
    assert item["counterfactual"] == "a.counterfactual.npy"
    before, after = read(slices / "a.npy"), read(tmp_path / item["counterfactual"])
    again = Counterfactual.load(tmp_path / "a.json")
    assert after.pixels.shape == (24, 20, 4)
    assert np.array_equal(again.factual.pixels, before.pixels)
    assert np.array_equal(again.counterfactual.pixels, after.pixels)
    assert np.array_equal(after.pixels[~again.mask], before.pixels[~again.mask])
    assert (after.pixels[again.mask] != before.pixels[again.mask]).any()


def test_attribute_maps_a_slice(model, slices, tmp_path):
    words = ["--finding", "lesion", "--model", model, "-o", tmp_path, "--json"]
    result, code, said = run("attribute", slices / "a.npy", *words)
    assert code == 0, said
    (item,) = json.loads(result.stdout)["items"]
    with Image.open(tmp_path / item["map"]) as image:
        assert image.size == (20, 24)


def test_what_is_generated_keeps_every_contrast(model, tmp_path):
    words = ["generate", "brain mri: lesion.", "--steps", 2, "--model", model]
    result, code, said = run(*words, "-o", tmp_path / "out", "--json")
    assert code == 0, said
    (item,) = json.loads(result.stdout)["items"]
    (drawn,) = counterscan.generate("brain mri: lesion.", steps=2, model=model)
    assert np.array_equal(read(tmp_path / "out" / item["image"]).pixels, drawn.pixels) and drawn.pixels.shape[2] == 4
    with pytest.raises(ImageError, match=r"^a\.png: .* not of 4; write \.npy"):
        write(drawn, tmp_path / "a.png", note={})


def test_an_image_with_other_contrasts_than_the_models_is_refused(model, slices, tmp_path):
    words = ["--remove", "lesion", "--model", model, "-o", tmp_path]
    _, code, said = run("edit", slices / "grey.png", *words)
    assert code == 1
    assert "1 channels, the model takes 4" in said
    words = ["--remove", "pacemaker", "--model", tiny(tmp_path / "grey-model"), "-o", tmp_path / "out"]
    _, code, said = run("edit", slices / "a.npy", *words)
    assert code == 1
    assert "4 channels, the model takes 1" in said


def test_a_lesion_that_is_dark_here_and_bright_there_does_not_cancel():
    change = np.zeros((2, 2, 4), np.float32)
    change[0, 0] = [-0.2, 0.0, 0.2, 0.4]
    change[0, 1] = [-0.4, 0.1, 0.1, 0.2]
    assert _flat(change) == pytest.approx(np.array([[0.2, -0.2], [0, 0]]))
    assert _flat(change[..., :3]) == pytest.approx(change[..., :3].mean(2))


@pytest.mark.parametrize("bad", [b"", b"\x93NUMPY\x01\x00", pickle.dumps([1, 2])])
def test_damaged_arrays_and_pickles_are_one_line(bad, tmp_path):
    (tmp_path / "bad.npy").write_bytes(bad)
    with pytest.raises(ImageError, match="bad.npy") as caught:
        read(tmp_path / "bad.npy")
    assert "\n" not in str(caught.value)


def test_arrays_of_objects_and_of_other_shapes_are_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}, {}], object), allow_pickle=True)
    np.save(tmp_path / "first.npy", np.zeros((4, 32, 32), np.float32))
    for name in ("objects", "first"):
        with pytest.raises(ImageError, match=name):
            read(tmp_path / f"{name}.npy")


def test_an_array_of_contrasts_needs_no_file(model):
    rng = np.random.default_rng(1)
    result = counterscan.edit(rng.random((16, 16, 4)), remove="lesion", model=model)
    assert result.counterfactual.suffix == ".npy"
    assert from_array(rng.random((16, 16, 3))).suffix == ".png"
