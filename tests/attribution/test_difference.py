"""Maps, thresholds and regions on arrays with known answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterscan.attribution.difference import combine, regions, threshold


def test_combine_is_mean_and_spread():
    mean, spread = combine([np.full((4, 4), v, np.float32) for v in (0.1, 0.3)])
    assert np.allclose(mean, 0.2) and np.allclose(spread, 0.1)
    assert (combine([np.ones((2, 2), np.float32)])[1] == 0).all()


@given(st.floats(0.001, 0.2), st.integers(0, 99))
def test_threshold_holds_its_rate_on_the_null(rate, seed):
    null = np.random.default_rng(seed).normal(0, 0.2, (50, 50)).astype(np.float32)
    assert (np.abs(null) > threshold([null], rate)).mean() <= rate + 1e-3


def test_threshold_has_a_floor():
    assert threshold([np.zeros((9, 9), np.float32)]) == pytest.approx(0.04)


def test_regions_have_boxes_areas_and_millimetres():
    difference = np.zeros((60, 80), np.float32)
    difference[10:20, 30:50] = -0.5
    difference[40:44, 5:9] = 0.3
    difference[0, 0] = 1.0  # a speck, not a region
    found = regions(np.abs(difference) > 0.1, difference, spacing_mm=(0.5, 2.0), smallest=1e-3)
    assert [r.box for r in found] == [(30, 10, 50, 20), (5, 40, 9, 44)]
    assert found[0].area == 200 and found[0].mass == pytest.approx(100.0) and found[0].area_mm2 == pytest.approx(200.0)
