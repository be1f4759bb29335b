"""The manifest: one table of images that training, evaluation and batch read. CSV, TSV, Parquet or JSON lines, streamed."""

from __future__ import annotations

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from counterscan.errors import DataError

CONTRAST = "path_"  # how the columns of other contrasts begin
FIXED = ("path", "patient", "caption", "split", "view", "age", "sex", "mask")
LABELS = {"1": 1, "1.0": 1, "True": 1, "0": 0, "0.0": 0, "False": 0, "-1": -1, "-1.0": -1, "": None}
BATCH = 4096  # rows held at once
PEEK = 1000  # rows that tell which columns are findings
SHOWN = 20
BEYOND = "(beyond the header)"
ENDINGS = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")


@dataclass(frozen=True)
class Record:
    """One image. ``path`` and ``mask`` are as written: relative to the manifest's folder, or absolute.

    ``findings`` maps a name to 1 present, 0 absent, -1 uncertain or None unknown; ``age`` is in years. ``row`` counts from 1.
    ``contrasts`` are the files of the same image in other contrasts, columns ``path_T2`` and so on.
    """

    path: str
    patient: str = ""
    caption: str = ""
    split: str = ""
    view: str = ""
    age: float | None = None
    sex: str = ""
    mask: str = ""
    findings: dict[str, int | None] = field(default_factory=dict)
    contrasts: dict[str, str] = field(default_factory=dict)
    row: int = 0


class Problem(NamedTuple):
    """What is wrong with one field of one row (1-based, the header not counted)."""

    row: int
    field: str
    text: str


def raw_rows(manifest: Path) -> Iterator[dict[str, str]]:
    """Every row as text, in order, in memory that does not grow with the file. ``DataError`` if it is no table."""
    read = {".parquet": _parquet, ".jsonl": _lines, ".ndjson": _lines, ".csv": _text, ".tsv": _text}.get(
        manifest.suffix
    )
    if not manifest.exists():
        raise DataError(f"{manifest}: no such file or folder")
    if read is None:
        raise DataError(f"{manifest}: a manifest is a file of {', '.join(ENDINGS)}")
    try:
        yield from read(manifest)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{manifest}: not a readable manifest ({' '.join(str(error).split())[:200]})") from error


def finding_columns(manifest: Path) -> tuple[list[str], list[str]]:
    """The columns that are findings, and those that are neither: in half or more of their first values no labels."""
    said: dict[str, list[int]] = {}
    for row in islice(raw_rows(manifest), PEEK):
        for name, text in row.items():
            if name not in (*FIXED, BEYOND) and not name.startswith(CONTRAST):
                count = said.setdefault(name, [0, 0])
                count[text not in LABELS] += bool(text)
    findings = [name for name, (labels, words) in said.items() if not words or labels > words]
    return findings, [name for name in said if name not in findings]


def parse(row: dict[str, str], number: int, columns: Iterable[str]) -> tuple[Record, list[Problem]]:
    """The record of a row and every field of it that is wrong; a wrong field is left unknown in the record.

    ``columns`` are the findings'.
    """
    problems: list[Problem] = []
    findings: dict[str, int | None] = {}
    for name in columns:
        text = row.get(name, "")
        findings[name] = LABELS.get(text)
        if text not in LABELS:
            problems.append(Problem(number, name, f"{text!r} is no label; write 1, 0, -1 or nothing"))
    if row.get(BEYOND):
        problems.append(Problem(number, "row", "has more fields than the header; quote the field with a comma"))
    if not row.get("path"):
        problems.append(Problem(number, "path", "is empty; name an image"))
    age = _age(row.get("age", ""))
    if age is None and row.get("age"):
        problems.append(Problem(number, "age", f"{row['age']!r} is no number of years"))
    words = {name: row.get(name, "") for name in FIXED if name != "age"}
    contrasts = {name.removeprefix(CONTRAST): text for name, text in row.items() if name.startswith(CONTRAST) and text}
    return Record(**words, age=age, findings=findings, contrasts=contrasts, row=number), problems


def read(manifest: str | Path) -> Iterator[Record]:
    """Stream the records of a manifest.

    Raises:
        DataError: at the end of the file, naming the file with every bad row and field (the first 20 in words).
    """
    manifest, problems = Path(manifest), []
    columns = finding_columns(manifest)[0]
    for number, row in enumerate(raw_rows(manifest), 1):
        record, wrong = parse(row, number, columns)
        problems += wrong
        if not wrong:
            yield record
    if problems:
        shown = "; ".join(f"row {p.row}, {p.field}: {p.text}" for p in problems[:SHOWN])
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise DataError(f"{manifest}: {len(problems)} bad fields: {shown}{more}")


def validate(manifest: str | Path) -> list[Problem]:
    """Every bad field of the manifest, in order; empty where it is sound."""
    columns = finding_columns(Path(manifest))[0]
    return [p for number, row in enumerate(raw_rows(Path(manifest)), 1) for p in parse(row, number, columns)[1]]


def resolve(manifest: Path, path: str) -> Path:
    """The file that a manifest means by ``path``."""
    return manifest.parent / path


