"""Distance to the truth, on images whose distances are known."""

from __future__ import annotations

import numpy as np
import pytest

from counterscan.metrics.truth import drift_outside, error_inside

FACTUAL = np.zeros((4, 4), np.float32)
MASK = np.zeros((4, 4), bool)
MASK[:2] = True
TRUTH = np.where(MASK, np.float32(0.8), np.float32(0))


@pytest.mark.parametrize(("value", "error"), [(0.0, 1.0), (0.8, 0.0), (0.4, 0.5), (1.0, 0.25)])
def test_error_is_the_share_of_the_change_that_is_missing(value, error):
    edited = np.where(MASK, np.float32(value), np.float32(0.3))
    assert error_inside(edited, TRUTH, FACTUAL, MASK) == pytest.approx(error, abs=1e-6)
    assert drift_outside(edited, FACTUAL, MASK) == pytest.approx(0.3)


def test_colours_count_alike():
    rgb = [np.repeat(x[..., None], 3, axis=2) for x in (TRUTH / 2, TRUTH, FACTUAL)]
    assert error_inside(*rgb, MASK) == pytest.approx(0.5)


def test_without_a_change_there_is_no_error_to_speak_of():
    with pytest.raises(ValueError, match="does not differ"):
        error_inside(FACTUAL, FACTUAL, FACTUAL, MASK)
    assert drift_outside(TRUTH, FACTUAL, np.ones_like(MASK)) == 0
