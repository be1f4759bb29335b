"""Images in and out of files, at their own size and depth. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from counterscan.errors import ImageError
from counterscan.imaging.composite import composite
from counterscan.imaging.files import is_dicom
from counterscan.imaging.picture import Picture, from_array
from counterscan.imaging.resize import Placement, fit

__all__ = ["Picture", "Placement", "composite", "fit", "from_array", "read", "write"]


def read(path: str | Path, *, slice_index: int | None = None) -> Picture:
    """Read a PNG, JPEG, DICOM, NIfTI or ``.npy`` file; of a NIfTI volume the slice ``slice_index`` along its last axis.

    Raises:
        ImageError: the file is absent, damaged, too small or large, without contrast, or of another kind.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ImageError(f"{path.name}: is a folder; name the image in it")
        if not path.is_file():
            raise ImageError(f"{path.name}: no such file")
        with path.open("rb") as file:
            start = file.read(132)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        raise ImageError(f"{path.name[:80]!r}: cannot be opened ({reason})") from None
    if not start:
        raise ImageError(f"{path.name}: the file is empty")
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        from counterscan.imaging.nifti import read_nifti

        return read_nifti(path, slice_index)
    if slice_index is not None:
        raise ImageError(f"{path.name}: has no slices to choose from; leave the slice index out")
    if name.endswith(".npy"):
        from counterscan.imaging.stack import read_npy

        return read_npy(path)
    if is_dicom(path, start):
        from counterscan.imaging.dicom import read_dicom

        return read_dicom(path)
    from counterscan.imaging.raster import read_raster

    return read_raster(path)


def write(picture: Picture, path: str | Path, *, note: Mapping[str, Any] | None) -> Path:
    """Write a picture that we made, marked synthetic: ``.png``, or ``.dcm`` and ``.nii[.gz]`` for what came from there.

    A PNG holds the stored pixels where they are what is shown (``Picture.plain``), else the picture as shown, in 16 bits.
    Several contrasts go into a ``.npy``, which has no room for a mark: what stands beside it has to say so. With ``note``
    ``None`` the stored pixels are written in any case, and without a mark unless the picture is ``synthetic``.

    Raises:
        ImageError: the ending is another, does not fit the picture, or the file cannot be written.
    """
    path = Path(path)
    name = path.name.lower()
    as_stored = picture.plain or note is None
    note = {} if note is None and picture.synthetic else note
    if name.endswith((".dcm", ".dicom")):
        from counterscan.imaging.dicom import write_dicom

        return write_dicom(picture, path, note)
    if name.endswith((".nii", ".nii.gz")):
        from counterscan.imaging.nifti import write_nifti

        return write_nifti(picture, path, note)
    if name.endswith(".npy"):
        from counterscan.imaging.stack import write_npy

        return write_npy(picture.pixels, path)
    if not name.endswith(".png"):
        ending = path.suffix or "without ending"
        raise ImageError(f"{path.name}: results are written as .png, .dcm, .nii.gz or .npy (lossless), not {ending}")
    from counterscan.imaging.raster import save_png, write_png

    pixels = picture.pixels if as_stored else np.round(picture.unit() * 65535).astype(np.uint16)
    pixels = np.repeat(pixels[..., None], 3, axis=2) if picture.in_colour else pixels
    return save_png(pixels, path, {}) if note is None else write_png(pixels, path, note)
