"""How far apart two sets of features are: Fréchet and kernel distances and the inception score.

A score belongs to the space its features come from and is named after it, as in "FID/chest-classifier"; scores of
different spaces are different quantities.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.metrics.neighbours import blocks

Features = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Moments:
    """Number, mean (D,) and scatter (D, D) of features: the summed products of deviations from the mean."""

    n: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(D, D), unbiased."""
        return self.scatter / (self.n - 1)

    def __add__(self, other: Moments) -> Moments:
        """Those of both sets together (Chan et al. 1979)."""
        n = self.n + other.n
        shift = other.mean - self.mean
        between = np.outer(shift, shift) * (self.n * other.n / n)
        return Moments(n, self.mean + shift * (other.n / n), self.scatter + other.scatter + between)


def moments(blocks: Iterable[Features]) -> Moments:
    """Moments of a stream of features (N, D), block by block, in float64; memory does not grow with N.

    Raises:
        ValueError: fewer than two rows in all.
    """
    total: Moments | None = None
    for block in blocks:
        x = np.asarray(block, np.float64)
        if len(x):
            mean = x.mean(0)
            centred = x - mean
            part = Moments(len(x), mean, centred.T @ centred)
            total = part if total is None else total + part
    if total is None or total.n < 2:
        raise ValueError("a distribution needs at least two images")
    return total


def frechet_distance(a: Moments, b: Moments) -> float:
    """Fréchet distance of the two normal distributions (Heusel et al., NeurIPS 2017): 0 for equal moments.

    ``|m_a - m_b|² + tr(S_a + S_b - 2 (S_a S_b)^½)``. The last trace is that of the root of ``L' S_b L`` with
    ``S_a = L L'``, which is symmetric: no complex roots and no constant added to the diagonal. It is biased upward by about
    ``1 / n``; see :func:`frechet_limit`.
    """
    from scipy.linalg import eigvalsh

    root = _factor(a.covariance)
    values = eigvalsh(root.T @ b.covariance @ root, check_finite=False)
    shared = np.sqrt(np.clip(values, 0, None)).sum()
    shift = float(np.square(a.mean - b.mean).sum())
    return max(shift + float(np.trace(a.covariance) + np.trace(b.covariance) - 2 * shared), 0.0)


def _factor(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Any L with L L' = covariance."""
    try:
        return np.asarray(np.linalg.cholesky(covariance), np.float64)
    except np.linalg.LinAlgError:  # singular, as with fewer images than features
        values, vectors = np.linalg.eigh(covariance)
        return np.asarray(vectors * np.sqrt(np.clip(values, 0, None)), np.float64)


def frechet_limit(real: Moments, generated: Features, *, points: int = 8, seed: int = 0) -> tuple[float, float]:
    """The distance for ever more generated images and its slope in ``1 / n`` (FID∞; Chong and Forsyth, CVPR 2020).

    A line is fitted to the distances of ``points`` random subsets from half of the images to all of them. The slope over
    ``n`` is how much too large the distance of ``n`` images is.

    Raises:
        ValueError: fewer than 16 images.
    """
    if len(generated) < 16:
        raise ValueError(f"extrapolating needs at least 16 images, got {len(generated)}")
    order = np.random.default_rng(seed)
    sizes = np.unique(np.linspace(len(generated) // 2, len(generated), points).astype(int))
    subsets = (np.sort(order.permutation(len(generated))[:n]) for n in sizes)
    distances = [
        frechet_distance(real, moments(generated[subset[part]] for part in blocks(len(subset)))) for subset in subsets
    ]
    slope, limit = np.polyfit(1 / sizes, distances, 1)
    return float(limit), float(slope)


def kernel_distance(
    a: Features, b: Features, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Kernel inception distance (Bińkowski et al., ICLR 2018): mean and standard deviation over random subsets.

    The unbiased squared maximum mean discrepancy with the kernel ``(x·y / D + 1)³``; around 0 for equal distributions,
    also for few images. ``size`` is lowered to the smaller set.
    """
    rng, size = np.random.default_rng(seed), min(size, len(a), len(b))
    values = [
        squared_mmd(a[rng.choice(len(a), size, replace=False)], b[rng.choice(len(b), size, replace=False)])
        for _ in range(subsets)
    ]
    return float(np.mean(values)), float(np.std(values))


def squared_mmd(a: Features, b: Features) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy of two sets, with the cubic kernel."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    n, m, d = len(a), len(b), a.shape[1]
    if min(n, m) < 2:
        raise ValueError("a kernel distance needs at least two images of each kind")

    def kernel(x: Features, y: Features) -> NDArray[np.float64]:
        return np.asarray((x @ y.T / d + 1) ** 3)

    aa, bb = kernel(a, a), kernel(b, b)
    within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(within - 2 * kernel(a, b).mean())


def inception_score(probabilities: Features) -> float:
    """``exp(mean KL(p(y|x) || p(y)))`` of class probabilities (N, K) whose rows sum to 1 (Salimans et al., NeurIPS 2016).

    From 1 (all images alike, or none certain) to K. One split: splitting lowers it for small N.
    """
    p = np.clip(np.asarray(probabilities, np.float64), 1e-12, 1)
    return float(np.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean()))


def label_score(probabilities: Features) -> float:
    """The inception score of K independent yes-or-no labels (N, K): ``exp`` of the mean over labels of each one's KL.

    From 1 to 2 (every label certain in each image and present in half of them). Radiographs show several findings at once,
    so their labels are no single choice.
    """
    p = np.asarray(probabilities, np.float64)
    both = np.clip(np.stack([p, 1 - p]), 1e-12, 1)
    return float(np.exp((both * (np.log(both) - np.log(both.mean(1, keepdims=True)))).sum(0).mean()))
