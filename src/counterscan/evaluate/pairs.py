"""Images with their counterfactuals: what ``edit`` and ``batch`` wrote, or a manifest of pairs made by anything else."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import DataError, ImageError, WordsError
from counterscan.evaluate.sources import Item, hidden, items
from counterscan.evaluate.truths import canonical
from counterscan.imaging.masks import mask_of

if TYPE_CHECKING:
    from counterscan.imaging import Picture

DIRECTIONS = ("remove", "add", "null")
COLUMNS = ("path", "counterfactual", "finding", "direction")


@dataclass(frozen=True)
class Pair:
    """One edited image. ``files`` are the record of a saved counterfactual, or factual and counterfactual.

    ``stem`` names it in reports; ``changes`` are (finding, direction), none for a null edit or one by free prompts.
    """

    stem: str
    patient: str
    files: tuple[Path, ...]
    changes: tuple[tuple[str, str], ...] = ()
    null: bool = False
    mask: Path | None = None


@dataclass(frozen=True)
class Opened:
    """A pair in memory: unit images (H, W[, 3]), the region bool (H, W) or None, and what it cost where that is known.

    ``image`` are 16 hex digits of the factual's pixels, which edits of the same image share whatever its file is called.
    """

    image: str
    factual: Any
    counterfactual: Any
    region: NDArray[np.bool_] | None
    changes: tuple[tuple[str, str], ...]
    null: bool
    evaluations: float
    seconds: float


def pairs(source: Path, known: Mapping[str, Sequence[Item]]) -> Iterator[Pair]:
    """All pairs of a folder of saved counterfactuals, or of a manifest with the columns path, counterfactual, finding, direction.

    ``known`` (see :func:`by_stem`) tells patients and regions of the folder's images.

    Raises:
        DataError: two images of ``known`` may be that of a record; or, at the end, every bad row of the manifest.
    """
    return _folder(source, known) if source.is_dir() else _manifest(source)


def named(text: str) -> tuple[str, Path]:
    """``NAME=PATH`` or ``PATH``, whose name is that of its file or folder."""
    name, sign, path = text.partition("=")
    if sign and not Path(text).exists():
        return name, Path(path)
    return Path(text).absolute().name, Path(text)


def by_stem(manifest: Path | None) -> dict[str, list[Item]]:
    """The images of a manifest by the stems that ``edit`` (which several may share) and ``batch`` give their results."""
    from counterscan.imaging.picture import stem
    from counterscan.scale.job import Item as Batched

    out: dict[str, list[Item]] = {}
    for item in items(manifest) if manifest else ():
        out.setdefault(stem(item.path), []).append(item)
        out[Batched(item.name, item.path).stem] = [item]
    return out


def open_pair(pair: Pair) -> Opened:
    """Read a pair. ``ImageError`` or ``DataError`` where it cannot be used."""
    from counterscan.imaging import read
    from counterscan.result import Counterfactual

    if len(pair.files) == 1:
        saved = Counterfactual.load(pair.files[0])
        told = saved.edit
        changes = tuple((canonical(change.finding), str(change.direction)) for change in told.changes)
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
    return Opened(_digest(factual), factual, counterfactual, region, *facts)


def identity(source: Path, known: Mapping[str, Sequence[Item]]) -> tuple[int, str]:
    """How many pairs there are, and 16 hex digits that change with them and the sizes and dates of their files."""
    count, digest = 0, hashlib.sha256()
    for pair in pairs(source, known):
        count += 1
        files = filter(Path.is_file, (*pair.files, *([pair.mask] if pair.mask else [])))
        digest.update(repr((pair, [(p.stat().st_size, p.stat().st_mtime_ns) for p in files])).encode())
    if not count:
        raise DataError(f"{source}: holds no counterfactuals; counterscan edit and counterscan batch write them")
    return count, digest.hexdigest()[:16]


def _folder(folder: Path, known: Mapping[str, Sequence[Item]]) -> Iterator[Pair]:
    for path in sorted(folder.rglob("*.json")):
        if hidden(path, folder) or not (record := _record(path)):
            continue
        item = _item(path, record, known)
        patient, mask = (item.patient, item.mask) if item else (path.stem, None)
        yield Pair(path.stem, patient, (path,), mask=mask)


def _record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record if {"files", "edit", "window"} <= record.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _item(path: Path, record: Mapping[str, Any], known: Mapping[str, Sequence[Item]]) -> Item | None:
    """The image that a record is of: one of its name, numbered or not, that shows the same where both can be read."""
    names = dict.fromkeys((path.stem, re.sub(r"-\d+$", "", path.stem)))
    candidates = [item for name in names for item in known.get(name, ())]
    original = _shown([path.parent / str(record["files"]["image"])], record.get("slice")) if candidates else frozenset()
    found = {}
    for item in candidates:
        shown = _shown(item.files.values(), record.get("slice"))
        if original <= shown or not shown:
            found[item.patient, item.mask] = item
    if len(found) > 1:
        one, other = list(found.values())[:2]
        raise DataError(f"{path}: is of {one.path} or of {other.path}, which cannot be told apart; rename one")
    return next(iter(found.values()), None)


def _shown(files: Iterable[Path], index: int | None) -> frozenset[str]:
    """A digest of every layer that the files show, a colour or contrast each; none where one cannot be read."""
    try:
        return frozenset(layer for path in files for layer in _layers(path, path.stat().st_mtime_ns, index))
    except (ImageError, OSError):
        return frozenset()


@lru_cache(maxsize=4096)
def _layers(path: Path, changed: int, index: int | None) -> frozenset[str]:
    from counterscan.imaging import read

    shown = np.atleast_3d(np.round(read(path, slice_index=index).unit() * 255).astype(np.uint8))
    return frozenset(hashlib.sha256(layer.tobytes()).hexdigest()[:16] for layer in np.moveaxis(shown, 2, 0))


def _digest(picture: Picture) -> str:
    """16 hex digits of what a picture shows, in 8 bits."""
    shown = np.round(picture.unit() * 255).astype(np.uint8)
    return hashlib.sha256(repr(shown.shape).encode() + shown.tobytes()).hexdigest()[:16]


def _manifest(manifest: Path) -> Iterator[Pair]:
    from counterscan.data.manifest import raw_rows, resolve

    wrong = []
    for number, row in enumerate(raw_rows(manifest), 1):
        direction = row.get("direction", "").lower()
        lacking = [name for name in COLUMNS if not row.get(name) and (name, direction) != ("finding", "null")]
        if lacking or direction not in DIRECTIONS:
            wrong.append(f"row {number}, {', '.join(lacking) or 'direction'}")
            continue
        null = direction == "null"
        changes = () if null else ((canonical(row["finding"]), direction),)
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
