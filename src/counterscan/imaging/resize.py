"""Between a picture of any shape and the square a model takes: aspect kept, the inverse map kept too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Placement:
    """Where the picture lies in the square: ``height`` x ``width`` natively, ``inner`` (rows, columns) at ``top, left``."""

    height: int
    width: int
    size: int
    inner: tuple[int, int]
    top: int
    left: int

    def restore(self, square: NDArray[Any]) -> Array:
        """A map on the square (size, size[, C]) brought back to the picture's own (H, W[, C]), float32, bicubic.

        Values stay between the smallest and largest that went in, so a weight stays a weight.
        """
        crop = square[self.top : self.top + self.inner[0], self.left : self.left + self.inner[1]]
        native = _resize(np.asarray(crop, np.float32), self.height, self.width, Image.Resampling.BICUBIC)
        return np.clip(native, crop.min(), crop.max(), out=native)


def fit(image: Array, size: int) -> tuple[Array, Placement]:
    """Scale (H, W[, C]) to fit a square of ``size``, antialiased, centred on black; returns the square and the way back."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    inner = (max(round(height * scale), 1), max(round(width * scale), 1))
    top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
    square = np.zeros((size, size, *image.shape[2:]), np.float32)
    small = image if inner == (height, width) else _resize(image, *inner, Image.Resampling.LANCZOS)
    square[top : top + inner[0], left : left + inner[1]] = np.clip(small, 0, 1)
    return square, Placement(height, width, size, inner, top, left)


def _resize(image: Array, height: int, width: int, how: Image.Resampling) -> Array:
    if image.shape[:2] == (height, width):
        return image.copy()
    if image.ndim == 3:
        return np.stack([_resize(image[..., c], height, width, how) for c in range(image.shape[2])], -1)
    resized = Image.fromarray(np.ascontiguousarray(image, np.float32)).resize((width, height), how)
    return np.array(resized, np.float32)
