"""PNG and JPEG in, PNG out: 8 and 16 bits, grey and colour, without a change of value."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from counterscan.errors import ImageError
from counterscan.imaging.files import replacing
from counterscan.imaging.picture import Picture, check, check_size
from counterscan.imaging.png import layout, read_deep, write_deep
from counterscan.imaging.provenance import DISCLAIMER, SOFTWARE, as_json

DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError, struct.error, zlib.error)
"""What Pillow raises on damaged files."""


def read_raster(path: Path) -> Picture:
    """A PNG or JPEG file as a picture, the way up its EXIF says. Alpha is dropped; equal channels are read as grey."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                check_size(path.name, *image.size)
                form, deep = str(image.format).lower(), layout(image)
                stored = read_deep(path, deep) if deep else _pixels(image)
                orientation, synthetic = _orientation(image), image.info.get("Synthetic") == "yes"
    except UnidentifiedImageError:
        raise ImageError(
            f"{path.name}: is not a PNG or JPEG image, whatever its name says; save it as PNG, DICOM or NIfTI"
        ) from None
    except Image.DecompressionBombError:
        raise ImageError(f"{path.name}: the header claims too many pixels; crop or shrink it") from None
    except DAMAGE as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ImageError(f"{path.name}: cannot be decoded ({reason}); the file may be truncated") from None
    pixels, bits = _grey_if_equal(_upright(stored, orientation)), stored.dtype.itemsize * 8
    in_colour, turned, high = pixels.ndim < stored.ndim, orientation != 1, float(2**bits - 1)
    return check(Picture(pixels, path, form, bits, 0.0, high, in_colour=in_colour, turned=turned, synthetic=synthetic))


def _orientation(image: Image.Image) -> int:
    """EXIF's number of how to turn the stored pixels, 1 to 8; 1, not at all, where it says nothing that makes sense."""
    with suppress(*DAMAGE):
        number: Any = image.getexif().get(ExifTags.Base.Orientation)
        return int(number) if number in range(1, 9) else 1
    return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels (H, W[, 3]) as they are to be seen: transposed first, then flipped."""
    pixels = pixels.swapaxes(0, 1) if orientation >= 5 else pixels
    rows, columns = (-1 if orientation in flipped else 1 for flipped in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("L", "1"):
        return np.array(image.convert("L"))
    if image.mode == "LA":
        return np.asarray(image)[..., 0].copy()
    return np.asarray(image.convert("RGBA" if "A" in image.mode else "RGB"))[..., :3]


def _grey_if_equal(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels
    first = pixels[..., 0]
    equal = (first == pixels[..., 1]).all() and (first == pixels[..., 2]).all()
    return np.ascontiguousarray(first if equal else pixels)


def write_png(pixels: np.ndarray, path: Path, note: Mapping[str, Any]) -> Path:
    """Write uint8 or uint16 (H, W[, 3]) losslessly; text chunks say that the image is synthetic and how it was made."""
    return save_png(
        pixels,
        path,
        {"Software": SOFTWARE, "Synthetic": "yes", "Disclaimer": DISCLAIMER, "Counterscan": as_json(note)},
    )


def save_png(pixels: np.ndarray, path: Path, texts: Mapping[str, str]) -> Path:
    """Write uint8 or uint16 (H, W[, 3]) losslessly with these text chunks and no claim of its own."""
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path.name}: PNG holds uint8 or uint16, not {pixels.dtype}")
    if pixels.shape[2:] not in ((), (3,)):  # of four channels a reader would take the last for transparency
        raise ImageError(f"{path.name}: PNG is written of 1 channel or 3, not of {pixels.shape[2]}; write .npy")
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        (info.add_text if text.isascii() and "\n" not in text else info.add_itxt)(key, text)
    with replacing(path) as draft:
        if pixels.dtype == np.uint16 and pixels.ndim == 3:
            write_deep(pixels, draft, info)
        else:
            Image.fromarray(np.ascontiguousarray(pixels)).save(draft, format="PNG", pnginfo=info, compress_level=4)
    return path
