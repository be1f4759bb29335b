"""COVID-19 Radiography Database: ``COVID/images/COVID-1.png``, ``COVID/masks/COVID-1.png`` … (Chowdhury et al., 2020).

Masks are of the lungs, 256 x 256 for images of 299 x 299. Patients and splits are not published.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from counterscan.data.manifest import Record
from counterscan.data.readers.source import Source, existing, images
from counterscan.errors import DataError

FINDINGS = ("covid-19", "lung opacity", "viral pneumonia")
# What a class says of each finding: COVID-19 is a viral pneumonia and may be opaque, so no class denies those of another.
CLASSES: dict[str, tuple[int | None, ...]] = {
    "COVID": (1, None, None),
    "Lung_Opacity": (0, 1, None),
    "Normal": (0, 0, 0),
    "Viral Pneumonia": (0, None, 1),
}


def open_source(source: Path, work: Path) -> Source:
    """The folder of the classes, or the one above it as it is unpacked."""
    inner = source / "COVID-19_Radiography_Dataset"
    top = inner if inner.is_dir() else source
    if missing := [name for name in CLASSES if not (top / name).is_dir()]:
        raise DataError(f"{top}: has no folder {', '.join(missing)}; they are part of this layout")
    return Source(FINDINGS, _records(top))


def _records(top: Path) -> Iterator[Record]:
    for name, says in CLASSES.items():
        inner = top / name / "images"  # the first release had the images right in the class folder
        for path in images(inner if inner.is_dir() else top / name):
            yield Record(
                str(path),
                mask=existing(top / name / "masks" / path.name),
                findings=dict(zip(FINDINGS, says, strict=True)),
            )
