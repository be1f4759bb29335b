"""Break a spurious correlation with counterfactuals: fill the rare combinations of two findings by editing one of them.

In the table of a finding against another attribute (effusion against devices, say) a classifier may learn the shortcut when
two cells are nearly empty. Each is filled by images of its neighbour in which the ATTRIBUTE is edited and the finding kept:
with effusion and without devices come from those with both. What an edit made is used only where it passes the gates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from counterscan.errors import DataError


@dataclass(frozen=True)
class Task:
    """Edit row ``index`` so that ``attribute`` becomes ``value`` (0 or 1); ``seed`` belongs to the pair of both."""

    index: int
    attribute: str
    value: int
    seed: int


@dataclass(frozen=True)
class Gates:
    """An edited image is used where the judge sees the attribute as asked and the finding as it was, and where the
    changed area is neither nothing nor more than ``most`` of the image.
    """

    least: float = 0.001
    most: float = 0.5
    judge: float = 0.5


def known(row: Mapping[str, Any], column: str) -> int | None:
    """1, 0, or ``None`` where the label is uncertain, unknown or missing."""
    try:
        value = float(row.get(column, ""))
    except (TypeError, ValueError):
        return None
    return int(value) if value in (0, 1) else None


def counts(rows: Sequence[Mapping[str, Any]], finding: str, attribute: str) -> dict[tuple[int, int], list[int]]:
    """(finding, attribute) -> the indices of its rows; rows that know only one of the two are in none."""
    cells: dict[tuple[int, int], list[int]] = {(f, a): [] for f in (0, 1) for a in (0, 1)}
    for i, row in enumerate(rows):
        f, a = known(row, finding), known(row, attribute)
        if f is not None and a is not None:
            cells[f, a].append(i)
    return cells


def plan(rows: Sequence[Mapping[str, Any]], finding: str, attribute: str, seed: int = 0) -> list[Task]:
    """The edits that make attribute and finding independent: for each finding value both cells grow to the larger one.

    Every image is edited once at most, so the larger cell must hold enough of them; what is missing stays missing.

    Raises:
        DataError: no row knows both columns, or nothing is there to be edited.
    """
    cells, rng = counts(rows, finding, attribute), np.random.default_rng(seed)
    if not any(cells.values()):
        raise DataError(
            f"no row knows both {finding!r} and {attribute!r}; columns are {', '.join(rows[0]) if rows else 'none'}"
        )
    tasks = []
    for f in (0, 1):
        small, large = sorted((0, 1), key=lambda a, f=f: len(cells[f, a]))  # type: ignore[misc]
        lacking = len(cells[f, large]) - len(cells[f, small])
        chosen = rng.permutation(cells[f, large])[:lacking]
        tasks += [
            Task(int(i), attribute, small, int(np.random.default_rng([seed, int(i)]).integers(2**31))) for i in chosen
        ]
    return sorted(tasks, key=lambda task: task.index)


def passes(area: float, saw: Mapping[str, float] | None, task: Task, finding: str, value: int, gates: Gates) -> str:
    """``""`` when the edited image may be used, else why not. ``saw``: the judge's probabilities by label, if there is one."""
    if area < gates.least:
        return "nothing changed"
    if area > gates.most:
        return f"{area:.0%} of the image changed"
    for name, wanted in ((task.attribute, task.value), (finding, value)):
        if saw is not None and name in saw and (saw[name] > gates.judge) != bool(wanted):
            return f"the judge sees {name} at {saw[name]:.2f}"
    return ""
