"""What every reader returns, and the reading of tables that they share."""

from __future__ import annotations

import csv
import gzip
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterscan.data.manifest import Record
from counterscan.errors import DataError

IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
SEXES = {"M": "male", "F": "female", "Male": "male", "Female": "female", "male": "male", "female": "female"}
SPLITS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}
USUAL = {
    "path": ("file_name", "file", "path", "image", "image_path", "filename", "img"),
    "caption": ("text", "caption", "prompt", "impression", "description"),
    "report": ("report",),
    "patient": ("patient", "patient_id", "patientid", "subject_id", "subject", "participant_id"),
    "split": ("split", "subset"),
    "view": ("view", "view_position", "viewposition", "projection", "plane"),
    "age": ("age", "patient_age", "age_years"),
    "sex": ("sex", "gender", "patient_sex", "patient_gender"),
    "mask": ("mask", "mask_path", "segmentation", "annotation"),
}
"""What people call the columns of their tables, in lower case."""


@dataclass(frozen=True)
class Source:
    """The columns of findings and of other contrasts, and a stream of records with absolute paths."""

    findings: tuple[str, ...]
    records: Iterable[Record]
    contrasts: tuple[str, ...] = ()


def table(path: Path, columns: Sequence[str] = (), delimiter: str = ",") -> Iterator[dict[str, str]]:
    """Stream the rows of a CSV file, or of its ``.gz`` where that is all there is.

    ``DataError`` names the file and every column of ``columns`` that it lacks.
    """
    packed = path.with_name(path.name + ".gz")
    if not path.is_file() and not packed.is_file():
        raise DataError(f"{path}: no such file; it is part of this layout")
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    opener: Any = open if path.is_file() else gzip.open
    with (
        readable(path if path.is_file() else packed) as file_path,
        opener(file_path, "rt", newline="", encoding="utf-8-sig") as file,
    ):
        reader = csv.DictReader(file, delimiter=delimiter)
        if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
            raise DataError(f"{path}: has no column {', '.join(missing)}")
        for row in reader:
            yield {name: (value or "").strip() for name, value in row.items() if name is not None}


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """Whatever goes wrong in reading the file becomes a ``DataError`` that names it."""
    try:
        yield path
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not UTF-8 text (byte {error.start}); save it as such, or download it again"
        ) from None
    except (OSError, EOFError, zlib.error, csv.Error, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise DataError(f"{path}: is not as this layout has it ({type(error).__name__}: {reason})") from None


def words(path: Path) -> str:
    """The text of a file."""
    with readable(path):
        return path.read_text(encoding="utf-8-sig")


def optional(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """The rows of a CSV file or of its ``.gz``; none where there is neither."""
    if path.is_file() or path.with_name(path.name + ".gz").is_file():
        yield from table(path, columns)


def picked(row: dict[str, str], field: str) -> str:
    """The first of a field's usual columns that says something; ``row`` has lower-case keys."""
    return next((row[name] for name in USUAL[field] if row.get(name)), "")


def label(text: str) -> int | None:
    """``"1.0"`` to 1, ``"-1.0"`` to -1, nothing to unknown."""
    return {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1}.get(text.strip())


def number(text: str) -> float | None:
    """A number, or None."""
    try:
        return float(text)
    except ValueError:
        return None


def images(folder: Path) -> list[Path]:
    """The image files under a folder, in order. ``DataError`` where it is absent."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; it is part of this layout")
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGES and not p.name.startswith("."))


def existing(path: Path) -> str:
    """The path where there is such a file, else nothing."""
    return str(path) if path.is_file() else ""


def one_of(folder: Path, *names: str) -> Path:
    """The first of the files or folders that is there. ``DataError`` naming them all where none is."""
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise DataError(f"{folder}: has no {' nor '.join(names)}; name the data set's top folder")
