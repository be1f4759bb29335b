"""Localisation equals scikit-learn and hand counts."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from counterscan.metrics.localisation import (
    LEVELS,
    box_iou,
    boxes_iou,
    curve,
    dice,
    energy_inside,
    fill,
    iou,
    pointing_game,
)

RNG = np.random.default_rng(0)
TRUTHS = RNG.random((3, 20, 20)) < 0.2
MAPS = np.round((0.3 * TRUTHS + 0.7 * RNG.random((3, 20, 20))) * (LEVELS - 1)) / (LEVELS - 1)


def test_pooled_curves_equal_scikit_learn():
    pooled = reduce(add, (curve(m, t) for m, t in zip(MAPS, TRUTHS, strict=True)))
    y, p = TRUTHS.ravel(), MAPS.ravel()
    assert pooled.auprc() == pytest.approx(average_precision_score(y, p), abs=1e-9)
    assert pooled.auroc() == pytest.approx(roc_auc_score(y, p), abs=1e-9)
    for threshold in (0.2, 0.5, 0.8):
        assert pooled.dice_at(threshold) == pytest.approx(f1_score(y, p >= threshold), abs=1e-9)
    best, at = pooled.best()
    assert best == pytest.approx(max(f1_score(y, p >= t) for t in np.unique(p)), abs=1e-9)
    assert f1_score(y, p >= at - 1e-9) == pytest.approx(best, abs=1e-9)


def test_ties_count_as_scikit_learn_counts_them():
    heat, truth = np.array([[0.0, 0.5, 0.5, 1.0, 0.0]]), np.array([[True, True, False, False, False]])
    one = curve(heat, truth)
    assert one.auprc() == pytest.approx(average_precision_score(truth.ravel(), heat.ravel()))
    assert one.auroc() == pytest.approx(roc_auc_score(truth.ravel(), heat.ravel()))


def test_scales_other_than_one():
    small = curve(MAPS[0] / 20, TRUTHS[0], scale=0.05)
    assert small.auprc() == pytest.approx(curve(MAPS[0], TRUTHS[0]).auprc())
    assert small.dice_at(0.025) == pytest.approx(curve(MAPS[0], TRUTHS[0]).dice_at(0.5))
    with pytest.raises(ValueError, match="scales"):
        small + curve(MAPS[0], TRUTHS[0])


def test_otsu_parts_two_kinds():
    heat = np.concatenate([RNG.normal(0.2, 0.03, 300), RNG.normal(0.7, 0.03, 50)]).clip(0, 1)[None]
    assert 0.3 < curve(heat, heat > 2).otsu() < 0.65


def test_without_a_finding_nothing_is_claimed():
    empty = curve(MAPS[0], np.zeros((20, 20), bool))
    assert np.isnan(empty.auprc()) and np.isnan(empty.auroc())


def test_masks_boxes_and_points():
    a, b = fill([(0, 0, 4, 4)], (8, 8)), fill([(2, 0, 6, 4)], (8, 8))
    assert (int(a.sum()), dice(a, b), iou(a, b)) == (16, 0.5, pytest.approx(1 / 3))
    assert box_iou((0, 0, 4, 4), (2, 0, 6, 4)) == pytest.approx(1 / 3) and box_iou((0, 0, 1, 1), (2, 2, 3, 3)) == 0
    assert boxes_iou([(0, 0, 4, 4), (7, 7, 8, 8)], [(0, 0, 4, 4), (2, 0, 6, 4)]) == pytest.approx(2 / 3)
    assert boxes_iou([], [(0, 0, 1, 1)]) == 0
    heat = np.zeros((8, 8))
    heat[1, 5], heat[0, 0] = 3, 1
    assert (pointing_game(heat, a), pointing_game(heat, b), pointing_game(heat, a, 2)) == (False, True, True)
    assert energy_inside(heat, b) == 0.75 and energy_inside(0 * heat, b) == 0
    assert dice(a & ~a, a & ~a) == iou(a & ~a, a & ~a) == 1
