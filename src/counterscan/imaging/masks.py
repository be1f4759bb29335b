"""Masks of data sets, as arrays that lie on their image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import ImageError

ASPECT = 0.03  # by which width over height of a mask may differ from its image's, as after rounding


def mask_of(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask file as bool (H, W), True where it is not dark, of an image of that shape.

    A mask of another size is scaled to the image's, nearest pixel, since data sets have such (COVID-19 Radiography: 256 pixels
    for images of 299). ``ImageError`` where its sides have another ratio: it then cannot be of this image.
    """
    from counterscan.imaging import read

    drawn = read(path).unit()
    mask = np.asarray((drawn if drawn.ndim == 2 else drawn.max(2)) > 0.5)
    (height, width), (rows, columns) = mask.shape, shape
    if abs(np.log((width / height) / (columns / rows))) > ASPECT:
        raise ImageError(f"{path.name}: the mask is {width}x{height}, its image {columns}x{rows}: not of one shape")
    return mask[np.ix_(_nearest(rows, height), _nearest(columns, width))]


def _nearest(new: int, old: int) -> NDArray[np.intp]:
    """For each of ``new`` pixels of a line the one of ``old`` that its middle lies in."""
    return ((np.arange(new) + 0.5) * old / new).astype(np.intp)
