"""Distance to the exact counterfactual, which only a world knows. Images float32 (H, W[, C]) in [0, 1], masks bool (H, W)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def error_inside(edited: Array, truth: Array, factual: Array, mask: NDArray[np.bool_]) -> float:
    """Mean |edited - truth| inside the true change mask over mean |factual - truth| there: 0 exact, 1 nothing done.

    Raises:
        ValueError: an empty mask, or a truth that is the factual.
    """
    doing_nothing = float(np.abs(factual - truth)[mask].mean()) if mask.any() else 0.0
    if doing_nothing == 0:
        raise ValueError("the true counterfactual does not differ from the factual inside the mask")
    return float(np.abs(edited - truth)[mask].mean()) / doing_nothing


def drift_outside(edited: Array, factual: Array, mask: NDArray[np.bool_]) -> float:
    """Mean |edited - factual| outside the true change mask: 0 where nothing else was touched."""
    return float(np.abs(edited - factual)[~mask].mean()) if not mask.all() else 0.0
