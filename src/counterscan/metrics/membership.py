"""Membership inference by loss (Yeom et al. 2018; Carlini et al. 2023): does a model know its training images better?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from counterscan.metrics.intervals import Interval


@dataclass(frozen=True)
class Membership:
    """``auroc`` of telling members by their lower loss (0.5: no better than chance), and the share of members found where 1 %
    of the others are taken for members.
    """

    auroc: Interval
    found_at_1_percent: float


def membership(members: ArrayLike, others: ArrayLike, *, draws: int = 1000, seed: int = 0) -> Membership:
    """Compare losses (N,) of training images with those (M,) of held-out ones; the interval is a bootstrap over both.

    Raises:
        ValueError: fewer than two losses of a kind.
    """
    a, b = np.asarray(members, np.float64), np.asarray(others, np.float64)
    if min(len(a), len(b)) < 2:
        raise ValueError("membership inference needs at least two losses of each kind")
    rng = np.random.default_rng(seed)
    drawn = [_auroc(rng.choice(a, len(a)), rng.choice(b, len(b))) for _ in range(draws)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    area = Interval(_auroc(a, b), float(low), float(high), len(a) + len(b), len(a) + len(b))
    limit = np.sort(b)[int(np.floor(0.01 * len(b)))]
    return Membership(area, float((a < limit).mean()))


def _auroc(lower: np.ndarray, higher: np.ndarray) -> float:
    """The chance that one of ``lower`` is below one of ``higher``, ties counting half."""
    ordered = np.sort(higher)
    below, upto = np.searchsorted(ordered, lower, "left"), np.searchsorted(ordered, lower, "right")
    return float((len(higher) - (below + upto) / 2).mean() / len(higher))
