"""A folder of images with words: one CSV, TSV or JSON-lines table, or a ``.txt`` file beside each image.

The table is ``metadata.csv`` (also ``.jsonl``; as of Hugging Face's image folders, then also one in each of ``train``,
``validation`` and ``test``), ``captions.csv``, ``prompts.csv``, or the only one there is. Its columns are found by their
usual names; every other column that holds nothing but labels (1, 0, -1, empty) is a finding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from counterscan.data.manifest import LABELS, Record
from counterscan.data.readers.source import SEXES, SPLITS, USUAL, Source, images, number, picked, readable, table, words
from counterscan.data.sections import conclusion
from counterscan.errors import DataError

STEMS = ("metadata", "captions", "prompts")
ENDINGS = (".csv", ".tsv", ".jsonl")


def open_source(source: Path, work: Path) -> Source:
    """A column ``report`` is shortened to its impression. Images may be of any kind that is read, DICOM too."""
    tables = [found for name in ("", *SPLITS) if (found := _table(source / name)) is not None]
    if not tables:
        if not any(path.with_suffix(".txt").is_file() for path in images(source)):
            raise DataError(
                f"{source}: has no table such as metadata.csv or captions.jsonl, and no .txt beside an image"
            )
        return Source((), _beside(source))
    labels: dict[str, bool] = {}
    for path in tables:
        for row in _rows(path):
            for name, text in row.items():
                labels[name] = labels.get(name, True) and text in LABELS
    known = {name for names in USUAL.values() for name in names}
    columns = {name: _name(name) for name, holds in labels.items() if holds and name.lower() not in known}
    return Source(tuple(dict.fromkeys(columns.values())), _records(tables, columns))


def _table(folder: Path) -> Path | None:
    for path in (folder / f"{stem}{ending}" for stem in STEMS for ending in ENDINGS):
        if path.is_file():
            return path
    found = [path for path in folder.glob("*") if path.suffix in ENDINGS and not path.name.startswith(".")]
    return found[0] if len(found) == 1 else None


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if path.suffix != ".jsonl":
        yield from table(path, delimiter="\t" if path.suffix == ".tsv" else ",")
        return
    with readable(path), path.open(encoding="utf-8-sig") as file:
        for count, line in enumerate(file, 1):
            row = json.loads(line) if line.strip() else {}
            if not isinstance(row, dict):
                raise DataError(f"{path}: row {count} is no JSON object")
            if row:
                yield {str(k): "" if v is None else str(v).strip() for k, v in row.items()}


def _records(tables: list[Path], columns: dict[str, str]) -> Iterator[Record]:
    nameless = []
    for path in tables:
        for line, row in enumerate(_rows(path), 1):
            lower = {name.lower(): text for name, text in row.items()}
            file = picked(lower, "path")
            if not file:
                nameless.append(f"{path.name} row {line}")
                continue
            mask = picked(lower, "mask")
            report = lower.get("report", "")
            yield Record(
                str(_found(path.parent, file)),
                patient=picked(lower, "patient"),
                caption=picked(lower, "caption") or conclusion(report) or " ".join(report.split()),
                split=SPLITS.get(picked(lower, "split").lower() or path.parent.name.lower(), picked(lower, "split")),
                view=picked(lower, "view"),
                age=number(picked(lower, "age").rstrip("Yy")),
                sex=SEXES.get(picked(lower, "sex").capitalize(), ""),
                mask=str(_found(path.parent, mask)) if mask else "",
                findings={name: LABELS.get(row.get(column, "")) for column, name in columns.items()},
            )
    if nameless:
        more = f" and {len(nameless) - 20} more" if len(nameless) > 20 else ""
        raise DataError(f"{tables[0].parent}: no image is named in {', '.join(nameless[:20])}{more}")


def _found(folder: Path, file: str) -> Path:
    inner = folder / "images" / file
    return inner if inner.is_file() and not (folder / file).is_file() else folder / file


def _beside(source: Path) -> Iterator[Record]:
    for path in images(source):
        beside = path.with_suffix(".txt")
        caption = " ".join(words(beside).split()) if beside.is_file() else ""
        inside = path.relative_to(source).parts[0].lower()
        yield Record(str(path), caption=caption, split=SPLITS.get(inside, ""))


def _name(column: str) -> str:
    return " ".join(column.replace("_", " ").lower().split())
