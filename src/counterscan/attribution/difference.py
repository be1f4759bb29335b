"""From counterfactuals to a map: mean signed difference, its spread over repeats, a calibrated mask, and regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from counterscan.result import Counterfactual

Array = NDArray[np.float32]
FLOOR = 0.04  # weaker changes (intensities from 0 to 1) are no finding
SMALLEST = 2e-4  # of the image: smaller regions are specks


@dataclass(frozen=True)
class Region:
    """One connected part of a finding's map.

    ``box`` is (left, top, right, bottom) in native pixels, right and bottom exclusive; ``area`` in pixels, ``area_mm2``
    and ``size_mm`` (width, height) of the box where the spacing is known; ``mass`` the summed absolute difference
    (intensities from 0 to 1).
    """

    box: tuple[int, int, int, int]
    area: int
    mass: float
    area_mm2: float | None = None
    size_mm: tuple[float, float] | None = None


def signed(result: Counterfactual) -> Array:
    """What an edit changed, counterfactual minus factual (H, W), weak changes too.

    Blending leaves those out of the image: in its difference they are all 0, and pixels could not be ranked. A counterfactual
    that was loaded has only that one.
    """
    return result.difference if result.unblended is None else result.unblended


def combine(differences: Sequence[Array]) -> tuple[Array, Array]:
    """Mean and standard deviation over repeats, each float32 (H, W); the spread of a single map is 0."""
    stack = np.stack(differences)
    return stack.mean(0).astype(np.float32), stack.std(0).astype(np.float32)


def strength(difference: Array) -> Array:
    """The absolute difference (H, W), smoothed over 1/128 of the side: single pixels are noise."""
    from scipy import ndimage

    smoothed: Array = ndimage.gaussian_filter(np.abs(difference), max(difference.shape) / 128)
    return smoothed


def threshold(null: Sequence[Array], rate: float = 0.01, floor: float = FLOOR) -> float:
    """The absolute difference that null edits of the same image exceed in a share ``rate`` of their pixels.

    Never below ``floor``: no reader would see weaker changes.
    """
    return max(float(np.quantile(np.abs(np.stack(null)), 1 - rate)), floor)


def evidence(difference: Array, smallest: float = SMALLEST) -> float:
    """The highest level that the :func:`strength` of a difference exceeds in a whole region, one that :func:`regions` keeps.

    A finding is present where this exceeds the threshold, so thresholds are calibrated on it.
    """
    heat = strength(difference)
    levels = np.unique(heat)
    low, high = -1, len(levels) - 1  # a region is left above levels[low], none above levels[high]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if regions(heat > levels[middle], difference, smallest=smallest) else (low, middle)
    return float(levels[high])


def regions(
    mask: NDArray[np.bool_],
    difference: Array,
    spacing_mm: tuple[float, float] | None = None,
    smallest: float = SMALLEST,
) -> list[Region]:
    """Connected regions of a mask (H, W), largest mass first; those below ``smallest`` of the image are left out."""
    from scipy import ndimage

    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    found = []
    for index, window in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[window] == index
        area = int(inside.sum())
        if area < smallest * mask.size:
            continue
        rows, columns = window
        box = columns.start, rows.start, columns.stop, rows.stop
        mass = float(np.abs(difference[window])[inside].sum())
        if spacing_mm is None:
            found.append(Region(box, area, mass))
            continue
        down, across = spacing_mm
        size_mm = (columns.stop - columns.start) * across, (rows.stop - rows.start) * down
        found.append(Region(box, area, mass, area * down * across, size_mm))
    return sorted(found, key=lambda region: -region.mass)
