"""What the files of one row are like: done in workers, so that decoding goes on ahead of the check."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from counterscan.data.looks import Look, copies, look
from counterscan.data.manifest import Record, resolve
from counterscan.errors import ImageError
from counterscan.imaging.masks import ASPECT

PLAIN = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Opened:
    """How the image looks, if it opens, and (kind, text) of whatever is wrong with the files."""

    look: Look | None
    faults: tuple[tuple[str, str], ...] = ()


def opened(manifest: Path, record: Record) -> Opened:
    """Open the image of a record, its mask and its other contrasts."""
    from counterscan import imaging

    faults = [
        ("missing contrast", f"{name}: no file {path}")
        for name, path in record.contrasts.items()
        if not resolve(manifest, path).is_file()
    ]
    try:
        image = imaging.read(resolve(manifest, record.path)).unit()
    except ImageError as error:
        image = None
        faults.append(("unreadable", str(error)))
    if record.mask:
        faults += _mask(resolve(manifest, record.mask), record.mask, None if image is None else image.shape[:2])
    return Opened(None if image is None else look(image), tuple(faults))


def _mask(path: Path, name: str, shape: tuple[int, ...] | None) -> list[tuple[str, str]]:
    """An empty mask is sound: it says that nothing is there. Of DICOM and NIfTI masks only the presence is looked at."""
    from PIL import Image

    if not path.is_file():
        return [("missing mask", f"no file {name}")]
    if path.suffix.lower() not in PLAIN:
        return []
    try:
        with Image.open(path) as mask:
            mask.load()
            width, height = mask.size
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        return [("bad mask", f"{name}: does not open ({type(error).__name__})")]
    if shape and abs(math.log((width / height) / (shape[1] / shape[0]))) > ASPECT:
        return [("bad mask", f"{name}: is {width}x{height}, its image {shape[1]}x{shape[0]}")]
    return []


def same(manifest: Path, first: str, second: str) -> bool:
    """Whether two images of a manifest are copies of each other."""
    from counterscan import imaging

    try:
        return copies(*(imaging.read(resolve(manifest, path)).unit() for path in (first, second)))
    except ImageError:  # gone since it was read
        return False
