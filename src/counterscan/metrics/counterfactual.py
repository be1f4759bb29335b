"""What an edit did: to a judge's opinion, and to the rest of the image.

Judges are classifiers that guided no edit and chose none. ``wanted`` is 1 where the edit adds the finding and 0 where it
removes it, ``before`` and ``after`` are the judge's probabilities of it; all (N,). Images are float (H, W[, C]) in [0, 1].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Image = NDArray[np.floating[Any]]
Values = NDArray[np.float64]
VISIBLE = 1 / 255


def prediction_gain(before: ArrayLike, after: ArrayLike, wanted: ArrayLike) -> Values:
    """Counterfactual prediction gain (Nemirovsky et al. 2020; PRISM) in [-1, 1]: the move toward what was asked.

    ``after - before`` for a finding that is added, ``before - after`` for one that is removed.
    """
    change = np.subtract(after, before, dtype=np.float64)
    return np.where(np.asarray(wanted) > 0.5, change, -change)


def flipped(before: ArrayLike, after: ArrayLike, wanted: ArrayLike, threshold: float = 0.5) -> Values:
    """1 where the decision crossed ``threshold`` to what was asked, 0 where not, NaN where it was there already."""
    goal = np.asarray(wanted) > 0.5
    ahead, there = ((np.asarray(p) > threshold) == goal for p in (before, after))
    return np.where(ahead, np.nan, there.astype(np.float64))


def valid(after: ArrayLike, wanted: ArrayLike, threshold: float = 0.5) -> Values:
    """1 where the judge sees what was asked in the result, whatever it saw before; its mean is the validity."""
    return ((np.asarray(after) > threshold) == (np.asarray(wanted) > 0.5)).astype(np.float64)


def side_effect(before: ArrayLike, after: ArrayLike, asked: ArrayLike) -> Values:
    """Mean absolute change (N,) of the labels nobody asked about: probabilities and bool ``asked`` are (N, K).

    NaN where every label was asked.
    """
    change = np.abs(np.subtract(after, before, dtype=np.float64))
    others = ~np.asarray(asked, bool)
    count = others.sum(1)
    total = np.where(others, change, 0).sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def identity_l1(factual: Image, counterfactual: Image, region: NDArray[np.bool_] | None = None) -> dict[str, float]:
    """Subject identity preservation (PRISM): mean absolute difference, over the image, in a region (H, W) and outside it.

    The factual is the original image, not a reconstruction, at its own size. Keys ``whole``, and with a region ``inside``
    and ``outside``, NaN where there is no such pixel. Lower keeps more of the patient.
    """
    change = _change(factual, counterfactual)
    out = {"whole": float(change.mean())}
    if region is not None:
        for name, where in (("inside", region), ("outside", ~region)):
            out[name] = float(change[where].mean()) if where.any() else float("nan")
    return out


def proximity(factual: Image, counterfactual: Image) -> float:
    """Root mean squared difference, in [0, 1]: 0 for no change. An edit should be valid AND near."""
    return float(np.sqrt(np.square(np.subtract(counterfactual, factual, dtype=np.float64)).mean()))


def sparsity(factual: Image, counterfactual: Image, visible: float = VISIBLE) -> float:
    """The share of pixels, in [0, 1], that changed by more than ``visible`` (one grey level of 256)."""
    return float((_change(factual, counterfactual) > visible).mean())


def identity_kept(factual: Values, counterfactual: Values, strangers: Values) -> Values:
    """Is the patient still the nearest? (N,): the share of strangers' features (M, D) farther from the factual's than its edit.

    Features are those of a re-identification or other encoder, cosine distance; 1 is perfect, 0.5 chance.
    """

    def unit(x: Values) -> Values:
        return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))

    own = (unit(factual) * unit(counterfactual)).sum(1)
    return np.asarray((unit(factual) @ unit(strangers).T < own[:, None]).mean(1))


def _change(factual: Image, counterfactual: Image) -> Values:
    change = np.abs(np.subtract(counterfactual, factual, dtype=np.float64))
    return change if change.ndim == 2 else change.mean(2)
