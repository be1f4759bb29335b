"""A Hugging Face data set on disk: saved by ``save_to_disk`` (Arrow), or a downloaded repository (Parquet).

Read by pyarrow alone. The images are taken out of the tables, unchanged where they are PNG or JPEG. Class labels become
finding columns, one a class; text, patient, view, age, sex and mask are found by their usual names.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from counterscan.data.manifest import Record
from counterscan.data.readers.source import SEXES, SPLITS, USUAL, Source, number, picked, readable, words
from counterscan.data.sections import conclusion
from counterscan.errors import DataError

NONE = frozenset({"normal", "no finding", "no findings", "healthy", "negative", "none"})
SHARD = re.compile(r"^(.+?)-\d{5}-of-\d{5}")
ROWS = 64  # held at once: each has an image


def open_source(source: Path, work: Path) -> Source:
    """``work`` receives the images, named by their content: those that are there are not written again."""
    tables = _tables(source)
    if not tables:
        raise DataError(f"{source}: has neither dataset_dict.json, state.json nor a .parquet file")
    features = _features(tables[0][1])
    columns = [name for name, kind in features.items() if kind.get("_type") == "Image"]
    pictures = [name for name in columns if name.lower() not in USUAL["mask"]]
    if not pictures:
        raise DataError(f"{tables[0][1]}: has no column of images; its columns are {', '.join(features) or 'unknown'}")
    classes = {name: names for name, kind in features.items() if (names := _classes(kind))}
    findings = {_name(label) for names in classes.values() for label in names} - NONE
    flags = [name for name, kind in features.items() if kind.get("dtype") == "bool"]
    found = (*sorted(findings), *(_name(flag) for flag in flags if _name(flag) not in findings))
    masks = [name for name in columns if name not in pictures]
    return Source(found, _records(tables, pictures[0], masks[:1], classes, flags, found, work))


def _tables(source: Path) -> list[tuple[str, Path]]:
    """(split, file) of every table, in order."""
    named = source / "dataset_dict.json"
    if named.is_file():
        with readable(named):
            splits = [_plain(name, named) for name in json.loads(words(named))["splits"]]
        return [(name, path) for name in splits for path in _saved(source / name)]
    if (source / "state.json").is_file():
        return [("", path) for path in _saved(source)]
    found = sorted(path for path in source.rglob("*.parquet") if not path.name.startswith("."))
    return [(match[1] if (match := SHARD.match(path.name)) else path.stem, path) for path in found]


def _saved(folder: Path) -> list[Path]:
    state = folder / "state.json"
    with readable(state):
        return [folder / _plain(file["filename"], state) for file in json.loads(words(state))["_data_files"]]


def _plain(name: str, where: Path) -> str:
    """A name that leads out of its folder is nobody's data set."""
    if not name or not name.isprintable() or Path(name).name != name:
        raise DataError(f"{where}: names {name!r}, which is no name of a file or split")
    return name


def _features(path: Path) -> dict[str, dict[str, Any]]:
    """What the columns are, from the schema's note, else from ``dataset_info.json``."""
    import pyarrow.ipc
    import pyarrow.parquet as pq

    with readable(path):
        if path.suffix == ".parquet":
            schema = pq.read_schema(path)
        else:
            with pyarrow.memory_map(str(path)) as file:
                schema = pyarrow.ipc.open_stream(file).schema
        note = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features: dict[str, dict[str, Any]] = note.get("info", {}).get("features", {})
        beside = path.parent / "dataset_info.json"
        if not features and beside.is_file():
            features = json.loads(words(beside))["features"]
    guessed = {name: {"_type": "Image"} for name in schema.names if _is_image(schema.field(name).type)}
    return guessed | {name: kind for name, kind in features.items() if isinstance(kind, dict)}


def _is_image(kind: Any) -> bool:
    return str(kind).startswith("struct<") and {"bytes", "path"} == {part.name for part in kind}


def _classes(kind: dict[str, Any]) -> list[str]:
    """The names of a class label, or of a list of them."""
    inner = kind.get("feature", kind)
    return list(inner["names"]) if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" else []


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.ipc
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        with readable(path), pq.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=ROWS):
                yield from batch.to_pylist()
        return
    with readable(path), pyarrow.memory_map(str(path)) as file:
        for batch in pyarrow.ipc.open_stream(file):
            for start in range(0, batch.num_rows, ROWS):
                yield from batch.slice(start, ROWS).to_pylist()


def _records(
    tables: list[tuple[str, Path]], picture: str, masks: list[str], classes: dict[str, list[str]], flags: list[str],
    findings: tuple[str, ...], work: Path,
) -> Iterator[Record]:  # fmt: skip
    counts: dict[str, int] = {}
    for split, path in tables:
        for row in _rows(path):
            place = counts[split] = counts.get(split, -1) + 1
            lower = {name.lower(): str(v) for name, v in row.items() if isinstance(v, (str, int, float)) and v == v}
            report = lower.get("report", "")
            stem = work / (split or "all") / f"{place:07d}"
            said = {_name(flag): int(row[flag]) for flag in flags if row[flag] is not None}
            yield Record(
                _written(row[picture], stem, path),
                patient=picked(lower, "patient"),
                caption=" ".join((picked(lower, "caption") or conclusion(report) or report).split()),
                split=SPLITS.get(split.lower(), "" if split in ("", "all") else split),
                view=picked(lower, "view"),
                age=number(picked(lower, "age")),
                sex=SEXES.get(picked(lower, "sex").capitalize(), ""),
                mask=_written(row[masks[0]], stem.with_name(f"{stem.name}_mask"), path) if masks else "",
                findings=dict.fromkeys(findings) | _labels(row, classes) | said,
            )


def _labels(row: dict[str, Any], classes: dict[str, list[str]]) -> dict[str, int | None]:
    """1 for the classes of a row, 0 for the others of the same column; -1 (as in unlabelled test sets) tells nothing."""
    out: dict[str, int | None] = {}
    for column, names in classes.items():
        value = row[column]
        if value is None or value == -1:
            continue
        here = {names[k] for k in (value if isinstance(value, list) else [value])}
        out |= {_name(label): int(label in here) for label in names if _name(label) not in NONE}
    return out


def _written(image: dict[str, Any] | None, stem: Path, table: Path) -> str:
    """The file of an image cell: written from its bytes, or where it is by its path."""
    if image is None:
        return ""
    data, path = image.get("bytes"), image.get("path") or ""
    if data is None:
        return str(table.parent / path)
    ending = ".png" if data[:4] == b"\x89PNG" else ".jpg" if data[:2] == b"\xff\xd8" else ""
    digest = hashlib.sha256(data).hexdigest()[:12]
    file = stem.with_name(f"{stem.name}_{digest}{ending or '.png'}")
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{os.getpid()}.{file.name}")
        draft.write_bytes(data if ending else _as_png(data, table, stem.name))
        os.replace(draft, file)
    return str(file)


def _as_png(data: bytes, table: Path, row: str) -> bytes:
    import io

    from PIL import Image

    out = io.BytesIO()
    try:
        Image.open(io.BytesIO(data)).save(out, "PNG")
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{table}: row {row}, image: is of no known kind ({type(error).__name__})") from None
    return out.getvalue()


def _name(label: str) -> str:
    return " ".join(label.replace("_", " ").lower().split())
