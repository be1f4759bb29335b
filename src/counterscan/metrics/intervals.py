"""How sure a mean is: bootstrap intervals by patient, paired tests, and when there are too few images."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval, over ``n`` values of ``patients`` patients. ``low`` and ``high`` are NaN for one patient."""

    mean: float
    low: float
    high: float
    n: int
    patients: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Paired:
    """The mean difference of two methods on the same images, with the p-value of a sign-flip test by patient."""

    difference: Interval
    p: float


def interval(
    values: ArrayLike, patients: Sequence[Hashable], *, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean of values (N,) with a percentile bootstrap that draws patients, not images (Efron; Field and Welsh 2007).

    Images of one patient are no independent witnesses. NaN values are left out, with their patients where nothing remains.

    Raises:
        ValueError: no value is known, or the lengths differ.
    """
    sums, counts = _by_patient(values, patients)
    mean = float(sums.sum() / counts.sum())
    if len(sums) < 2:
        return Interval(mean, float("nan"), float("nan"), int(counts.sum()), len(sums))
    rng, means = np.random.default_rng(seed), np.empty(draws)
    for start in range(0, draws, 100):
        size = min(100, draws - start)
        weights = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=size)
        means[start : start + size] = (weights @ sums) / (weights @ counts)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), int(counts.sum()), len(sums))


def paired(a: ArrayLike, b: ArrayLike, patients: Sequence[Hashable], *, draws: int = 10_000, seed: int = 0) -> Paired:
    """Is ``a - b`` (N,), of two methods on the same images, more than chance? Signs are flipped by patient.

    With 12 patients or fewer every pattern of signs is tried. The p-value is two-sided and never 0.
    """
    difference = np.subtract(a, b, dtype=np.float64)
    sums, _ = _by_patient(difference, patients)
    seen, n = abs(float(sums.sum())), len(sums)
    if n <= 12:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        p = float((np.abs(signs @ sums) >= seen - 1e-12).mean())
    else:
        rng, more = np.random.default_rng(seed), 0
        for start in range(0, draws, 500):
            signs = rng.choice([-1.0, 1.0], (min(500, draws - start), n))
            more += int((np.abs(signs @ sums) >= seen - 1e-12).sum())
        p = (more + 1) / (draws + 1)
    return Paired(interval(difference, patients, seed=seed), p)


def combined(parts: Sequence[Interval]) -> Interval:
    """The mean of independent means, such as those of several findings, each counting alike.

    Its limits are recovered from theirs (MOVER; Zou and Donner 2008), and NaN where one of them has none.
    """
    means, lows, highs = np.array([(part.mean, part.low, part.high) for part in parts]).T
    mean = float(means.mean())
    down, up = (float(np.sqrt(np.square(limits - means).sum())) / len(parts) for limits in (lows, highs))
    return Interval(mean, mean - down, mean + up, sum(p.n for p in parts), sum(p.patients for p in parts))


def too_few(n: int, dimensions: int, score: float, limit: float | None) -> str | None:
    """Why a Fréchet distance of ``n`` images is not to be trusted, with the extrapolated value; ``None`` where it is.

    Too few are fewer than twice the features (the covariance is then hardly known), or so few that the extrapolated
    ``limit`` lies more than 5 % away.
    """
    bent = limit is not None and abs(score - limit) > 0.05 * max(score, 1e-12)
    if n >= 2 * dimensions and not bent:
        return None
    reason = f"{n} images are few for {dimensions} features: the distance is biased upward"
    return reason + ("" if limit is None else f"; extrapolated to infinitely many it is {limit:.4g}, not {score:.4g}")


def _by_patient(values: ArrayLike, patients: Sequence[Hashable]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of the known values of every patient."""
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or len(x) != len(patients):
        raise ValueError(f"{len(patients)} patients for values of shape {x.shape}")
    names: dict[Hashable, int] = {}
    place = np.array([names.setdefault(patient, len(names)) for patient in patients], int)
    known = ~np.isnan(x)
    if not known.any():
        raise ValueError("no value is known")
    counts = np.bincount(place[known], minlength=len(names)).astype(np.float64)
    sums = np.bincount(place[known], x[known], minlength=len(names)).astype(np.float64)
    return sums[counts > 0], counts[counts > 0]
