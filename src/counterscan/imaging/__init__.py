"""Images in and out of files, at their own size and depth. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from counterscan.errors import ImageError
from counterscan.imaging.composite import composite
from counterscan.imaging.picture import Picture, from_array
from counterscan.imaging.resize import Placement, fit

__all__ = ["Picture", "Placement", "composite", "fit", "from_array", "read", "write"]


def read(path: str | Path) -> Picture:
    """Read a PNG, JPEG or DICOM file.

    Raises:
        ImageError: the file is absent, damaged, too small or large, without contrast, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path.name}: no such file")
    from counterscan.imaging.dicom import is_dicom, read_dicom
    from counterscan.imaging.raster import read_raster

    return read_dicom(path) if is_dicom(path) else read_raster(path)


def write(picture: Picture, path: str | Path, *, note: Mapping[str, Any]) -> Path:
    """Write a picture that we made: PNG, or DICOM (``.dcm``) for pictures that came from DICOM. Marked synthetic."""
    from counterscan.imaging.dicom import write_dicom
    from counterscan.imaging.raster import write_png

    path = Path(path)
    if path.suffix.lower() in (".dcm", ".dicom"):
        return write_dicom(picture, path, note)
    if path.suffix.lower() != ".png":
        raise ImageError(
            f"{path.name}: results are written as .png or .dcm (lossless), not {path.suffix or 'without ending'}"
        )
    return write_png(picture.pixels, path, note)
