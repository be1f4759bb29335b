"""Pairs and what a manifest tells of them: patients, and masks of another size than their image."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from counterscan.errors import DataError, ImageError
from counterscan.evaluate.pairs import Pair, by_stem, identity, open_pair, pairs
from counterscan.evaluate.sources import Item
from counterscan.evaluate.sources import identity as identity_of_images
from counterscan.evaluate.truths import Question
from counterscan.imaging import read
from counterscan.imaging.masks import mask_of
from counterscan.result import Counterfactual
from counterscan.types import Change, Edit


def save(array, path):
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def mask(tmp_path):
    """A square in a mask of 256 pixels, as of the COVID-19 Radiography Database, whose images have 299."""
    drawn = np.zeros((256, 256), np.uint8)
    drawn[64:128, 0:64] = 255
    return save(drawn, tmp_path / "COVID-1.mask.png")


def test_a_smaller_mask_lies_where_it_did(mask, tmp_path):
    scaled = mask_of(mask, (299, 299))
    assert scaled.shape == (299, 299) and scaled[80:145, :72].all()
    assert scaled.mean() == pytest.approx(1 / 16, rel=0.02) and not scaled[:74].any() and not scaled[:, 76:].any()
    ramp = np.tile(np.arange(299) // 2, (299, 1)).astype(np.uint8)
    images = [save(ramp + np.uint8(more), tmp_path / f"{more}.png") for more in (0, 20)]
    opened = open_pair(Pair("a", "P", tuple(images), (("covid-19", "remove"),), mask=mask))
    assert opened.region is not None and np.array_equal(opened.region, scaled)
    assert np.array_equal(Question(Item(images[0], "a", "P", mask=mask), "test", True).truth((299, 299)), scaled)


def test_a_mask_of_the_images_size_is_taken_as_it_is(mask):
    with Image.open(mask) as image:
        assert np.array_equal(mask_of(mask, (256, 256)), np.asarray(image) > 0)


def test_a_mask_of_another_shape_is_of_another_image(mask):
    with pytest.raises(ImageError, match=r"COVID-1.mask.png: the mask is 256x256, its image 320x256"):
        mask_of(mask, (256, 320))


@pytest.fixture
def namesakes(tmp_path):
    """A/x.png and B/x.png, their edits as ``edit A/x.png B/x.png`` saves them, and a manifest of both."""
    ramp = np.tile(np.arange(32), (32, 1)).astype(np.uint8)
    lines = ["path,patient,mask"]
    for k, name in enumerate("AB"):
        (tmp_path / name).mkdir()
        factual = read(save(ramp + np.uint8(9 * k), tmp_path / name / "x.png"))
        change = np.zeros((32, 32), np.float32)
        words = Edit("a", "b", (Change("Effusion", "remove"),))
        made = Counterfactual(factual, factual, change, change > 0, words, "none")
        made.save(tmp_path / "edits", "x" if not k else f"x-{k + 1}")
        lines.append(f"{name}/x.png,P{name},{name}.mask.png")
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    return tmp_path


def test_edits_of_one_name_get_the_mask_and_patient_of_their_own_image(namesakes):
    found = list(pairs(namesakes / "edits", by_stem(namesakes / "manifest.csv")))
    told = {pair.stem: (pair.patient, pair.mask and pair.mask.name) for pair in found}
    assert told == {"x": ("PA", "A.mask.png"), "x-2": ("PB", "B.mask.png")}
    (namesakes / "one.csv").write_text("path,patient\nB/x.png,PB")
    told = {pair.stem: pair.patient for pair in pairs(namesakes / "edits", by_stem(namesakes / "one.csv"))}
    assert told == {"x": "x", "x-2": "PB"}  # nothing is known of A/x.png


def test_namesakes_that_cannot_be_told_apart_are_refused(namesakes):
    known = by_stem(namesakes / "manifest.csv")
    for name in "AB":
        (namesakes / name / "x.png").unlink()
    with pytest.raises(DataError, match=r"x-2?.json: is of .*A/x.png or of .*B/x.png"):
        list(pairs(namesakes / "edits", known))


def test_words_and_directions_of_a_manifest_mean_what_they_do_elsewhere(namesakes):
    (namesakes / "pairs.csv").write_text("path,counterfactual,finding,direction\nA/x.png,B/x.png,Effusion,Remove")
    (pair,) = pairs(namesakes / "pairs.csv", {})
    assert pair.changes == (("pleural effusion", "remove"),)
    edited = open_pair(list(pairs(namesakes / "edits", {}))[-1])
    assert edited.changes == pair.changes and edited.image == open_pair(pair).image


def test_a_changed_mask_is_another_evaluation(namesakes):
    mask, manifest = save(np.zeros((32, 32), np.uint8), namesakes / "A.mask.png"), namesakes / "manifest.csv"
    (namesakes / "pairs.csv").write_text(
        "path,counterfactual,finding,direction,mask\nA/x.png,B/x.png,edema,add,A.mask.png"
    )

    def keys():
        known = by_stem(manifest)
        both = identity(namesakes / "edits", known), identity(namesakes / "pairs.csv", {})
        return [key for _, key in (*both, identity_of_images(manifest))]

    before = keys()
    assert before == keys()
    os.utime(mask, (1, 1))
    assert all(a != b for a, b in zip(before, keys(), strict=True))
