"""Do probabilities mean what they say? ``p`` (N,) in [0, 1], ``y`` (N,) of 0 and 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def brier(p: ArrayLike, y: ArrayLike) -> float:
    """Mean squared distance of probability and truth (Brier 1950): 0 perfect, 0.25 for saying 1/2 always."""
    return float(np.square(np.subtract(p, y, dtype=np.float64)).mean())


def reliability(p: ArrayLike, y: ArrayLike, bins: int = 15) -> NDArray[np.float64]:
    """(bins, 3): mean probability, share of positives and number of samples in equal bins of p; NaN where empty."""
    p, y = np.asarray(p, np.float64), np.asarray(y, np.float64)
    place = np.clip((p * bins).astype(int), 0, bins - 1)
    count = np.bincount(place, minlength=bins).astype(np.float64)
    sums = [np.bincount(place, values, minlength=bins) for values in (p, y)]
    with np.errstate(invalid="ignore"):
        return np.stack([sums[0] / count, sums[1] / count, count], 1)


def ece(p: ArrayLike, y: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015) of the positive class: bins weighted by their samples."""
    table = reliability(p, y, bins)
    table = table[table[:, 2] > 0]
    return float((np.abs(table[:, 0] - table[:, 1]) * table[:, 2]).sum() / table[:, 2].sum())
