"""Distances of distributions equal torchmetrics, scipy and closed forms; streaming equals all at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import poly_mmd

from counterscan.metrics.distribution import (
    Moments,
    frechet_distance,
    frechet_limit,
    inception_score,
    kernel_distance,
    label_score,
    moments,
    squared_mmd,
)


def features(n: int, d: int = 12, *, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + shift


def test_streaming_equals_all_at_once():
    x = features(1000)
    whole, parts = moments([x]), moments(np.array_split(x, 7))
    np.testing.assert_allclose(parts.mean, x.mean(0), atol=1e-12)
    np.testing.assert_allclose(parts.covariance, np.cov(x.T), atol=1e-10)
    assert frechet_distance(whole, parts) == pytest.approx(0, abs=1e-6)


def test_frechet_of_features_by_scipy_root():
    a, b = features(400), features(300, seed=1, shift=0.5)
    root = sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert frechet_distance(moments([a]), moments([b])) == pytest.approx(expected, rel=1e-6)


def test_frechet_of_known_normals():
    # commuting covariances: |m|² + sum (s_a - s_b)²
    one, two = Moments(101, np.zeros(3), 100 * np.diag([1.0, 4.0, 9.0])), Moments(101, np.ones(3), 100 * np.eye(3))
    assert frechet_distance(one, two) == pytest.approx(3 + 0 + 1 + 4)


def test_frechet_with_fewer_images_than_features():
    a, b = features(8, 20), features(9, 20, seed=3)
    product = np.linalg.eigvals(np.cov(a.T) @ np.cov(b.T)).real.clip(0)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * np.sqrt(product).sum()
    assert frechet_distance(moments([a]), moments([b])) == pytest.approx(expected, rel=1e-4)


def test_the_limit_undoes_the_bias():
    rng = np.random.default_rng(0)
    real = moments([rng.standard_normal((20_000, 20))])
    few = rng.standard_normal((200, 20))
    limit, slope = frechet_limit(real, few)
    raw = frechet_distance(real, moments([few]))
    assert slope > 0 and raw > 0.5  # nothing but bias: both are the same distribution
    assert abs(limit) < raw / 3
    with pytest.raises(ValueError, match="16"):
        frechet_limit(real, few[:15])


def test_kernel_distance_equals_torchmetrics():
    a, b = features(60), features(60, seed=1, shift=0.3)
    theirs = float(poly_mmd(torch.from_numpy(a), torch.from_numpy(b)))
    assert squared_mmd(a, b) == pytest.approx(theirs, rel=1e-6)
    mean, spread = kernel_distance(a, b, subsets=10)
    assert (mean, spread) == (pytest.approx(theirs, rel=1e-6), pytest.approx(0, abs=1e-4 * theirs))  # subsets of all


def test_kernel_distance_is_unbiased():
    rng = np.random.default_rng(0)
    values = [squared_mmd(rng.standard_normal((10, 4)), rng.standard_normal((10, 4))) for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20


class Passing(torch.nn.Module):
    def forward(self, x):
        return x


def test_inception_score_equals_torchmetrics():
    logits = 3 * torch.from_numpy(np.random.default_rng(0).standard_normal((50, 7)))
    score = InceptionScore(feature=Passing(), splits=1)
    score.update(logits)
    assert inception_score(logits.softmax(1).numpy()) == pytest.approx(float(score.compute()[0]), abs=1e-4)
    assert inception_score(np.eye(5)) == pytest.approx(5)


def test_label_score_of_extremes():
    assert label_score(np.full((10, 3), 0.3)) == pytest.approx(1)
    assert label_score(np.array([[0.0, 1.0], [1.0, 0.0]])) == pytest.approx(2)
    one = np.random.default_rng(0).random((40, 1))
    assert label_score(one) == pytest.approx(inception_score(np.concatenate([one, 1 - one], 1)))


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="two"):
        moments([np.zeros((1, 3))])
    with pytest.raises(ValueError, match="two"):
        squared_mmd(np.zeros((1, 3)), np.zeros((5, 3)))
