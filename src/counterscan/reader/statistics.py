"""Detection theory and agreement, each number with a 95 % interval. Pure functions on plain arrays.

Macmillan and Creelman, Detection Theory, 2nd edition, 2005, unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

Z95 = 1.959964
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, from ``n`` answers. ``low`` and ``high`` are NaN where there is none.

    There is none where all answers are tied: it would have no width, and say nothing of what another reader does.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f}" if np.isnan(self.low) else f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def proportion(hits: int, n: int) -> Estimate:
    """A share of ``n`` answers, with Wilson's interval (1927), which stays inside 0 to 1. ``n`` is at least 1."""
    share, z2 = hits / n, Z95**2 / n
    middle, reach = share + z2 / 2, Z95 * np.sqrt(share * (1 - share) / n + z2 / (4 * n))
    return Estimate(share, float((middle - reach) / (1 + z2)), float((middle + reach) / (1 + z2)), n)


def d_prime(hits: int, signals: int, false_alarms: int, noises: int) -> Estimate:
    """Yes-no sensitivity z(H) - z(F), rates made log-linear (Hautus 1995), so that perfect readers have a finite one.

    The interval is normal, with the variance of Gourevitch and Galanter (1967).
    """
    rates = np.array([(hits + 0.5) / (signals + 1), (false_alarms + 0.5) / (noises + 1)])
    z = norm.ppf(rates)
    error = np.sqrt(np.sum(rates * (1 - rates) / (np.array([signals, noises]) * norm.pdf(z) ** 2)))
    value = float(z[0] - z[1])
    return Estimate(value, value - Z95 * float(error), value + Z95 * float(error), signals + noises)


def d_prime_forced(left_when_left: int, lefts: int, left_when_right: int, rights: int) -> Estimate:
    """Sensitivity of a two-alternative forced choice: that of calling "left", over the square root of 2.

    A reader who prefers a side is not taken for one who sees less. ``lefts`` counts the trials whose signal stood left.
    """
    yes = d_prime(left_when_left, lefts, left_when_right, rights)
    value, low, high = (x / np.sqrt(2) for x in (yes.value, yes.low, yes.high))
    return Estimate(value, low, high, yes.n)


def auc(noises: ArrayLike, signals: ArrayLike) -> Estimate:
    """The area under the ROC curve: how often a signal is rated above a noise, ties half.

    The interval is DeLong's (1988) on the logit scale; for a perfect or a hopeless reader, where that variance is 0,
    Wilson's with as many answers as the smaller class has. None where all ratings are one.
    """
    noise, signal = np.asarray(noises, np.float64), np.asarray(signals, np.float64)
    wins = (signal[:, None] > noise) + 0.5 * (signal[:, None] == noise)
    area, n = float(wins.mean()), len(noise) + len(signal)
    if (wins == 0.5).all():
        return Estimate(area, np.nan, np.nan, n)
    if area in (0.0, 1.0) or min(len(noise), len(signal)) < 2:
        few = min(len(noise), len(signal))
        return Estimate(area, *_ends(proportion(round(area * few), few)), n)
    variance = wins.mean(1).var(ddof=1) / len(signal) + wins.mean(0).var(ddof=1) / len(noise)
    logit, error = np.log(area / (1 - area)), np.sqrt(variance) / (area * (1 - area))
    low, high = 1 / (1 + np.exp(-(logit + np.array([-1, 1]) * Z95 * error)))
    return Estimate(area, float(low), float(high), n)


def roc(noises: ArrayLike, signals: ArrayLike, levels: int) -> tuple[Values, Values]:
    """False alarm and hit rates when every rating from a level on is a yes, from the strictest level, with both corners."""
    steps = np.arange(levels + 1, 0, -1)[:, None]
    return (np.asarray(noises) >= steps).mean(1), (np.asarray(signals) >= steps).mean(1)


def kappa(a: ArrayLike, b: ArrayLike, *, ordered: bool = False) -> float:
    """Cohen's kappa of two readers of the same cases; ``ordered`` numbers are weighted quadratically (Cohen 1968).

    NaN where both said the same one thing throughout: then chance alone would agree.
    """
    _, codes = np.unique(np.concatenate([np.asarray(a), np.asarray(b)]), return_inverse=True)
    if ordered:
        codes = np.concatenate([np.asarray(a, np.float64), np.asarray(b, np.float64)])
    first, second = codes[: len(codes) // 2], codes[len(codes) // 2 :]

    def differs(x: NDArray[Any], y: NDArray[Any]) -> Values:
        return (x - y) ** 2 if ordered else (x != y).astype(np.float64)

    expected = differs(first[:, None], second).mean()
    return float(1 - differs(first, second).mean() / expected) if expected > 0 else float("nan")


def agreement(
    table: NDArray[np.object_] | Values, *, ordered: bool = False, draws: int = 500, seed: int = 0
) -> Estimate:
    """Mean kappa over all pairs of readers (Light 1971), of answers (cases, readers) where NaN or None is none.

    A pair counts on the cases that both have read. The interval is a percentile bootstrap over cases.
    """
    known = np.array([[x is not None and x == x for x in row] for row in table])

    def mean(rows: NDArray[np.intp]) -> float:
        pairs = []
        for i in range(table.shape[1]):
            for j in range(i):
                both = rows[known[rows, i] & known[rows, j]]
                if len(both) > 1:
                    pairs.append(kappa(_column(table, both, i), _column(table, both, j), ordered=ordered))
        return float(np.nanmean(pairs)) if pairs and not np.isnan(pairs).all() else float("nan")

    return bootstrap(mean, len(table), int(known.sum()), draws=draws, seed=seed)


def bootstrap(value: Callable[[NDArray[np.intp]], float], cases: int, n: int, *, draws: int, seed: int) -> Estimate:
    """A function of the drawn cases, with its percentile interval over ``draws`` (Efron 1979); none where all draws agree."""
    rng = np.random.default_rng(seed)
    drawn = [value(rng.integers(cases, size=cases)) for _ in range(draws)]
    known = [x for x in drawn if not np.isnan(x)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) > draws / 2 else (np.nan, np.nan)
    if high - low < 1e-9:  # no width, but for rounding
        low = high = np.nan
    return Estimate(value(np.arange(cases)), float(low), float(high), n)


def over_readers(
    of_reader: Sequence[Callable[[NDArray[np.intp]], float]], cases: int, n: int, *, draws: int = 1000, seed: int = 0
) -> Estimate:
    """The mean of a number over readers; the interval draws readers and cases both (Gallas 2006, its bootstrap form).

    ``of_reader`` gives each reader's number on drawn cases, NaN where it has none. With one reader only cases are drawn.
    """
    rng = np.random.default_rng([seed, 1])

    def mean(rows: NDArray[np.intp]) -> float:
        values = [of_reader[k](rows) for k in rng.integers(len(of_reader), size=len(of_reader))]
        return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")

    drawn = bootstrap(mean, cases, n, draws=draws, seed=seed)
    each = [one(np.arange(cases)) for one in of_reader]
    value = float(np.nanmean(each)) if not np.isnan(each).all() else float("nan")
    return Estimate(value, drawn.low, drawn.high, n)


def _ends(estimate: Estimate) -> tuple[float, float]:
    return estimate.low, estimate.high


def _column(table: NDArray[Any], rows: NDArray[np.intp], reader: int) -> list[float] | list[str]:
    return [table[row, reader] for row in rows]
