"""From answers to numbers: one table a task, a row a reader and one for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.reader import statistics as s
from counterscan.reader.statistics import Estimate
from counterscan.reader.store import Store
from counterscan.reader.study import RATINGS, Case, Study, Task
from counterscan.reader.trials import Answer, Trial, trials

Rows = list[dict[str, Any]]
Given = Mapping[int, Mapping[str, tuple[Trial, Answer]]]
"""Answers by reader, then by case, with their trials."""

TOLERANCE = (
    0.03  # of the longest side: how far from the change a mark may lie (15 of about 500 pixels; Zhang et al. 2018)
)
SPLIT = len(RATINGS) / 2  # ratings above it say synthetic


def given(study: Study, store: Store) -> list[Given]:
    """The answers of each task."""
    orders = {reader: {trial.id: trial for trial in trials(study, reader)} for reader in store.codes()}
    tasks: list[dict[int, dict[str, tuple[Trial, Answer]]]] = [{} for _ in study.tasks]
    for reader, name, answer in store.answers():
        trial = orders[reader][name]
        tasks[trial.task].setdefault(reader, {})[trial.case.id] = (trial, answer)
    return list(tasks)


def measure(task: Task, answers: Given) -> tuple[Rows, Estimate | dict[str, Estimate] | None]:
    """A row a reader, then one for all; and their agreement (kappa), by scale for quality. None of one reader."""
    rows, agree = MEASURES[task.kind](task, answers)
    return rows, agree if len(answers) > 1 else None


def _rating(task: Task, answers: Given) -> tuple[Rows, Estimate]:
    truth = np.array([case.truth for case in task.cases])
    table = _table(task, answers, lambda _, answer: answer.rating)
    rows: Rows = []
    for reader, ratings in zip(answers, table.T, strict=True):
        real, made = (ratings[(truth == k) & ~np.isnan(ratings)] for k in (0, 1))
        rows.append({"reader": reader, "answers": len(real) + len(made)} | _detection(real, made))
    parts = {"accuracy": _accuracy, "d_prime": _d_prime, "auc": _auc}
    everyone = {name: _over(part, truth, table) for name, part in parts.items()}
    rows.append({"reader": "all", "answers": int((~np.isnan(table)).sum())} | everyone)
    return rows, s.agreement(table, ordered=True)


def _detection(real: NDArray[Any], made: NDArray[Any]) -> dict[str, Any]:
    hits, alarms = int((made > SPLIT).sum()), int((real > SPLIT).sum())
    right, n = hits + len(real) - alarms, len(real) + len(made)
    out: dict[str, Any] = {"accuracy": s.proportion(right, n)}
    if len(real) and len(made):
        out |= {"d_prime": s.d_prime(hits, len(made), alarms, len(real)), "auc": s.auc(real, made)}
        points = s.roc(real, made, len(RATINGS))
        out |= {
            "hit_rate": hits / len(made),
            "false_alarm_rate": alarms / len(real),
            "roc": [list(map(float, p)) for p in points],
        }
    return out


def _accuracy(truth: NDArray[Any], ratings: NDArray[Any]) -> float:
    return float(((ratings > SPLIT) == truth).mean())


def _d_prime(truth: NDArray[Any], ratings: NDArray[Any]) -> float:
    real, made = ratings[truth == 0], ratings[truth == 1]
    return s.d_prime(int((made > SPLIT).sum()), len(made), int((real > SPLIT).sum()), len(real)).value


def _auc(truth: NDArray[Any], ratings: NDArray[Any]) -> float:
    from scipy.stats import rankdata

    made, n = int(truth.sum()), len(truth)
    return float((rankdata(ratings)[truth == 1].sum() - made * (made + 1) / 2) / (made * (n - made)))


def _over(part: Callable[..., float], truth: NDArray[Any], table: NDArray[Any]) -> Estimate:
    """The mean over readers of a number that needs answers to both real and synthetic cases."""

    def one(column: NDArray[Any]) -> Callable[[NDArray[np.intp]], float]:
        def value(drawn: NDArray[np.intp]) -> float:
            known = drawn[~np.isnan(column[drawn])]
            both = 0 < truth[known].sum() < len(known)
            return part(truth[known], column[known]) if both else float("nan")

        return value

    return s.over_readers([one(column) for column in table.T], len(truth), int((~np.isnan(table)).sum()))


def _forced(task: Task, answers: Given) -> tuple[Rows, Estimate]:
    """``choice`` is the side called synthetic; the synthetic image stands right unless the pair is swapped."""
    chosen = _table(task, answers, lambda _, answer: answer.choice)
    side = _table(task, answers, lambda trial, _: 0 if trial.swapped else 1)
    right = np.where(np.isnan(chosen), np.nan, chosen == side)
    rows: Rows = []
    for reader, said, stood in zip(answers, chosen.T, side.T, strict=True):
        known = ~np.isnan(said)
        row = {
            "reader": reader,
            "answers": int(known.sum()),
            "accuracy": s.proportion(int((said == stood)[known].sum()), known.sum()),
        }
        rows.append(row | ({"d_prime": _forced_d(said[known], stood[known])} if len(set(stood[known])) > 1 else {}))

    def one(k: int) -> Callable[[NDArray[np.intp]], float]:
        def value(drawn: NDArray[np.intp]) -> float:
            known = drawn[~np.isnan(chosen[drawn, k])]
            both = len(set(side[known, k])) > 1
            return _forced_d(chosen[known, k], side[known, k]).value if both else float("nan")

        return value

    n, cases = int((~np.isnan(chosen)).sum()), len(task.cases)
    everyone = {"accuracy": _mean(right), "d_prime": s.over_readers([one(k) for k in range(len(answers))], cases, n)}
    rows.append({"reader": "all", "answers": n} | everyone)
    return rows, s.agreement(right)


def _forced_d(said: NDArray[Any], stood: NDArray[Any]) -> Estimate:
    left = said == 0
    return s.d_prime_forced(
        int(left[stood == 0].sum()), int((stood == 0).sum()), int(left[stood == 1].sum()), int((stood == 1).sum())
    )


def _change(task: Task, answers: Given) -> tuple[Rows, Estimate]:
    named = _table(task, answers, lambda trial, answer: answer.finding in trial.case.findings)
    marked = _table(task, answers, lambda trial, answer: answer.mark is not None and near(trial.case, answer.mark))
    by_chance = float(np.mean([_changed(case)[1] for case in task.cases]))
    rows: Rows = []
    for reader, right, hit in zip([*answers, "all"], [*named.T, named], [*marked.T, marked], strict=True):
        known = ~np.isnan(right)
        n, alone = int(known.sum()), reader != "all"
        row: dict[str, Any] = {"reader": reader, "answers": n}
        row["finding"] = s.proportion(int(np.nansum(right)), n) if alone else _mean(right)
        row["place"] = s.proportion(int(np.nansum(hit)), n) if alone else _mean(hit)
        rows.append(row | {"finding_by_chance": 1 / len(task.choices), "place_by_chance": by_chance})
    said = np.array([[answers[r][case.id][1].finding if case.id in answers[r] else None for r in answers]
                     for case in task.cases], dtype=object)  # fmt: skip
    return rows, s.agreement(said)


def near(case: Case, mark: Sequence[float]) -> bool:
    """Whether the middle of a mark (left, top, right, bottom as parts of the image) lies at the edit's change, or near it."""
    place, _ = _changed(case)
    height, width = place.shape
    row, column = (mark[1] + mark[3]) / 2 * height, (mark[0] + mark[2]) / 2 * width
    return bool(place[min(int(row), height - 1), min(int(column), width - 1)])


