"""A folder of DICOM files, at any depth and of any names. Patient, view, age and sex are the headers'.

Files that hold no image (reports, plans, DICOMDIR) are passed over. Multi-frame files are listed, so that ``data check``
names them. A manifest made of a hospital's files holds its patient numbers: keep it where the images may be kept, or
de-identify first.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

from counterscan.data.manifest import Record
from counterscan.data.readers.source import SEXES, Source
from counterscan.errors import DataError
from counterscan.imaging.files import is_dicom

TAGS = ["PatientID", "PatientAge", "PatientBirthDate", "PatientSex", "StudyDate", "ViewPosition", "Rows", "Columns"]
YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def open_source(source: Path, work: Path) -> Source:
    """There are no findings: give them in a table beside the files, and import it by the layout ``captions``."""
    if not any(files(source)):
        raise DataError(f"{source}: holds no DICOM file")
    return Source((), _records(source))


def files(source: Path) -> Iterator[Path]:
    """The DICOM files under a folder, by their first bytes or their ending, in order."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.name != "DICOMDIR" and not path.name.startswith(".") and is_dicom(path):
            yield path


def _records(source: Path) -> Iterator[Record]:
    import pydicom

    for path in files(source):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
        except Exception:  # whatever is wrong with it, the check will say with all others
            yield Record(str(path))
            continue
        if "Rows" in header:
            yield Record(
                str(path),
                patient=str(header.get("PatientID") or ""),
                view=str(header.get("ViewPosition") or ""),
                age=_age(header),
                sex=SEXES.get(str(header.get("PatientSex") or ""), ""),
            )


def _age(header: Any) -> float | None:
    """In years: ``"045Y"`` or ``"018M"``, else from the dates of birth and study."""
    said = str(header.get("PatientAge") or "").strip()
    if said[:-1].isdigit() and said[-1] in YEARS:
        return round(int(said[:-1]) * YEARS[said[-1]], 2)
    born, seen = _date(header.get("PatientBirthDate")), _date(header.get("StudyDate"))
    return float((seen - born).days // 365.25) if born and seen else None


def _date(text: Any) -> date | None:
    try:
        return datetime.strptime(str(text or "")[:8], "%Y%m%d").date()
    except ValueError:
        return None
