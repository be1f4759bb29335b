"""Copies are found however they were disguised, and images of other patients are not taken for copies."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from counterscan.metrics.copies import aligned_correlation, copy_threshold, descriptor, detail
from counterscan.metrics.membership import membership
from counterscan.worlds import chest


@pytest.fixture(scope="module")
def images():
    return [chest.sample(500 + i, size=128).image for i in range(12)]


def flipped(x):
    return x[:, ::-1]


def brightened(x):
    return np.clip(1.15 * x + 0.1, 0, 1)


def cropped(x):
    n = round(0.05 * len(x))
    return x[: len(x) - n, n:]


def jpeg(x):
    file = io.BytesIO()
    Image.fromarray(np.round(x * 255).astype(np.uint8)).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file), np.float32) / 255


def test_a_disguised_copy_is_nearer_than_any_stranger(images):
    strangers = [aligned_correlation(a, b) for i, a in enumerate(images[:4]) for b in images[i + 1 : i + 4]]
    for disguise in (flipped, brightened, cropped, jpeg):
        for x in images[:3]:
            assert aligned_correlation(disguise(x), x) > max(strangers) + 0.05, disguise.__name__
    assert aligned_correlation(images[0], images[0]) == pytest.approx(1, abs=1e-4)


def test_descriptors_and_details_are_standardised(images):
    for x in (descriptor(images[0]), detail(images[0])):
        assert x.mean() == pytest.approx(0, abs=1e-4)
        assert np.linalg.norm(x) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(descriptor(0.5 * images[0] + 0.2), descriptor(images[0]), atol=1e-5)


def test_the_threshold_holds_its_rate_with_confidence():
    rng, kept = np.random.default_rng(0), []
    for _ in range(300):
        limit = copy_threshold(rng.normal(0.6, 0.05, 60), 0.01)
        kept.append((rng.normal(0.6, 0.05, 5000) > limit).mean() <= 0.01)
    assert np.mean(kept) == pytest.approx(0.95, abs=0.03)


def test_the_threshold_is_natrellas_and_never_under_what_was_seen():
    held_out = np.random.default_rng(0).normal(size=30)
    table = 3.064  # one-sided, 95 % confidence, 99 % of the population, n = 30
    assert copy_threshold(held_out) == pytest.approx(held_out.mean() + table * held_out.std(ddof=1), abs=2e-3)
    assert copy_threshold([0.0] * 500 + [9.0] * 10, 0.01) == 9.0
    assert copy_threshold(np.arange(1000.0), 0.5) >= 499


def test_a_patient_with_many_images_counts_once():
    one_each = copy_threshold([0.5, 0.6, 0.7], 0.05)
    assert copy_threshold([0.5] * 40 + [0.6, 0.7], 0.05, ["a"] * 40 + ["b", "c"]) == pytest.approx(one_each)
    with pytest.raises(ValueError, match="two held-out patients"):
        copy_threshold([0.5, 0.6], 0.01, ["a", "a"])


def test_membership_is_the_area_under_the_curve():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    members, others = rng.normal(0, 1, 300), rng.normal(0.5, 1, 200)
    told = membership(members, others, draws=200)
    labels = np.r_[np.ones(300), np.zeros(200)]
    assert told.auroc.mean == pytest.approx(roc_auc_score(labels, -np.r_[members, others]), abs=1e-9)
    assert told.auroc.low < told.auroc.mean < told.auroc.high
    limit = np.sort(others)[2]
    assert told.found_at_1_percent == pytest.approx((members < limit).mean())
    with pytest.raises(ValueError, match="at least two"):
        membership([1.0], [1.0, 2.0])
