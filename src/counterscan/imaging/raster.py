"""PNG and JPEG in, PNG out: 8 and 16 bits, grey and colour, without a change of value."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from counterscan.errors import ImageError
from counterscan.imaging.picture import Picture, check, check_size

DISCLAIMER = "Synthetic image made by software. Not for diagnosis."


def read_raster(path: Path) -> Picture:
    """A PNG or JPEG file as a picture. Alpha is dropped; a colour image with equal channels is read as grey."""
    if path.stat().st_size == 0:
        raise ImageError(f"{path.name}: the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                check_size(path.name, *image.size)
                image.load()
                pixels, form = _pixels(image), str(image.format).lower()
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{path.name}: is not a PNG or JPEG image, whatever its name says") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{path.name}: the header claims too many pixels; crop or shrink it") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(f"{path.name}: cannot be decoded ({error}); the file may be truncated") from None
    bits = pixels.dtype.itemsize * 8
    return check(Picture(pixels, path, form, bits, 0.0, float(2**bits - 1)))


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("L", "1"):
        return np.asarray(image.convert("L"))
    if image.mode == "LA":
        return np.asarray(image)[..., 0].copy()
    colour = np.asarray(image.convert("RGBA" if "A" in image.mode else "RGB"))[..., :3]
    grey = (colour[..., 0] == colour[..., 1]).all() and (colour[..., 0] == colour[..., 2]).all()
    return (colour[..., 0] if grey else colour).copy()


def write_png(pixels: np.ndarray, path: Path, note: Mapping[str, Any]) -> Path:
    """Write uint8 or uint16 pixels losslessly, with text chunks that say the image is synthetic and how it was made."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "Counterscan")
    info.add_text("Synthetic", "yes")
    info.add_text("Disclaimer", DISCLAIMER)
    info.add_itxt("Counterscan", json.dumps(dict(note), sort_keys=True, default=str))
    if pixels.dtype == np.uint16 and pixels.ndim == 3:
        raise ImageError(f"{path.name}: PNG cannot hold 16-bit colour here; write 8-bit colour or 16-bit grey")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path.name}: PNG holds uint8 or uint16, not {pixels.dtype}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG", pnginfo=info, compress_level=4)
    os.replace(temporary, path)
    return path
