"""Break spurious correlations with counterfactuals: fill the rare combinations of a finding and other columns by editing.

In the table of a finding against another attribute (effusion against devices, say) a classifier may learn the shortcut when
two cells are nearly empty. Each is filled by images of its neighbour in which the ATTRIBUTE is edited and the finding kept:
with effusion and without devices come from those with both. Several attributes are balanced together, in the cells of their
product. Sex and view cannot be edited: within each of their values the finding is edited too, which parts it from them.
What an edit made is used only where it passes the gates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from counterscan.errors import DataError

UNKNOWN = ("", "nan", "None", "<NA>", "-1", "-1.0")  # what tables write for it, and for uncertain
Level = int | str
Cells = dict[tuple[int, ...], list[int]]  # the values of the edited columns -> indices of rows


@dataclass(frozen=True)
class Task:
    """Edit row ``index`` so that every column of ``changes`` gets its value (0 or 1); ``seed`` belongs to the row."""

    index: int
    changes: tuple[tuple[str, int], ...]
    seed: int

    @property
    def value(self) -> int:
        """What the first column, most often the only one, becomes."""
        return self.changes[0][1]


@dataclass(frozen=True)
class Gates:
    """When an edited image is used.

    Area: between the shares ``least`` and ``most`` of the image changed. Drift: outside that area the model, before
    compositing, changed it by at most ``drift`` on average (intensities in [0, 1]; 0.001 to 0.010 in 54 edits by the built-in
    chest models). Identity: of the images of other patients at least the share ``identity`` is farther from the original than
    the edit is (0.94 to 1 in those edits, 0.5 by chance). Audit: it is not more alike to an image of another patient than all
    but a share ``rate`` of the training images are. Flip: by the threshold ``judge`` the judge, if there is one, sees what was
    asked, and the rest as it was.
    """

    least: float = 0.001
    most: float = 0.5
    drift: float = 0.02
    identity: float = 0.8
    rate: float = 0.01
    judge: float = 0.5


@dataclass(frozen=True)
class Measured:
    """What the gates judge an edited image by; the names are those of the manifest's columns.

    ``identity`` and ``similarity``, to the image ``twin``, are ``None`` where there is no image of another patient; above
    ``copy_limit`` the two are copies. ``saw`` are the judge's probabilities by label.
    """

    changed_area: float
    drift_outside: float = 0.0
    identity: float | None = None
    similarity: float | None = None
    copy_limit: float = 1.0
    twin: str = ""
    saw: Mapping[str, float] = field(default_factory=dict)


def known(row: Mapping[str, Any], column: str) -> int | None:
    """1, 0, or ``None`` where the label is uncertain, unknown or missing."""
    try:
        value = float(row.get(column, ""))
    except (TypeError, ValueError):
        return None
    return int(value) if value in (0, 1) else None


def level(row: Mapping[str, Any], column: str) -> Level | None:
    """1, 0, a word such as ``F`` or ``AP``, or ``None`` where it is uncertain, unknown or missing."""
    value, text = known(row, column), str(row.get(column, "")).strip()
    return value if value is not None else None if text in UNKNOWN else text


def columns(
    rows: Sequence[Mapping[str, Any]], finding: str, against: str | Sequence[str]
) -> tuple[list[str], list[str]]:
    """(edited, held): columns of 0 and 1 are edited and the finding is held.

    Where there are columns of words they are held, and the finding is edited as well.
    """
    names = [against] if isinstance(against, str) else list(dict.fromkeys(against))
    words = [name for name in names if all(known(row, name) is None for row in rows)]
    labels = [name for name in names if name not in words]
    return ([finding, *labels], words) if words else (labels, [finding])


def counts(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Counter[tuple[Any, ...]]:
    """How many rows there are in each cell of the product of the columns; rows that do not know all are in none."""
    cells = (tuple(level(row, name) for name in names) for row in rows)
    return Counter(cell for cell in cells if None not in cell)


def strata(
    rows: Sequence[Mapping[str, Any]], finding: str, edited: Sequence[str], held: Sequence[str]
) -> dict[tuple[Any, ...], Cells]:
    """Values of the held columns -> the cells of the edited ones, empty ones too; rows that do not know all are in none."""
    out: dict[tuple[Any, ...], Cells] = {}
    for i, row in enumerate(rows):
        stratum = tuple(known(row, name) if name == finding else level(row, name) for name in held)
        cell: tuple[Any, ...] = tuple(known(row, name) for name in edited)
        if None not in (*stratum, *cell):
            out.setdefault(stratum, {goal: [] for goal in product((0, 1), repeat=len(edited))})[cell].append(i)
    return dict(sorted(out.items(), key=lambda item: [str(value) for value in item[0]]))


def plan(rows: Sequence[Mapping[str, Any]], finding: str, against: str | Sequence[str], seed: int = 0) -> list[Task]:
    """The edits that make the finding independent of the columns ``against``: of the cells of the edited columns, all grow to
    the largest one, separately for each combination of the held ones (:func:`columns`).

    A cell is filled first by images that need the fewest changes, each used for it once at most.

    Raises:
        DataError: no row knows all columns.
    """
    edited, held = columns(rows, finding, against)
    groups = strata(rows, finding, edited, held)
    if not groups:
        asked = ", ".join(repr(name) for name in (*held, *edited))
        raise DataError(f"no row knows all of {asked}; columns are {', '.join(rows[0]) if rows else 'none'}")
    rng, tasks = np.random.default_rng(seed), []
    for cells in groups.values():
        most = max(len(members) for members in cells.values())
        for goal, members in cells.items():
            if len(members) == most:
                continue
            others = {i: cell for cell, some in cells.items() if cell != goal for i in some}
            mixed = rng.permutation(list(others)).tolist()
            mixed.sort(key=lambda i: sum(a != b for a, b in zip(others[i], goal, strict=True)))
            for i in mixed[: most - len(members)]:
                changes = [(n, to) for n, now, to in zip(edited, others[i], goal, strict=True) if now != to]
                tasks.append(Task(i, tuple(changes), int(np.random.default_rng([seed, i]).integers(2**31))))
    return sorted(tasks, key=lambda task: task.index)


def passes(seen: Measured, wanted: Mapping[str, int], gates: Gates) -> str:
    """``""`` when the edited image may be used, else why not. ``wanted`` are the labels that it must have."""
    if seen.changed_area < gates.least:
        return "nothing changed"
    if seen.changed_area > gates.most:
        return f"{seen.changed_area:.0%} of the image changed"
    if seen.drift_outside > gates.drift:
        return f"the rest of the image drifted by {seen.drift_outside:.3f}"
    if seen.identity is not None and seen.identity < gates.identity:
        return f"{1 - seen.identity:.0%} of other patients are nearer to the original"
    if seen.similarity is not None and seen.similarity > seen.copy_limit:
        return f"a copy of {seen.twin}, similarity {seen.similarity:.2f}"
    for name, value in wanted.items():
        if name in seen.saw and (seen.saw[name] > gates.judge) != bool(value):
            return f"the judge sees {name} at {seen.saw[name]:.2f}"
    return ""
