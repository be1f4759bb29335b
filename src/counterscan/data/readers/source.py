"""What every reader returns, and the reading of tables that they share."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from counterscan.data.manifest import Record
from counterscan.errors import DataError

IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
SEXES = {"M": "male", "F": "female", "Male": "male", "Female": "female", "male": "male", "female": "female"}


@dataclass(frozen=True)
class Source:
    """The finding columns and a stream of records with absolute paths."""

    findings: tuple[str, ...]
    records: Iterable[Record]


def table(path: Path, columns: Sequence[str] = (), delimiter: str = ",") -> Iterator[dict[str, str]]:
    """Stream the rows of a CSV file. ``DataError`` names the file and every column of ``columns`` that it lacks."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; it is part of this layout")
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
            raise DataError(f"{path}: has no column {', '.join(missing)}")
        for row in reader:
            yield {name: (value or "").strip() for name, value in row.items() if name is not None}


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
