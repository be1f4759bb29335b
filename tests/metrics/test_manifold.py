"""Precision, recall, density, coverage and neighbours against the definitions, written out with scikit-learn."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

from counterscan.metrics import neighbours
from counterscan.metrics.manifold import manifold
from counterscan.metrics.neighbours import nearest

RNG = np.random.default_rng(0)
REAL, FAKE = RNG.standard_normal((70, 5)), 0.7 * RNG.standard_normal((50, 5)) + 0.4


@pytest.mark.parametrize("k", [3, 5])
def test_the_four_means(monkeypatch, k):
    monkeypatch.setattr(neighbours, "BLOCK", 16)
    monkeypatch.setattr(neighbours.blocks, "__defaults__", (16,))
    radius = [NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x)[0][:, k] for x in (REAL, FAKE)]
    d = pairwise_distances(REAL, FAKE)
    ours = manifold(REAL, FAKE, k=k)
    assert ours.precision.mean() == pytest.approx((d < radius[0][:, None]).any(0).mean())
    assert ours.recall.mean() == pytest.approx((d < radius[1]).any(1).mean())
    assert ours.density.mean() == pytest.approx((d < radius[0][:, None]).sum(0).mean() / k)
    assert ours.coverage.mean() == pytest.approx((d.min(1) < radius[0]).mean())
    assert 0 < ours.recall.mean() < ours.precision.mean()  # narrower than the real ones: true to them, but not varied


@pytest.mark.parametrize("faiss", [True, False])
def test_neighbours_are_those_of_scikit_learn(monkeypatch, faiss):
    if faiss:
        pytest.importorskip("faiss")
    else:
        monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(neighbours, "INDEX_BLOCK", 16)
    monkeypatch.setattr(neighbours.blocks, "__defaults__", (16,))
    far, places = NearestNeighbors(n_neighbors=4).fit(REAL).kneighbors(FAKE)
    ours = nearest(FAKE, REAL, 4)
    np.testing.assert_allclose(ours[0], far, atol=1e-4)
    np.testing.assert_array_equal(ours[1], places)
    assert nearest(FAKE, REAL[:2], 4)[1].shape == (50, 2)


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="more than 5"):
        manifold(REAL[:5], FAKE)
