"""A picture as it was stored: native pixels, native depth, and how they map to what a model sees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import ImageError

SMALLEST, LARGEST = 16, 100_000_000
"""Pixels a side at least, pixels in all at most."""


@dataclass(frozen=True)
class Picture:
    """One image.

    ``pixels`` (H, W) or (H, W, 3), integer, exactly as stored; ``low`` and ``high`` the stored values shown as 0 and 1
    (the window; 0 and ``2**bits - 1`` for PNG and JPEG); ``inverted`` for MONOCHROME1, where the larger value is
    darker; ``spacing_mm`` (row, column); ``header`` the DICOM data set or NIfTI image it came from.
    """

    pixels: NDArray[Any]
    path: Path | None = None
    format: str = "array"
    bits: int = 8
    low: float = 0.0
    high: float = 255.0
    inverted: bool = False
    spacing_mm: tuple[float, float] | None = None
    header: Any = None

    def unit(self) -> NDArray[np.float32]:
        """float32 (H, W) or (H, W, 3) in [0, 1]; bright means dense, whatever the stored polarity."""
        scaled = (self.pixels.astype(np.float32) - np.float32(self.low)) * np.float32(1 / (self.high - self.low))
        np.clip(scaled, 0, 1, out=scaled)
        return 1 - scaled if self.inverted else scaled

    def with_pixels(self, pixels: NDArray[Any]) -> Picture:
        """The same picture with other pixels of the same shape and type."""
        if pixels.shape != self.pixels.shape or pixels.dtype != self.pixels.dtype:
            raise ImageError(
                f"{self.name}: pixels {pixels.shape} {pixels.dtype} for {self.pixels.shape} {self.pixels.dtype}"
            )
        return replace(self, pixels=pixels)

    @property
    def name(self) -> str:
        """The file's name, or ``array``."""
        return self.path.name if self.path else "array"

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and largest value that may be stored."""
        if np.issubdtype(self.pixels.dtype, np.signedinteger):
            return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        return 0, 2**self.bits - 1

    def __repr__(self) -> str:
        height, width = self.pixels.shape[:2]
        return f"<Picture {self.name} {width}x{height} {self.pixels.dtype} {self.bits}-bit {self.format}>"


def check(picture: Picture) -> Picture:
    """The picture itself, or an ``ImageError`` when it is too small, too large or has no contrast."""
    height, width = picture.pixels.shape[:2]
    check_size(picture.name, width, height)
    if picture.pixels.min() == picture.pixels.max():
        raise ImageError(f"{picture.name}: has no contrast, every pixel is {picture.pixels.flat[0]}")
    return picture


def check_size(name: str, width: int, height: int) -> None:
    """Refuse sizes that no model can use, or that would fill the memory, before anything is decoded."""
    if min(width, height) < SMALLEST:
        raise ImageError(f"{name}: image is {width}x{height}, at least {SMALLEST}x{SMALLEST} needed")
    if width * height > LARGEST:
        raise ImageError(
            f"{name}: image is {width}x{height}, more than {LARGEST // 10**6} megapixels; crop or shrink it"
        )


def from_array(array: NDArray[Any]) -> Picture:
    """A picture from an array: (H, W) or (H, W, 3); uint8, uint16, or floats in [0, 1] (stored as 16-bit).

    Raises:
        ImageError: another shape or type, NaN or infinity, or floats outside [0, 1].
    """
    array = np.asarray(array)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] != 3):
        raise ImageError(f"array: shape {array.shape}, (H, W) or (H, W, 3) needed")
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise ImageError("array: holds NaN or infinite values")
        if array.min() < 0 or array.max() > 1:
            raise ImageError(f"array: float values from {array.min():g} to {array.max():g}, [0, 1] needed")
        array = np.round(array * 65535).astype(np.uint16)
    if array.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"array: type {array.dtype}; uint8, uint16 or floats in [0, 1] needed")
    bits = array.dtype.itemsize * 8
    return check(Picture(array.copy(), bits=bits, high=float(2**bits - 1)))
