"""In what order a reader meets the cases, and on which side: random, balanced, and the same whenever it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from counterscan.errors import WordsError
from counterscan.reader.study import LIKERT, RATINGS, Case, Study, Task

PAIRS = ("forced-choice", "change")
Part = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Trial:
    """One screen: a case of a task. ``swapped`` says that the second image stands left."""

    id: str
    task: int
    case: Case
    swapped: bool = False


class Answer(BaseModel):
    """What a reader said: the fields of the trial's kind, and how many seconds it took.

    ``rating`` 1 (surely real) to 6; ``choice`` 0 left, 1 right; ``mark`` left, top, right, bottom as parts of the image, a
    point where they coincide; ``scales`` 1 to 5 each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    rating: Annotated[int, Field(ge=1, le=len(RATINGS))] | None = None
    choice: Annotated[int, Field(ge=0, le=1)] | None = None
    finding: Annotated[str, Field(max_length=200)] | None = None
    mark: tuple[Part, Part, Part, Part] | None = None
    scales: dict[str, Annotated[int, Field(ge=1, le=LIKERT)]] | None = None
    seconds: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 0.0


def trials(study: Study, reader: int) -> list[Trial]:
    """The trials of reader number ``reader`` (from 0): task after task, the cases of each in an order of the reader's own.

    Of the pairs of a task half are swapped, and the next reader sees the other half so.
    """
    out = []
    for number, task in enumerate(study.tasks):
        n = len(task.cases)
        sides = np.random.default_rng([study.plan.seed, number, 1]).permutation(n) % 2 ^ reader % 2
        order = np.random.default_rng([study.plan.seed, number, 2, reader]).permutation(n)
        pair = task.kind in PAIRS
        out += [Trial(f"{number}/{task.cases[k].id}", number, task.cases[k], bool(pair and sides[k])) for k in order]
    return out


def check(task: Task, answer: Answer) -> None:
    """Raise ``WordsError`` when an answer does not fit its task."""
    given = {key for key, value in answer.model_dump(exclude={"seconds"}).items() if value is not None}
    wanted = {"rating": {"rating"}, "forced-choice": {"choice"}, "quality": {"scales"}, "change": {"finding", "mark"}}
    fields = wanted[task.kind]
    if answer.finding is not None and answer.finding not in task.choices:
        raise WordsError(f"finding: {answer.finding!r} is not among the choices")
    if task.choices and answer.finding == task.choices[-1]:  # who sees no difference has nothing to mark
        fields = {"finding"}
    if given != fields:
        raise WordsError(f"this task takes {' and '.join(sorted(fields))}, got {', '.join(sorted(given)) or 'nothing'}")
    if answer.scales is not None and set(answer.scales) != set(task.scales or {}):
        raise WordsError(f"scales: answer {', '.join(task.scales or {})}")


def public(task: Task, trial: Trial) -> dict[str, Any]:
    """What a reader may know of a trial."""
    facts: dict[str, Any] = {"kind": task.kind, "task": trial.task}
    if task.choices:
        facts["choices"] = list(task.choices)
    if task.scales is not None:
        facts |= {"scales": task.scales, "asked": trial.case.asked}
    return facts
