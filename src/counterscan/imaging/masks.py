"""Masks of data sets, as arrays that lie on their image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

ASPECT = 0.03  # by which width over height of a mask may differ from its image's, as after rounding
LABELS = 15  # a file whose values end here numbers what there is; 0 is nothing


def mask_of(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask file as bool (H, W), of an image of that shape: True where a file of labels (0 and 1, 0 to 15) is not 0, and where
    any other is brighter than half of its range. It may be black or white all over.

    A mask of another size is scaled to the image's, nearest pixel, since data sets have such (COVID-19 Radiography: 256 pixels
    for images of 299). ``ImageError`` where its sides have another ratio: it then cannot be of this image.
    """
    drawn = _values(path)
    drawn = drawn if drawn.ndim == 2 else drawn.max(2)
    whole = np.issubdtype(drawn.dtype, np.integer)
    half = np.iinfo(drawn.dtype).max / 2 if whole else 0.5
    mask = np.asarray(drawn > (0 if whole and drawn.max() <= LABELS else half))
    (height, width), (rows, columns) = mask.shape, shape
    if abs(np.log((width / height) / (columns / rows))) > ASPECT:
        raise ImageError(f"{path.name}: the mask is {width}x{height}, its image {columns}x{rows}: not of one shape")
    return mask[np.ix_(_nearest(rows, height), _nearest(columns, width))]


def _values(path: Path) -> NDArray[Any]:
    """A mask's pixels as stored, uint8 or uint16, or as floats in [0, 1] where those cannot be labels; (H, W[, C])."""
    from PIL import Image

    from counterscan.imaging import read
    from counterscan.imaging.files import is_dicom
    from counterscan.imaging.picture import check_size
    from counterscan.imaging.raster import DAMAGE

    try:
        if path.name.lower().endswith((".nii", ".nii.gz", ".npy")) or is_dicom(path):
            picture = read(path)
            stored = picture.pixels
            numbers = stored.min() >= 0 and stored.max() <= LABELS and (stored == np.round(stored)).all()
            return stored.astype(np.uint8) if numbers else stored if picture.plain else picture.unit()
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            check_size(path.name, *image.size)
            upright = opaque(image)
            if upright.mode.startswith("I"):
                return np.asarray(upright).astype(np.uint16)
            pixels = np.asarray(upright.convert("RGB"))
            return pixels / np.float32(255) if image.format == "JPEG" else pixels
    except (Image.DecompressionBombError, *DAMAGE) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ImageError(f"{path.name}: the mask cannot be read ({reason})") from None


def opaque(image: Image.Image) -> Image.Image:
    """A picture of a mask upright, black where it is transparent."""
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode != "P" and "A" not in upright.mode:
        return upright
    return Image.alpha_composite(Image.new("RGBA", upright.size, "black"), upright.convert("RGBA")).convert("RGB")


def _nearest(new: int, old: int) -> NDArray[np.intp]:
    """For each of ``new`` pixels of a line the one of ``old`` that its middle lies in."""
    return ((np.arange(new) + 0.5) * old / new).astype(np.intp)
