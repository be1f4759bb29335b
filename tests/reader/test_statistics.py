"""Detection theory against textbook values, and intervals that hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from counterscan.reader import statistics as s


def test_a_share_has_wilsons_interval():
    found = s.proportion(8, 10)
    assert (found.value, round(found.low, 3), round(found.high, 3)) == (0.8, 0.490, 0.943)
    assert s.proportion(0, 5).low == pytest.approx(0, abs=1e-12) and s.proportion(5, 5).high == pytest.approx(1)


def test_d_prime_of_known_rates():
    hits, alarms = norm.cdf(1), norm.cdf(-1)
    found = s.d_prime(round(hits * 100_000), 100_000, round(alarms * 100_000), 100_000)
    assert found.value == pytest.approx(2, abs=1e-3) and found.high - found.low < 0.05
    perfect = s.d_prime(20, 20, 0, 20)
    assert np.isfinite([perfect.value, perfect.low, perfect.high]).all()


def test_auc_is_scikit_learns():
    rng = np.random.default_rng(0)
    real, made = rng.integers(1, 7, 40), rng.integers(2, 8, 30)
    found = s.auc(real, made)
    assert found.value == pytest.approx(roc_auc_score([0] * 40 + [1] * 30, [*real, *made]))
    assert found.low < found.value < found.high
    assert s.auc([1, 1], [2, 2]).value == 1 and s.auc([1, 1], [2, 2]).low < 1


@pytest.mark.parametrize(("ordered", "weights"), [(False, None), (True, "quadratic")])
def test_kappa_is_scikit_learns(ordered, weights):
    rng = np.random.default_rng(1)
    a = rng.integers(1, 6, 60)
    b = np.where(rng.random(60) < 0.6, a, rng.integers(1, 6, 60))
    assert s.kappa(a, b, ordered=ordered) == pytest.approx(cohen_kappa_score(a, b, weights=weights))


def test_agreement_of_readers_who_skipped_cases():
    a = np.array([1, 2, 3, 4, 5, 1, 2, 3.0])
    b = np.where(np.arange(8) < 6, a, np.nan)
    assert s.agreement(np.stack([a, b], 1)).value == pytest.approx(1)
    assert np.isnan(s.agreement(np.stack([a, np.full(8, np.nan)], 1)).value)
    words = np.array([["x", "x"], ["y", "y"], ["x", "y"], ["y", None]], dtype=object)
    assert s.agreement(words).value == pytest.approx(s.kappa(["x", "y", "x"], ["x", "y", "y"]))


def test_ratings_that_are_all_tied_have_no_interval():
    one = s.auc([3, 3, 3], [3, 3])
    everyone = s.over_readers([lambda rows: 0.5] * 2, 10, 20)
    tied = s.agreement(np.stack([np.full(8, 2.0), np.array([1, 2, 3, 4, 5, 1, 2, 3.0])], 1))
    assert [found.value for found in (one, everyone, tied)] == pytest.approx([0.5, 0.5, 0])
    assert np.isnan([end for found in (one, everyone, tied) for end in (found.low, found.high)]).all()
    assert str(one) == "0.50"


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng, sees, n = np.random.default_rng(2), 1.2, 60
    held = {"yes-no": 0, "forced": 0, "area": 0}
    for _ in range(400):
        real, made = rng.normal(-sees / 2, size=n), rng.normal(sees / 2, size=n)
        yes = s.d_prime((made > 0).sum(), n, (real > 0).sum(), n)
        said_left = rng.normal(sees, size=n) + 0.4 > rng.normal(size=n)
        wrong_left = rng.normal(size=n) + 0.4 > rng.normal(sees, size=n)
        forced = s.d_prime_forced(said_left.sum(), n, wrong_left.sum(), n)
        area = s.auc(real, made)
        held["yes-no"] += yes.low <= sees <= yes.high
        held["forced"] += forced.low <= sees <= forced.high
        held["area"] += area.low <= norm.cdf(sees / np.sqrt(2)) <= area.high
    assert all(0.92 <= count / 400 <= 0.98 for count in held.values()), held
