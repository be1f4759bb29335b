"""From counterfactuals to a map: mean signed difference, its spread over repeats, a calibrated mask, and regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Region:
    """One connected part of a finding's map.

    ``box`` is (left, top, right, bottom) in native pixels, right and bottom exclusive; ``area`` in pixels, ``area_mm2``
    where the spacing is known; ``mass`` the summed absolute difference (intensities from 0 to 1).
    """

    box: tuple[int, int, int, int]
    area: int
    mass: float
    area_mm2: float | None = None


def combine(differences: Sequence[Array]) -> tuple[Array, Array]:
    """Mean and standard deviation over repeats, each float32 (H, W); the spread of a single map is 0."""
    stack = np.stack(differences)
    return stack.mean(0).astype(np.float32), stack.std(0).astype(np.float32)


def strength(difference: Array) -> Array:
    """The absolute difference (H, W), smoothed over 1/128 of the side: single pixels are noise."""
    from scipy import ndimage

    smoothed: Array = ndimage.gaussian_filter(np.abs(difference), max(difference.shape) / 128)
    return smoothed


def threshold(null: Sequence[Array], rate: float = 0.01, floor: float = 0.02) -> float:
    """The absolute difference that null edits of the same image exceed in a share ``rate`` of their pixels.

    Never below ``floor`` (five grey levels of 256), which no reader could see.
    """
    return max(float(np.quantile(np.abs(np.stack(null)), 1 - rate)), floor)


def regions(
    mask: NDArray[np.bool_], difference: Array, spacing_mm: tuple[float, float] | None = None, smallest: float = 2e-4
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
        mm2 = area * spacing_mm[0] * spacing_mm[1] if spacing_mm else None
        mass = float(np.abs(difference[window])[inside].sum())
        found.append(Region((columns.start, rows.start, columns.stop, rows.stop), area, mass, mm2))
    return sorted(found, key=lambda region: -region.mass)
