"""What else moves when one thing is edited: the matrix of edits and outputs, and one number for how tangled it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from counterscan.robustness.stress import Effect


def matrix(rows: Sequence[Effect], edits: Sequence[str], outputs: Sequence[str]) -> NDArray[np.float64]:
    """(edits, outputs): the mean change of each output under each edit, less that of the null edit."""
    value = {(r.edit, r.output): r.change - r.null for r in rows if r.group == "all"}
    return np.array([[value[e, o] for o in outputs] for e in edits])


def entanglement(effect: NDArray[np.float64], target: Sequence[int]) -> float:
    """Mean absolute change of the outputs that no edit aimed at, over that of those aimed at: 0 clean, 1 everything moves.

    ``effect`` (edits, outputs); ``target[i]`` is the output that edit i aims at.
    """
    aimed = np.abs(effect[np.arange(len(effect)), list(target)])
    other = np.abs(effect).sum(1) - aimed
    return float((other / max(effect.shape[1] - 1, 1)).mean() / max(aimed.mean(), 1e-9))
