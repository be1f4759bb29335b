"""Put a change into the original: exact where nothing changed, at the original's size and depth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import ImageError
from counterscan.imaging.picture import Picture

ROWS = 256
"""Rows at a time, so that the largest image needs little memory."""
FADE = 0.05
"""The change, on the unit scale, that takes a pixel beyond the window all the way back to the window's edge."""


def composite(picture: Picture, change: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[Any]:
    """Native pixels with ``weight * change`` added.

    A pixel inside the window becomes ``round(original + weight * change * (high - low))``, the sign turned for pictures
    where a larger value is darker, and through the inverse curve where the window is no straight line. A pixel that the
    window clips starts from the window's edge when the change leads inwards: a saturated device that is taken away has to
    look gone.

    Args:
        picture: the original.
        change: signed float32 (H, W[, C]) on the unit scale of ``picture.unit()``.
        weight: float32 (H, W) in [0, 1]; where it is 0 the result equals the original bit for bit.

    Returns:
        Pixels of the original's shape and type, clipped to what its bits can hold; nothing wraps around.

    Raises:
        ImageError: shapes that do not fit, or NaN or infinity where the weight is not 0.
    """
    shape = picture.pixels.shape
    if weight.shape != shape[:2] or change.shape not in (shape[:2], shape):
        raise ImageError(f"{picture.name}: change {change.shape} and weight {weight.shape} for pixels {shape}")
    out = picture.pixels.copy()
    for top in range(0, shape[0], ROWS):
        band = slice(top, top + ROWS)
        inside = weight[band] != 0
        if not inside.any():
            continue
        step = change[band][inside].astype(np.float64)
        scale = weight[band][inside].astype(np.float64)
        values = out[band][inside].astype(np.float64)
        if values.ndim == 2:
            step = step if step.ndim == 2 else step[:, None]
            scale = scale[:, None]
        step = step * scale
        if not np.isfinite(step).all():
            raise ImageError(f"{picture.name}: the change or its weight holds NaN or infinite values")
        out[band][inside] = _native(picture, _moved(picture, values, -step if picture.inverted else step))
    return out


def _moved(picture: Picture, values: NDArray[np.float64], step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stored values after a step on the unit scale. A step of 0 is exact, and the result is continuous in the step."""
    edge = np.clip(values, picture.low, picture.high)
    beyond = values - edge
    inwards = beyond * step < 0
    kept = np.where(inwards, np.maximum(0, 1 - np.abs(step) / FADE), 1)
    if picture.curve is None:
        move = step * (picture.high - picture.low)
    else:
        shown = np.interp(edge, picture.curve.stored, picture.curve.unit)
        move = picture.curve.store(shown + step) - picture.curve.store(shown)
    return values + move - beyond * (1 - kept)


def _native(picture: Picture, values: NDArray[np.float64]) -> NDArray[Any]:
    if np.issubdtype(picture.pixels.dtype, np.floating):
        return values.astype(picture.pixels.dtype)
    return np.clip(np.round(values), *picture.limits).astype(picture.pixels.dtype)
