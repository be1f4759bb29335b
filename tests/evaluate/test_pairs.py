"""Masks of another size than their image, as data sets have them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from counterscan.errors import ImageError
from counterscan.evaluate.pairs import Pair, open_pair
from counterscan.evaluate.sources import Item
from counterscan.evaluate.truths import Question
from counterscan.imaging.masks import mask_of


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
