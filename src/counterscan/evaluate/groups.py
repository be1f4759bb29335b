"""The rows of edits gathered by what was asked, in columns: a few hundred bytes an image, and no image."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.evaluate import rows
from counterscan.metrics import counterfactual as measures
from counterscan.robustness.names import meant

PRESERVED = ("l1", "l1_inside", "l1_outside", "proximity", "sparsity", "ssim", "ms_ssim", "psnr", "identity")
JUDGED = ("gain", "flip_rate", "validity", "effectiveness", "side_effect")
COSTS = ("evaluations", "seconds")
OTHER = ("(free prompts)", "")
Key = tuple[str, str, str]  # source, finding, direction


@dataclass(frozen=True)
class Seen:
    """One source: its rows on disk in ``index``, and ``identity`` (N,), the share of strangers farther away than each edit."""

    name: str
    index: Path
    identity: NDArray[np.float64]
    failed: list[str]

    def rows(self) -> Iterator[rows.Row]:
        """The rows of pairs that could be read, one by one."""
        good = (row for row in rows.read(self.index) if "error" not in row)
        return (row | {"identity": float(kept)} for row, kept in zip(good, self.identity, strict=True))


@dataclass
class Group:
    """All pairs of one source and question. ``files`` are those of :class:`~counterscan.evaluate.pairs.Pair`; pairs of the same
    factual share their value in ``images``.
    """

    null: bool
    stems: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    files: list[tuple[str, ...]] = field(default_factory=list)
    columns: dict[str, array[float]] = field(default_factory=dict)

    def add(self, row: rows.Row, judged: dict[str, float]) -> None:
        """Append one pair."""
        self.stems.append(row["stem"])
        self.images.append(row["image"])
        self.patients.append(row["patient"])
        self.files.append(tuple(row["files"]))
        for name in (*JUDGED, *PRESERVED, *COSTS):
            self.columns.setdefault(name, array("d")).append(judged[name] if name in judged else row[name])

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        """A measure of every pair (N,), NaN where it is unknown."""
        return np.array(self.columns[name], np.float64)

    def places(self) -> dict[str, list[int]]:
        """The positions of the pairs of each image."""
        out: dict[str, list[int]] = {}
        for k, image in enumerate(self.images):
            out.setdefault(image, []).append(k)
        return out

    def __len__(self) -> int:
        return len(self.stems)


def grouped(sources: Sequence[Seen], labels: Sequence[str]) -> dict[Key, Group]:
    """The pairs of every (source, finding, direction) with what the judge says of that change.

    A null edit answers every question that the other sources ask of the same image.
    """
    asked: dict[str, dict[tuple[str, str], None]] = {}
    for seen in sources:
        for row in seen.rows():
            for finding, direction in row["changes"]:
                asked.setdefault(row["image"], {})[finding, direction] = None
    out: dict[Key, Group] = {}
    column = cache(lambda finding: column_of(finding, labels))  # a word that the judge lacks takes long to look up
    for seen in sources:
        for row in seen.rows():
            changes = [(finding, direction) for finding, direction in row["changes"]] or [OTHER]
            if row["null"]:
                changes = list(asked.get(row["image"], ())) or [("(null)", "")]
            for finding, direction in changes:
                group = out.setdefault((seen.name, finding, direction), Group(row["null"]))
                group.add(row, _judged(row, direction, column(finding)))
    return out


def column_of(finding: str, labels: Sequence[str]) -> int | None:
    """The judge's label that means a finding; a single device is told of by "support devices" where it has no own."""
    from counterscan.language.vocabulary import DEVICES

    name = meant(finding, labels)
    if name not in labels and meant(finding, DEVICES) in DEVICES:
        name = meant("support devices", labels)
    return labels.index(name) if name in labels else None


def _judged(row: rows.Row, direction: str, column: int | None) -> dict[str, float]:
    if column is None or not direction:
        return dict.fromkeys(JUDGED, float("nan"))
    before, after = np.array([row["before"]]), np.array([row["after"]])
    wanted = np.array([direction == "add"])
    told = before[:, column], after[:, column], wanted
    values: dict[str, Any] = {
        "gain": measures.prediction_gain(*told),
        "flip_rate": measures.flipped(*told),
        "validity": measures.valid(after[:, column], wanted),
        "effectiveness": np.abs(wanted - after[:, column]),
        "side_effect": measures.side_effect(before, after, np.arange(before.shape[1])[None] == column),
    }
    return {name: float(value[0]) for name, value in values.items()}
