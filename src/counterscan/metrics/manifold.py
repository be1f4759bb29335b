"""Precision, recall, density and coverage of generated images in a feature space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.metrics.neighbours import blocks, distances

Features = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Manifold:
    """The terms of four means. ``precision`` and ``density`` (M,) of generated, ``recall`` and ``coverage`` (N,) of real images.

    With balls around every image that reach to its k-th nearest neighbour of the same kind: ``precision`` is 1 where a
    generated image lies in a ball of a real one, ``recall`` where a real one lies in a ball of a generated one
    (Kynkäänniemi et al., NeurIPS 2019); ``density`` is how many real balls hold a generated image, over k, and ``coverage``
    1 where the ball of a real image holds a generated one (Naeem et al., ICML 2020).
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    density: NDArray[np.float64]
    coverage: NDArray[np.float64]


def manifold(real: Features, generated: Features, *, k: int = 5) -> Manifold:
    """Compare features (N, D) and (M, D), in blocks.

    Raises:
        ValueError: not more than k images of a kind.
    """
    if min(len(real), len(generated)) <= k:
        raise ValueError(f"precision and recall with k = {k} need more than {k} images of each kind")
    real_reach, generated_reach = reach(real, k), reach(generated, k)
    density = np.zeros(len(generated))
    recall, coverage = np.zeros(len(real)), np.zeros(len(real))
    for rows in blocks(len(real)):
        for part in blocks(len(generated)):
            d = distances(real[rows], generated[part])
            inside = d < real_reach[rows, None]
            density[part] += inside.sum(0)
            coverage[rows] = np.maximum(coverage[rows], inside.any(1))
            recall[rows] = np.maximum(recall[rows], (d < generated_reach[part]).any(1))
    return Manifold((density > 0).astype(np.float64), recall, density / k, coverage)


def reach(features: Features, k: int) -> NDArray[np.float64]:
    """The distance (N,) of every row to its k-th nearest other row."""
    out = np.empty(len(features))
    for rows in blocks(len(features)):
        nearest = np.full((rows.stop - rows.start, k + 1), np.inf)
        for part in blocks(len(features)):
            both = np.concatenate([nearest, distances(features[rows], features[part])], 1)
            nearest = np.partition(both, k, axis=1)[:, : k + 1]
        out[rows] = nearest.max(1)
    return out
