"""Where a finding really is: masks or boxes, image by image, and which images have it."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import DataError, ImageError, WordsError
from counterscan.evaluate.sources import Item, items
from counterscan.imaging.masks import mask_of
from counterscan.language.spelling import key
from counterscan.metrics.localisation import Box, fill


@dataclass(frozen=True)
class Marked:
    """A box around a finding; ``row`` is the file and row that say so."""

    box: Box
    row: str


@dataclass(frozen=True)
class Question:
    """An image of a split that has the finding or not; ``boxes`` where it is, if they say so.

    ``labelled``: whether a column or box says that it has; else only a mask does, which may be empty.
    """

    item: Item
    split: str
    present: bool
    boxes: tuple[Marked, ...] = ()
    labelled: bool = True

    @property
    def located(self) -> bool:
        """Is it known where the finding is?"""
        return self.present and bool(self.boxes or self.item.mask)

    def truth(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Where the finding is, bool (H, W). ``ImageError`` for a box outside the image, or a mask of another shape."""
        for marked in self.boxes:
            if not fill([marked.box], shape).any():
                raise ImageError(f"{marked.row}: the box holds no pixel of the {shape[1]}x{shape[0]} image")
        if self.boxes:
            return fill([marked.box for marked in self.boxes], shape)
        assert self.item.mask is not None
        return mask_of(self.item.mask, shape)


def questions(
    manifest: Path, finding: str, splits: tuple[str, str], boxes: dict[str, tuple[Marked, ...]], limit: int | None
) -> Iterator[Question]:
    """The images of validation and test split whose label for ``finding`` is known, at most ``limit`` of each kind and split.

    An image with a box has the finding whatever its label; where the manifest has no such label, one with a mask has it. A word
    that stands for several findings ("support devices", a world's "lesion") is labelled by their columns, if it has none itself.
    Validation images with the finding at an unknown place choose nothing and are left out.
    """
    for split in splits:
        left: dict[tuple[bool, bool], float] = {}
        for item in items(manifest, split):
            columns = [finding] if finding in item.findings else parts(finding)
            told = [item.findings[name] for name in columns if name in item.findings]
            label = 1 if 1 in told else 0 if told and not any(value != 0 for value in told) else None
            at = boxes.get(item.path.name, ())
            labelled = bool(at or told)
            if at or (item.mask is not None and not labelled):
                label = 1
            if label not in (0, 1):
                continue
            question = Question(item, split, bool(label), at, labelled)
            kind = question.present, question.located
            if split == splits[0] and kind == (True, False):
                continue
            left[kind] = left.get(kind, float("inf") if limit is None else limit) - 1
            if left[kind] >= 0:
                yield question


def parts(word: str) -> tuple[str, ...]:
    """The findings that a word stands for, in a world or in the vocabulary; none where it is a finding itself."""
    from counterscan.language.vocabulary import finding

    return _broader().get(word) or finding(word).group


def part_of(finding: str, word: str) -> bool:
    """Is a finding one of those that a word stands for?"""
    return key(finding) in map(key, parts(word))


def known_as(finding: str, known: Sequence[str]) -> str:
    """The finding, or where a model does not know it among ``known``, a world's word for it and others that the model knows."""
    if key(finding) in map(key, known):
        return finding
    return next((word for word in _broader() if word in known and part_of(finding, word)), finding)


@lru_cache(maxsize=1)
def _broader() -> dict[str, tuple[str, ...]]:
    """What stands for several findings in any world."""
    from counterscan.worlds.dataset import WORLDS, broader

    return {word: tuple(some) for world in WORLDS for word, some in broader(world).items()}


def read_boxes(path: Path | None, finding: str) -> dict[str, tuple[Marked, ...]]:
    """File name -> boxes of ``finding``, from a CSV with columns file (or path), finding, x, y, w, h in pixels of the image.

    Raises:
        DataError: every bad row, or no box of the finding.
    """
    if path is None:
        return {}
    out: dict[str, tuple[Marked, ...]] = {}
    wrong = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table: list[dict[str, Any]] = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    for number, row in enumerate(table, 1):
        try:
            x, y, w, h = (float(row[key]) for key in ("x", "y", "w", "h"))
            name, called = Path(row.get("file") or row["path"]).name, row["finding"]
        except (KeyError, TypeError, ValueError):
            wrong.append(f"row {number}")
            continue
        if not all(map(math.isfinite, (x, y, w, h))) or min(w, h, x + w, y + h) <= 0:
            wrong.append(f"row {number} ({w:g}x{h:g} at {x:g}, {y:g})")
        elif same_finding(called, finding):
            out[name] = (*out.get(name, ()), Marked((x, y, x + w, y + h), f"{path.name}, row {number}"))
    if wrong:
        need = "columns file, finding, x, y, w, h, in pixels, w and h above 0"
        raise DataError(f"{path}: boxes have {need}; wrong are {', '.join(wrong[:20])}")
    if not out:
        raise DataError(f"{path}: has no box of {finding!r}")
    return out


def same_finding(a: str, b: str) -> bool:
    """Do two words mean one finding ("Effusion", "pleural effusion")?"""
    return canonical(a) == canonical(b)


def canonical(word: str) -> str:
    """The vocabulary's name for what a word means; an unknown word in lower case."""
    from counterscan.language.vocabulary import lookup

    try:
        return lookup(word, ()).name
    except WordsError:
        return " ".join(word.lower().replace("_", " ").split())
