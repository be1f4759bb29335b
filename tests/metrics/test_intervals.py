"""Intervals cover what they should, pairs are tested by patient, and calibration equals torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, roc_auc_score
from torchmetrics.functional.classification import binary_calibration_error

from counterscan.metrics.calibration import brier, ece, reliability
from counterscan.metrics.intervals import combined, interval, paired, too_few
from counterscan.metrics.membership import membership


def test_intervals_cover_the_truth_at_their_rate():
    rng, hits = np.random.default_rng(0), 0
    for trial in range(200):
        patients = np.repeat(np.arange(40), 3)
        values = rng.standard_normal(40)[patients] + 0.3 * rng.standard_normal(120)
        one = interval(values, patients.tolist(), draws=300, seed=trial)
        hits += one.low <= 0 <= one.high
    assert 0.89 <= hits / 200 <= 0.99


def test_images_of_a_patient_are_not_counted_as_witnesses():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(20), 10)
    values = rng.standard_normal(20)[patients]
    clustered, naive = interval(values, patients.tolist()), interval(values, range(200))
    assert clustered.high - clustered.low > 2 * (naive.high - naive.low)
    assert (clustered.n, clustered.patients, naive.patients) == (200, 20, 200)


def test_unknown_values_are_left_out():
    one = interval([1.0, np.nan, 3.0, np.nan], ["a", "a", "b", "c"])
    assert (one.mean, one.n, one.patients) == (2, 2, 2)
    assert np.isnan(interval([1.0], ["a"]).low)
    with pytest.raises(ValueError, match="no value"):
        interval([np.nan], ["a"])
    with pytest.raises(ValueError, match="patients"):
        interval([1.0, 2.0], ["a"])


def test_pairs():
    rng = np.random.default_rng(0)
    base = rng.standard_normal(60)
    better = paired(base + 0.3 + 0.1 * rng.standard_normal(60), base, range(60))
    assert better.p < 0.001 and better.difference.low > 0.2
    assert paired(base + rng.standard_normal(60) * 0.1, base, range(60)).p > 0.01
    assert paired([1.0, 1.0, 1.0], [0.0, 0.0, 0.0], "abc").p == pytest.approx(2 / 8)  # all patterns tried
    assert paired([1.0, 1.0, 1.0], [0.0, 0.0, 0.0], "aab").p == pytest.approx(2 / 4)


def test_independent_means_together_are_as_sure_as_a_bootstrap_within_each():
    rng = np.random.default_rng(0)
    groups = [rng.normal(k, 0.5 + k, 30 + 10 * k) for k in range(4)]
    drawn = [np.mean([rng.choice(values, len(values)).mean() for values in groups]) for _ in range(4000)]
    one = combined([interval(values, range(len(values))) for values in groups])
    assert one.mean == pytest.approx(np.mean([values.mean() for values in groups]))
    assert [one.low, one.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.06)
    assert one.n == one.patients == sum(map(len, groups))
    assert np.isnan(combined([interval([1.0], "a"), interval([1.0, 2.0], "ab")]).low)


def test_too_few_images_are_said():
    assert too_few(5000, 1000, 10.0, 9.9) is None
    assert "8.5" in (too_few(5000, 1000, 10.0, 8.5) or "")
    assert "50 images" in (too_few(50, 1000, 10.0, None) or "")


def test_calibration_equals_libraries():
    rng = np.random.default_rng(0)
    p = rng.random(500)
    y = (rng.random(500) < p**2).astype(int)
    theirs = binary_calibration_error(torch.from_numpy(p), torch.from_numpy(y), n_bins=15, norm="l1")
    assert ece(p, y) == pytest.approx(float(theirs), abs=1e-4)
    assert brier(p, y) == pytest.approx(brier_score_loss(y, p))
    assert reliability(p, y)[:, 2].sum() == 500 and np.isnan(reliability([0.99], [1])[0, 0])


def test_membership_is_told_by_loss():
    rng = np.random.default_rng(0)
    members, others = rng.normal(0.5, 1, 300), rng.normal(1, 1, 200)
    found = membership(members, others, draws=200)
    y = np.r_[np.zeros(300), np.ones(200)]
    assert found.auroc.mean == pytest.approx(roc_auc_score(y, np.r_[members, others]))
    assert found.auroc.low < found.auroc.mean < found.auroc.high and 0.0 < found.found_at_1_percent < 0.2
    assert membership(np.ones(9), np.ones(9), draws=10).auroc.mean == 0.5
    with pytest.raises(ValueError, match="two"):
        membership([1.0], [1.0, 2.0])
