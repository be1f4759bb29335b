"""Several contrasts of one slice in NumPy's own format: (H, W, C), without a change of value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import ImageError
from counterscan.imaging.files import replacing
from counterscan.imaging.picture import LARGEST, Picture, from_array


def read_npy(path: Path) -> Picture:
    """A ``.npy`` file of what :func:`from_array` takes. Files that hold pickled objects are refused.

    Raises:
        ImageError: the file is damaged, or holds another shape, type or range.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ImageError(f"{path.name}: is not a readable array ({type(error).__name__})") from None
    if not isinstance(array, np.ndarray) or array.size > 3 * LARGEST:
        raise ImageError(f"{path.name}: one array of one slice is needed")
    try:
        picture = from_array(np.array(array))
    except ImageError as error:
        raise ImageError(str(error).replace("array", path.name, 1)) from None
    return replace(picture, path=path, format="npy")


def write_npy(pixels: NDArray[Any], path: Path) -> Path:
    """Write the stored pixels; the file is whole or absent."""
    with replacing(path) as draft, draft.open("wb") as file:
        np.save(file, pixels, allow_pickle=False)
    return path
