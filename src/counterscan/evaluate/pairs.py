"""Images with their counterfactuals: what ``edit`` and ``batch`` wrote, or a manifest of pairs made by anything else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import DataError, ImageError, WordsError
from counterscan.evaluate.sources import Item, items
from counterscan.imaging.masks import mask_of

DIRECTIONS = ("remove", "add", "null")
COLUMNS = ("path", "counterfactual", "finding", "direction")


@dataclass(frozen=True)
class Pair:
    """One edited image. ``files`` are the record of a saved counterfactual, or factual and counterfactual.

    ``stem`` is what results of other methods on the same image share; ``changes`` are (finding, direction), none for a null
    edit or one by free prompts.
    """

    stem: str
    patient: str
    files: tuple[Path, ...]
    changes: tuple[tuple[str, str], ...] = ()
    null: bool = False
    mask: Path | None = None


@dataclass(frozen=True)
class Opened:
    """A pair in memory: unit images (H, W[, 3]), the region bool (H, W) or None, and what it cost where that is known."""

    factual: Any
    counterfactual: Any
    region: NDArray[np.bool_] | None
    changes: tuple[tuple[str, str], ...]
    null: bool
    evaluations: float
    seconds: float


def pairs(source: Path, known: Mapping[str, Item]) -> Iterator[Pair]:
    """All pairs of a folder of saved counterfactuals, or of a manifest with the columns path, counterfactual, finding, direction.

    ``known`` (see :func:`by_stem`) tells patients and regions of the folder's images.

    Raises:
        DataError: the folder holds none; or, at the end, every bad row of the manifest.
    """
    return _folder(source, known) if source.is_dir() else _manifest(source)


def named(text: str) -> tuple[str, Path]:
    """``NAME=PATH`` or ``PATH``, whose name is that of its file or folder."""
    name, sign, path = text.partition("=")
    if sign and not Path(text).exists():
        return name, Path(path)
    return Path(text).absolute().name, Path(text)


def by_stem(manifest: Path | None) -> dict[str, Item]:
    """The rows of a manifest by the stems that ``edit`` and ``batch`` give their results."""
    from counterscan.imaging.picture import stem
    from counterscan.scale.job import Item as Batched

    out: dict[str, Item] = {}
    for item in items(manifest) if manifest else ():
        out[stem(item.path)] = out[Batched(item.name, item.path).stem] = item
    return out


def open_pair(pair: Pair) -> Opened:
    """Read a pair. ``ImageError`` or ``DataError`` where it cannot be used."""
    from counterscan.imaging import read
    from counterscan.result import Counterfactual

    if len(pair.files) == 1:
        saved = Counterfactual.load(pair.files[0])
        told = saved.edit
        changes = tuple((change.finding, str(change.direction)) for change in told.changes)
        region = None if told.mask is None else told.mask.numpy().astype(bool)
        factual, counterfactual = saved.factual, saved.counterfactual
        facts = changes, told.is_null, float(saved.evaluations), saved.seconds or float("nan")
    else:
        factual, counterfactual = (read(path) for path in pair.files)
        region, facts = None, (pair.changes, pair.null, float("nan"), float("nan"))
    if factual.unit().shape != counterfactual.unit().shape:
        raise ImageError(f"{pair.stem}: factual and counterfactual have different sizes; an edit keeps the size")
    if pair.mask is not None:
        region = mask_of(pair.mask, factual.unit().shape[:2])
    return Opened(factual, counterfactual, region, *facts)


def identity(source: Path, known: Mapping[str, Item]) -> tuple[int, str]:
    """How many pairs there are, and 16 hex digits that change with them."""
    count, digest = 0, hashlib.sha256()
    for pair in pairs(source, known):
        count += 1
        digest.update(repr((pair, [p.stat().st_mtime_ns for p in pair.files if p.is_file()])).encode())
    if not count:
        raise DataError(f"{source}: holds no counterfactuals; counterscan edit and counterscan batch write them")
    return count, digest.hexdigest()[:16]


def _folder(folder: Path, known: Mapping[str, Item]) -> Iterator[Pair]:
    for path in sorted(folder.rglob("*.json")):
        if path.name.startswith(".") or not _is_record(path):
            continue
        item = known.get(path.stem)
        patient, mask = (item.patient, item.mask) if item else (path.stem, None)
        yield Pair(path.stem, patient, (path,), mask=mask)


def _is_record(path: Path) -> bool:
    try:
        return {"files", "edit", "window"} <= json.loads(path.read_text(encoding="utf-8")).keys()
    except (OSError, ValueError, AttributeError):
        return False


def _manifest(manifest: Path) -> Iterator[Pair]:
    from counterscan.data.manifest import raw_rows, resolve

    wrong = []
    for number, row in enumerate(raw_rows(manifest), 1):
        lacking = [
            name for name in COLUMNS if not row.get(name) and (name, row.get("direction")) != ("finding", "null")
        ]
        direction = row.get("direction", "")
        if lacking or direction not in DIRECTIONS:
            wrong.append(f"row {number}, {', '.join(lacking) or 'direction'}")
            continue
        null = direction == "null"
        changes = () if null else ((row["finding"], direction),)
        files = resolve(manifest, row["path"]), resolve(manifest, row["counterfactual"])
        mask = resolve(manifest, row["mask"]) if row.get("mask") else None
        yield Pair(row["path"], row.get("patient") or row["path"], files, changes, null, mask)
    if wrong:
        need = f"columns {', '.join(COLUMNS)} ({', '.join(DIRECTIONS)})"
        raise DataError(f"{manifest}: a manifest of pairs has {need}; wrong are {'; '.join(wrong[:20])}")


def distinct(sources: list[tuple[str, Path]]) -> None:
    """Refuse two sources of one name: their rows could not be told apart."""
    names = [name for name, _ in sources]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise WordsError(f"two sources are called {twice.pop()!r}; name them, as in A=folder B=other")
