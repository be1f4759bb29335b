"""Put a change into the original: exact where nothing changed, at the original's size and depth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import ImageError
from counterscan.imaging.picture import Picture


def composite(picture: Picture, change: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[Any]:
    """Native pixels with ``weight * change`` added.

    Args:
        picture: the original.
        change: signed float32 (H, W[, C]) on the unit scale of ``picture.unit()``.
        weight: float32 (H, W) in [0, 1]; where it is 0 the result equals the original bit for bit.

    Returns:
        Pixels of the original's shape and type, clipped to what its bits can hold; nothing wraps around.
    """
    if weight.shape != picture.pixels.shape[:2] or change.shape[:2] != weight.shape:
        raise ImageError(
            f"{picture.name}: change {change.shape} and weight {weight.shape} for pixels {picture.pixels.shape}"
        )
    rows, columns = np.nonzero(weight > 0)
    out = picture.pixels.copy()
    if not len(rows):
        return out
    span = (picture.high - picture.low) * (-1 if picture.inverted else 1)
    delta = change[rows, columns].astype(np.float64)
    scale = weight[rows, columns].astype(np.float64) * span
    if picture.pixels.ndim == 3:
        scale = scale[:, None]
        delta = delta if delta.ndim == 2 else delta[:, None]
    value = np.round(picture.pixels[rows, columns].astype(np.float64) + scale * delta)
    out[rows, columns] = np.clip(value, *picture.limits).astype(picture.pixels.dtype)
    return out
