"""Masks of every kind that data sets have: labels, bits, white drawings, JPEG, and nothing at all."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from counterscan.errors import ImageError
from counterscan.imaging.masks import mask_of

DRAWN = np.zeros((32, 32), np.uint8)
DRAWN[8:16, 4:20] = 1


def read(array, path):
    Image.fromarray(array).save(path)
    return mask_of(path, (32, 32))


@pytest.mark.parametrize("top", [1, 4, 200, 255])
def test_labels_and_white_are_where_something_is(tmp_path, top):
    assert np.array_equal(read(DRAWN * np.uint8(top), tmp_path / "mask.png"), DRAWN > 0)


def test_other_depths_colours_and_files(tmp_path):
    np.save(tmp_path / "mask.npy", DRAWN)
    assert np.array_equal(mask_of(tmp_path / "mask.npy", (32, 32)), DRAWN > 0)
    coloured = np.stack([0 * DRAWN, 0 * DRAWN, DRAWN * 255], -1)
    for array in (DRAWN.astype(bool), DRAWN.astype(np.uint16), DRAWN.astype(np.uint16) * 65535, coloured):
        assert np.array_equal(read(array, tmp_path / "mask.png"), DRAWN > 0), array.dtype


def test_soft_edges_and_the_noise_of_jpeg_count_from_half_of_the_range(tmp_path):
    soft = DRAWN * np.uint8(255)
    soft[7, 4:20] = 100
    assert np.array_equal(read(soft, tmp_path / "mask.png"), DRAWN > 0)
    Image.fromarray(DRAWN * np.uint8(255)).save(tmp_path / "mask.jpg", quality=80)
    assert np.array_equal(mask_of(tmp_path / "mask.jpg", (32, 32)), DRAWN > 0)
    noise = np.random.default_rng(0).integers(0, 6, (32, 32)).astype(np.uint8)
    assert not read(noise, tmp_path / "empty.jpg").any()


@pytest.mark.parametrize(("value", "share"), [(0, 0), (1, 1), (255, 1)])
def test_a_mask_of_one_value_reads(tmp_path, value, share):
    assert read(np.full((32, 32), value, np.uint8), tmp_path / "mask.png").mean() == share


def test_what_is_no_mask_is_refused_in_one_line(tmp_path):
    (tmp_path / "text.png").write_text("words")
    for name, reason in (("absent.png", "No such file"), ("text.png", "cannot identify")):
        with pytest.raises(ImageError, match=f"{name}: the mask cannot be read .*{reason}"):
            mask_of(tmp_path / name, (32, 32))
