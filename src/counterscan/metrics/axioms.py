"""The axioms of counterfactuals (Monteiro et al., ICLR 2023), measured as in Melistas et al. (NeurIPS 2024).

Images are float (H, W[, C]) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from counterscan.metrics.similarity import mae

Image = NDArray[np.floating[Any]]


def composition(factual: Image, repeated: Sequence[Image]) -> list[float]:
    """Mean absolute distance to the factual after 1, 2, … null edits, each of the result of the one before. 0 is perfect."""
    return [mae(factual, image) for image in repeated]


def reversibility(factual: Image, returned: Sequence[Image]) -> list[float]:
    """Mean absolute distance to the factual after 1, 2, … cycles of an edit and its opposite. 0 is perfect."""
    return [mae(factual, image) for image in returned]


def effectiveness(asked: ArrayLike, judged: ArrayLike) -> NDArray[np.float64]:
    """|asked - judged| (N,): the values set (0 or 1) against a judge's probabilities in the results. 0 is perfect."""
    return np.abs(np.subtract(asked, judged, dtype=np.float64))


def minimality(change: float, to_source: ArrayLike, to_target: ArrayLike) -> float:
    """Counterfactual latent divergence (Sanchez and Tsaftaris, CLeaR 2022), from ln 2 (best) to ln 2 + 1.

    ``ln(exp P(to_target <= change) + exp P(to_source >= change))``: the edit should move the image (``change`` is a distance
    between factual and counterfactual) less than other images of the target class are away from the factual, and more than
    those of its own class are.
    """
    nearer = float(np.mean(np.asarray(to_target) <= change))
    farther = float(np.mean(np.asarray(to_source) >= change))
    return float(np.log(np.exp(nearer) + np.exp(farther)))