@lru_cache(maxsize=4096)
def _changed(case: Case) -> tuple[NDArray[np.bool_], float]:
    """Where a mark counts, on a small grid, and how much of the image that is."""
    from PIL import Image
    from scipy.ndimage import distance_transform_edt

    from counterscan.result import Counterfactual

    mask = Counterfactual.load(case.files[0]).mask
    small = Image.fromarray(mask.astype(np.uint8) * 255)
    small.thumbnail((256, 256), Image.Resampling.BOX)
    place = np.asarray(small) > 0
    if place.any():
        place = distance_transform_edt(~place) <= TOLERANCE * max(place.shape)
    return place, float(place.mean())


def _quality(task: Task, answers: Given) -> tuple[Rows, dict[str, Estimate]]:
    scales = list(task.scales or {})
    tables = {name: _table(task, answers, lambda _, answer, k=name: (answer.scales or {}).get(k)) for name in scales}
    rows: Rows = []
    for k, reader in enumerate(answers):
        n = int((~np.isnan(tables[scales[0]][:, k])).sum())
        rows.append({"reader": reader, "answers": n} | {name: _mean(tables[name][:, k : k + 1]) for name in scales})
    total = sum(row["answers"] for row in rows)
    rows.append({"reader": "all", "answers": total} | {name: _mean(tables[name]) for name in scales})
    return rows, {name: s.agreement(tables[name], ordered=True) for name in scales}


def _mean(table: NDArray[Any]) -> Estimate:
    """The mean over readers of their mean over cases."""

    def one(column: NDArray[Any]) -> Callable[[NDArray[np.intp]], float]:
        def value(drawn: NDArray[np.intp]) -> float:
            known = column[drawn][~np.isnan(column[drawn])]
            return float(known.mean()) if len(known) else float("nan")

        return value

    return s.over_readers([one(column) for column in table.T], len(table), int((~np.isnan(table)).sum()))


def _table(task: Task, answers: Given, value: Callable[..., Any]) -> NDArray[np.float64]:
    """A number for each (case, reader), NaN where there is no answer."""
    lines = [[value(*answers[r][case.id]) if case.id in answers[r] else None for r in answers] for case in task.cases]
    return np.array(lines, dtype=np.float64).reshape(len(task.cases), len(answers))


MEASURES: dict[str, Callable[[Task, Given], tuple[Rows, Any]]] = {
    "rating": _rating, "forced-choice": _forced, "change": _change, "quality": _quality
}  # fmt: skip


def open_store(path: Path, study: Study) -> Store:
    """The answers of a study. Raises ``DataError`` when there is no such file."""
    from counterscan.errors import DataError

    if not path.is_file():
        raise DataError(f"{path}: no answers yet; name the file with --store")
    return Store(path, study.fingerprint)
