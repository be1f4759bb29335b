"""Is a map right about where? Maps are float (H, W), larger where the finding is; truths bool (H, W) or boxes.

A box is (left, top, right, bottom) in pixels, right and bottom exclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]
LEVELS = 65536


@dataclass(frozen=True)
class Curve:
    """How many pixels of the finding (``inside``) and of the rest (``outside``) have each level of a map; both (LEVELS,).

    Curves of several images add up, so pooled scores over all pixels of a data set need no memory for its pixels. Level k
    stands for a map value of ``k / (LEVELS - 1) * scale``.
    """

    inside: NDArray[np.int64]
    outside: NDArray[np.int64]
    scale: float = 1.0

    def __add__(self, other: Curve) -> Curve:
        """The curve of all pixels of both; their scales must be one."""
        if self.scale != other.scale:
            raise ValueError(f"curves of scales {self.scale} and {other.scale} do not add up")
        return Curve(self.inside + other.inside, self.outside + other.outside, self.scale)

    @property
    def thresholds(self) -> NDArray[np.float64]:
        """(LEVELS,) the map value of every level, rising."""
        return np.arange(LEVELS) / (LEVELS - 1) * self.scale

    def found(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many pixels inside and outside are at least at each threshold."""
        return self.inside[::-1].cumsum()[::-1], self.outside[::-1].cumsum()[::-1]

    def auprc(self) -> float:
        """Average precision ``sum (R_k - R_{k-1}) P_k`` over falling thresholds (no interpolation). Chance is the prevalence.

        NaN where no pixel belongs to the finding.
        """
        total = int(self.inside.sum())
        if not total:
            return float("nan")
        true, false = self.found()
        precision = true / np.maximum(true + false, 1)
        return float((self.inside * precision).sum() / total)

    def auroc(self) -> float:
        """The chance that a pixel of the finding has more than one of the rest, ties counting half. NaN without both."""
        n, m = int(self.inside.sum()), int(self.outside.sum())
        if not n or not m:
            return float("nan")
        below = self.outside.cumsum() - self.outside
        return float((self.inside * (below + self.outside / 2)).sum() / n / m)

    def dice(self) -> NDArray[np.float64]:
        """(LEVELS,) ``2 |A and B| / (|A| + |B|)`` of the pixels at or above each threshold with the finding."""
        true, false = self.found()
        return np.asarray(2 * true / np.maximum(true + false + self.inside.sum(), 1))

    def dice_at(self, threshold: float) -> float:
        """Dice at a threshold that was chosen without these pixels: on validation images, or without labels."""
        return float(self.dice()[min(int(np.ceil(threshold / self.scale * (LEVELS - 1) - 1e-6)), LEVELS - 1)])

    def best(self) -> tuple[float, float]:
        """The largest Dice and its threshold: on test images an upper bound, on validation images the choice to make."""
        dice = self.dice()
        k = int(dice.argmax())
        return float(dice[k]), float(self.thresholds[k])

    def otsu(self) -> float:
        """The threshold that best parts all values in two, without labels (Otsu 1979)."""
        count = (self.inside + self.outside).astype(np.float64)
        weight, moment = count.cumsum(), (count * self.thresholds).cumsum()
        rest = weight[-1] - weight
        with np.errstate(divide="ignore", invalid="ignore"):
            between = (moment[-1] * weight / weight[-1] - moment) ** 2 / (weight * rest)
        between = np.nan_to_num(between, nan=0, posinf=0)
        best = np.flatnonzero(between >= between.max() * (1 - 1e-12))  # all levels between two groups part them alike
        return float(self.thresholds[min(int(best.mean()) + 1, LEVELS - 1)])


def curve(heat: Map, truth: Mask, scale: float = 1.0) -> Curve:
    """The curve of one image. Map values are clipped to [0, ``scale``] and rounded to 65 536 levels."""
    levels = np.clip(np.round(np.asarray(heat, np.float64) / scale * (LEVELS - 1)), 0, LEVELS - 1).astype(np.int64)
    inside = np.bincount(levels[truth], minlength=LEVELS)
    return Curve(inside, np.bincount(levels.ravel(), minlength=LEVELS) - inside, scale)


def dice(found: Mask, truth: Mask) -> float:
    """``2 |A and B| / (|A| + |B|)``; 1 where both are empty."""
    total = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / total if total else 1.0


def iou(found: Mask, truth: Mask) -> float:
    """``|A and B| / |A or B|``; 1 where both are empty."""
    union = int((found | truth).sum())
    return int((found & truth).sum()) / union if union else 1.0


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - shared
    return shared / union if union > 0 else 0.0


def boxes_iou(found: Sequence[Box], truth: Sequence[Box]) -> float:
    """Mean over the true boxes of the best IoU with any found box; 0 where nothing was found."""
    return float(np.mean([max((box_iou(f, t) for f in found), default=0.0) for t in truth]))


def pointing_game(heat: Map, truth: Mask, tolerance: float = 0) -> bool:
    """Is the map's highest point (the first of several) in the finding (Zhang et al., IJCV 2018)?

    ``tolerance`` in pixels is allowed around it; the paper gives 15 to images of about 500 pixels.
    """
    row, column = np.unravel_index(int(np.argmax(heat)), heat.shape)
    if not tolerance:
        return bool(truth[row, column])
    rows, columns = np.nonzero(truth)
    return bool(rows.size and np.hypot(rows - row, columns - column).min() <= tolerance)


def energy_inside(heat: Map, truth: Mask) -> float:
    """The share of a non-negative map's sum inside the finding, in [0, 1] (Wang et al. 2020); 0 for an empty map."""
    total = float(heat.sum())
    return float(heat[truth].sum()) / total if total > 0 else 0.0


def fill(boxes: Sequence[Box], shape: tuple[int, int]) -> Mask:
    """The mask (H, W) of everything inside any box; a pixel belongs where its centre does."""
    out = np.zeros(shape, bool)
    for left, top, right, bottom in boxes:
        rows, columns = (slice(max(round(a), 0), max(round(b), 0)) for a, b in ((top, bottom), (left, right)))
        out[rows, columns] = True
    return out
