"""Findings laid over real radiographs: never over one that looks like them."""

from __future__ import annotations

import numpy as np
import pytest

from counterscan.training.captions import DEVICES, CaptionSettings, Row, twin_caption
from counterscan.training.radiographs import PASTED, nih_row, paste, room
from counterscan.training.world_set import draw


def row(*names: str) -> Row:
    return Row("nih", tuple((name, None, None, None) for name in names), ())


@pytest.mark.parametrize(
    ("there", "free"),
    [
        ((), set(PASTED)),
        (("support devices",), set(PASTED) - {*DEVICES}),
        (("pneumonia",), {*DEVICES}),
        (("mass", "support devices"), set()),
        (("cardiomegaly",), set(PASTED)),
    ],
)
def test_nothing_is_laid_over_its_like(there, free):
    assert set(room(row(*there))) == free


def test_an_image_that_keeps_a_real_device_is_never_told_to_have_none():
    before, after = row("support devices", "pacemaker"), row("support devices")
    said = {twin_caption(before, after, np.random.default_rng(k), CaptionSettings()) for k in range(40)}
    assert not any("no support devices" in text for text in said)


def test_pairs_differ_where_the_finding_was_laid(tmp_path):
    draw(tmp_path, 12, 0, 1_000_000, 3)
    grey = np.full((1, 256, 256), 128, np.uint8)
    images, rows, of = paste(tmp_path, grey, [nih_row({"Support_Devices": "0"}, "nih")], 8, seed=0)
    assert set(of) == set(range(8))
    first = np.flatnonzero(np.diff(of, prepend=-1))
    assert all(np.array_equal(images[i], grey[0]) and rows[i].present == () for i in first)
    assert 8 < len(of) - len(first) < 24
    for i in set(range(len(of))) - set(first):
        assert not np.array_equal(images[i], images[i - 1])
        assert len(set(rows[i].present) - set(rows[i - 1].present)) == 1
        assert set(rows[i - 1].present) < set(rows[i].present)