def write(
    manifest: str | Path, records: Iterable[Record], findings: Sequence[str] = (), contrasts: Sequence[str] = ()
) -> int:
    """Write records as a manifest, whole or not at all; paths under its folder become relative. Returns how many.

    ``findings`` and ``contrasts`` name the columns beside the fixed ones. ``DataError`` where there are no records.
    """
    manifest = Path(manifest)
    if manifest.suffix not in ENDINGS:
        raise DataError(f"{manifest}: name a manifest that ends in {', '.join(ENDINGS)}")
    manifest.parent.mkdir(parents=True, exist_ok=True)
    draft = manifest.with_name(f".{os.getpid()}.{manifest.name}")
    rows = (_row(record, manifest.parent.resolve(), findings, contrasts) for record in records)
    save = {".parquet": _save_parquet, ".jsonl": _save_lines, ".ndjson": _save_lines}.get(manifest.suffix, _save_text)
    try:
        count = save(draft, rows, [*FIXED, *(CONTRAST + name for name in contrasts), *findings])
        if not count:
            raise DataError(f"{manifest}: no image found to list; is this the layout's top folder?")
        os.replace(draft, manifest)
    finally:
        draft.unlink(missing_ok=True)
    return count


def rewrite(manifest: str | Path, output: str | Path, change: Callable[[Iterator[Record]], Iterable[Record]]) -> int:
    """Write a manifest anew after ``change``, streamed; its paths still mean the same files. Returns how many rows.

    Columns that are neither fixed, nor contrasts, nor findings are left out.
    """
    manifest = Path(manifest)
    findings = finding_columns(manifest)[0]
    first = next(raw_rows(manifest), None)
    if first is None:
        raise DataError(f"{manifest}: lists no image")
    contrasts = [name.removeprefix(CONTRAST) for name in first if name.startswith(CONTRAST)]
    return write(output, change(located(record, manifest) for record in read(manifest)), findings, contrasts)


def located(record: Record, manifest: Path) -> Record:
    """The record with paths that do not depend on where the manifest is."""
    folder = manifest.absolute().parent
    contrasts = {name: str(folder / path) for name, path in record.contrasts.items()}
    mask = str(folder / record.mask) if record.mask else ""
    return replace(record, path=str(folder / record.path), mask=mask, contrasts=contrasts)


def _age(text: str) -> float | None:
    try:
        age = float(text)
    except ValueError:
        return None
    return age if math.isfinite(age) else None


def _row(record: Record, folder: Path, findings: Sequence[str], contrasts: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(record, name) for name in FIXED}
    row |= {CONTRAST + name: record.contrasts.get(name, "") for name in contrasts}
    for name, value in row.items():
        if value and (name in ("path", "mask") or name.startswith(CONTRAST)):
            path = Path(os.path.abspath(value))
            row[name] = str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
    return row | {name: record.findings.get(name) for name in findings}


def columns(header: Iterable[str], manifest: Path) -> list[str]:
    """The names of a header without the spaces about them. ``DataError`` for one that is there twice, or no ``path``."""
    names = [name.strip() for name in header]
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise DataError(f"{manifest}: has the column {twice[0]!r} more than once; leave one")
    if "path" not in names:
        raise DataError(f"{manifest}: has no column 'path'; a manifest names its images in one")
    return names


def _clean(row: dict[str, Any]) -> dict[str, str]:
    return {name.strip(): "" if value is None or value != value else str(value).strip() for name, value in row.items()}


def _text(manifest: Path) -> Iterator[dict[str, str]]:
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter="\t" if manifest.suffix == ".tsv" else ",", restkey=BEYOND)
        reader.fieldnames = columns(reader.fieldnames or (), manifest)
        yield from map(_clean, reader)


def _lines(manifest: Path) -> Iterator[dict[str, str]]:
    with manifest.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(filter(str.strip, file), 1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:  # which calls every line the first
                raise DataError(f"{manifest}: row {number} is no JSON ({error.msg}, column {error.colno})") from None
            if not isinstance(row, dict):
                raise DataError(f"{manifest}: row {number} is no JSON object")
            yield _clean({"path": ""} | row)


def _parquet(manifest: Path) -> Iterator[dict[str, str]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(manifest) as table:
        columns(table.schema_arrow.names, manifest)
        for batch in table.iter_batches(batch_size=BATCH):
            yield from map(_clean, batch.to_pylist())


def _save_text(path: Path, rows: Iterator[dict[str, Any]], columns: list[str]) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        for count, row in enumerate(rows, 1):  # noqa: B007
            writer.writerow(row)
    return count


def _save_lines(path: Path, rows: Iterator[dict[str, Any]], columns: list[str]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for count, row in enumerate(rows, 1):  # noqa: B007
            file.write(json.dumps({name: row[name] for name in columns}) + "\n")
    return count


def _save_parquet(path: Path, rows: Iterator[dict[str, Any]], columns: list[str]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    words = {name for name in columns if name in FIXED or name.startswith(CONTRAST)}
    kinds = dict.fromkeys(words, pa.string()) | {"age": pa.float64()}
    schema = pa.schema([(name, kinds.get(name, pa.int8())) for name in columns])
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        while batch := list(islice(rows, BATCH)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
            count += len(batch)
    return count
