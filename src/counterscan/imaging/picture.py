"""A picture as it was stored: native pixels, native depth, and how they map to what a model sees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import ImageError
from counterscan.imaging.window import Curve

ENDINGS = (".nii.gz", ".nii", ".dicom", ".dcm", ".png", ".jpeg", ".jpg", ".tiff", ".tif", ".bmp", ".webp", ".npy")
SMALLEST, LARGEST = 16, 100_000_000
"""Pixels a side at least, pixels in all at most."""
CONTRASTS = 8
"""Images of one slice at most, such as T1, T1c, T2 and FLAIR; more at the end of a shape is a side."""


@dataclass(frozen=True)
class Picture:
    """One image.

    ``pixels`` (H, W), (H, W, 3) or, of several contrasts, (H, W, C), exactly as stored (floats only from NIfTI); ``low`` <
    ``high`` the stored values shown as 0 and 1 (the window; 0 and ``2**bits - 1`` for PNG and JPEG); ``inverted`` where the
    larger stored value is darker, as in MONOCHROME1; ``spacing_mm`` (row, column); ``header`` the DICOM data set or NIfTI
    geometry it came from; ``curve`` the way from stored to shown values where it is no straight line from ``low`` to ``high``;
    ``in_colour`` where the file held ``pixels`` (H, W) in three equal channels, and so will the one that is written;
    ``slice_index`` which slice of the volume in ``path`` this is; ``turned`` where the file says how to turn its pixels to see
    them as they are here; ``synthetic`` where software made them, by these or the file's own word.
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
    curve: Curve | None = None
    in_colour: bool = False
    slice_index: int | None = None
    turned: bool = False
    synthetic: bool = False

    def unit(self) -> NDArray[np.float32]:
        """float32, shaped as ``pixels``, in [0, 1]; bright means dense, whatever the stored polarity."""
        if self.curve is not None:
            shown = self.curve.show(self.pixels)
        else:
            shown = (self.pixels.astype(np.float32) - np.float32(self.low)) * np.float32(1 / (self.high - self.low))
            np.clip(shown, 0, 1, out=shown)
        return np.subtract(1, shown, out=shown) if self.inverted else shown

    def with_pixels(self, pixels: NDArray[Any]) -> Picture:
        """The same picture with other pixels of the same shape and type: a synthetic one, unless they are its own."""
        if pixels.shape != self.pixels.shape or pixels.dtype != self.pixels.dtype:
            raise ImageError(
                f"{self.name}: pixels {pixels.shape} {pixels.dtype} for {self.pixels.shape} {self.pixels.dtype}"
            )
        return replace(self, pixels=pixels, synthetic=self.synthetic or not np.array_equal(pixels, self.pixels))

    @property
    def name(self) -> str:
        """The file's name, or ``array``."""
        return self.path.name if self.path else "array"

    @property
    def stem(self) -> str:
        """The file's name without the ending of its kind; dots inside, as in a DICOM UID, stay."""
        return stem(self.path) if self.path else "image"

    @property
    def suffix(self) -> str:
        """The ending of the file that keeps this picture as it is: ``.dcm``, ``.nii.gz``, ``.npy`` or ``.png``."""
        contrasts = self.pixels.ndim == 3 and self.pixels.shape[2] != 3
        return ".npy" if contrasts else {"dicom": ".dcm", "nifti": ".nii.gz", "npy": ".npy"}.get(self.format, ".png")

    @property
    def plain(self) -> bool:
        """True when stored values are what is shown, over the type's whole range, as in a PNG."""
        whole = (0, 2 ** (8 * self.pixels.dtype.itemsize) - 1)
        straight = self.curve is None and not self.inverted and (self.low, self.high) == whole
        return straight and self.pixels.dtype in (np.uint8, np.uint16)

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and largest integer that may be stored."""
        if np.issubdtype(self.pixels.dtype, np.signedinteger):
            return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        return 0, 2**self.bits - 1

    def __repr__(self) -> str:
        height, width = self.pixels.shape[:2]
        return f"<Picture {self.name} {width}x{height} {self.pixels.dtype} {self.bits}-bit {self.format}>"


def stem(path: Path) -> str:
    """``scan`` of ``scan.nii.gz``, ``1.2.840.7`` of ``1.2.840.7.dcm`` and of ``1.2.840.7``."""
    lower = path.name.lower()
    ending = next((e for e in ENDINGS if lower.endswith(e)), "")
    return path.name[: len(path.name) - len(ending)] or "image"


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
    """A picture from an array: (H, W), (H, W, 3) or (H, W, C) of C contrasts; uint8, uint16, or floats in [0, 1] (stored as
    16-bit).

    Raises:
        ImageError: another shape or type, NaN or infinity, or floats outside [0, 1].
    """
    array = np.asarray(array)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and not 3 <= array.shape[-1] <= CONTRASTS):
        raise ImageError(f"array: shape {array.shape}, (H, W), (H, W, 3) or (H, W, contrasts) needed")
    check_size("array", array.shape[1], array.shape[0])
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise ImageError("array: holds NaN or infinite values")
        if array.min() < 0 or array.max() > 1:
            raise ImageError(f"array: float values from {array.min():g} to {array.max():g}, [0, 1] needed")
        array = np.round(array * np.float32(65535)).astype(np.uint16)  # float16 ends at 65504
    if array.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"array: type {array.dtype}; uint8, uint16 or floats in [0, 1] needed")
    bits = array.dtype.itemsize * 8
    return check(Picture(array.copy(), bits=bits, high=float(2**bits - 1)))


def middle_window(pixels: NDArray[Any], *, without: float | None = None) -> tuple[float, float]:
    """A window for values that come without one: from the 0.1st to the 99.9th percentile, padding left out."""
    seen = pixels if without is None else pixels[pixels != without]
    if not seen.size:
        return 0.0, 1.0
    low, high = (float(x) for x in np.percentile(seen, [0.1, 99.9]))
    return (low, high) if high > low else (float(seen.min()), max(float(seen.max()), float(seen.min()) + 1))
