"""What else moves when one thing is edited: the matrix of edits and outputs, and one number for how tangled it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from counterscan.metrics.intervals import Interval, interval
from counterscan.robustness.stress import bootstrap
from counterscan.robustness.study import Seen


def moved(seen: Sequence[Seen], columns: Sequence[int]) -> NDArray[np.float64]:
    """(N, edits, outputs): the change of the outputs ``columns`` of every image by each edit, less that by the null edit.

    ``seen`` are the same N images under each edit.
    """
    return np.stack([np.subtract(one.after, one.null, dtype=np.float64)[:, list(columns)] for one in seen], axis=1)


def matrix(change: NDArray[np.float64], patients: Sequence[str], seed: int = 0) -> list[list[Interval]]:
    """[edit][output]: the mean of ``change`` (N, edits, outputs) with a 95 % bootstrap interval by patient."""
    return [[interval(values, patients, seed=seed) for values in edit.T] for edit in np.moveaxis(change, 1, 0)]


def entanglement(effect: NDArray[np.float64], target: Sequence[int]) -> NDArray[np.float64]:
    """Mean absolute change of the outputs that no edit aimed at, over that of those aimed at: 0 clean, 1 everything moves.

    ``effect`` (..., edits, outputs) are means over images; ``target[i]`` is the output that edit i aims at.
    """
    size = np.abs(effect)
    aimed = size[..., np.arange(effect.shape[-2]), list(target)]
    other = (size.sum(-1) - aimed) / max(effect.shape[-1] - 1, 1)
    return np.asarray(other.mean(-1) / np.maximum(aimed.mean(-1), 1e-9))


def entangled(change: NDArray[np.float64], target: Sequence[int], patients: Sequence[str], seed: int = 0) -> Interval:
    """The entanglement of the mean of ``change`` (N, edits, outputs), with a 95 % bootstrap interval by patient.

    Noise makes absolute values larger, in every draw once more than in the score, so that the percentiles of the draws may lie
    above the truth and even above the score. The interval therefore reaches as far below the score as above it: as far as the
    farther of the two percentiles. It held true scores of 0.07 to 0.33 in 94 to 99 % of simulated studies of 20 and of 100
    patients, where that of percentiles held them in 0 to 95 %; a true 0 both mostly miss.
    """
    count = len(set(patients))
    score = float(entanglement(change.mean(0), target))
    if count < 2:
        return Interval(score, float("nan"), float("nan"), len(change), count)
    means = bootstrap(change.reshape(len(change), -1), patients, seed)
    low, high = np.quantile(entanglement(means.reshape(-1, *change.shape[1:]), target), [0.025, 0.975])
    reach = float(max(high - score, score - low))
    return Interval(score, max(score - reach, 0.0), score + reach, len(change), count)
