"""Stress tests: what one edit does to every output of a classifier, over all images and by subgroup.

The change under an edit is set beside the change under the null edit of the same image, so that what the method itself
does to an image is not taken for the finding's effect. A classifier that does not use a device is unmoved by its removal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.language.vocabulary import DEVICES
from counterscan.robustness.names import meant

REPEATS = 2000  # bootstrap draws


@dataclass(frozen=True)
class Effect:
    """The mean change of one output's probability under one edit in one group, with a 95 % interval by patient (:func:`limits`).

    ``null`` is the same mean under the null edit; ``flips`` the share of images whose decision at 1/2 turned.
    """

    edit: str
    output: str
    group: str
    n: int
    change: float
    low: float
    high: float
    null: float
    flips: float

    @property
    def distinct(self) -> bool:
        """Whether the interval leaves out what the null edit does."""
        return not self.low <= self.null <= self.high


def effects(
    edit: str,
    labels: Sequence[str],
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    null: NDArray[np.float32],
    patients: Sequence[str],
    groups: Mapping[str, NDArray[np.bool_]],
    seed: int = 0,
) -> list[Effect]:
    """One effect an output and group. Probabilities are (N, K); ``groups`` name subsets of the N images."""
    out = []
    for name, member in {"all": np.ones(len(before), bool), **groups}.items():
        if member.sum() < 2:
            continue
        owners = [p for p, m in zip(patients, member, strict=True) if m]
        low, high = limits((after - before)[member], owners, seed)
        change, idle = (after - before)[member].mean(0), (null - before)[member].mean(0)
        flips = ((after > 0.5) != (before > 0.5))[member].mean(0)
        out += [
            Effect(edit, label, name, int(member.sum()), *map(float, (change[k], low[k], high[k], idle[k], flips[k])))
            for k, label in enumerate(labels)
        ]
    return out


def ranked(rows: Sequence[Effect]) -> list[Effect]:
    """Over all images, the effects surely farthest from the null edit first: by the end of the interval next to it.

    So a large mean of a few images does not come before a smaller one that is certain.
    """
    return sorted((r for r in rows if r.group == "all"), key=lambda r: min(r.null - r.low, r.high - r.null))


def subgroups(rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[np.bool_]]:
    """Masks by sex, view, age band and presence of devices, as far as the manifest's columns carry."""
    out: dict[str, NDArray[np.bool_]] = {}
    for name in ("sex", "view"):
        words = [str(row.get(name) or "") for row in rows]
        out |= {f"{name} {v}": np.array([x == v for x in words]) for v in sorted(set(words) - {"", "nan"})}
    ages = np.array([_number(row.get("age")) for row in rows])
    for low, high in ((0, 40), (40, 60), (60, 80), (80, 200)):
        out[f"age {low}-{high - 1}"] = (ages >= low) & (ages < high)
    out |= _devices(rows)
    return {name: member for name, member in out.items() if member.any()}


def _devices(rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[np.bool_]]:
    """With any device, and with none: as the column of them all says, else as those of single devices say together."""
    columns = dict.fromkeys(name for row in rows for name in row)
    labels = [name for name in columns if any(_number(row.get(name)) in (0, 1) for row in rows)]

    def named(*names: str) -> list[str]:
        return [found for name in names if (found := meant(name, labels)) in labels]

    together, single = named("support devices"), named(*DEVICES)
    if not (together or single):
        return {}

    def values(names: Sequence[str]) -> NDArray[np.float64]:
        return np.array([[_number(row.get(name)) for name in names] for row in rows])

    some = (values([*together, *single]) == 1).any(1)
    return {"with devices": some, "without devices": ~some & (values(together or single) == 0).all(1)}


def limits(
    values: NDArray[np.floating[Any]], patients: Sequence[str], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ends (K,) of a 95 % interval of the means of values (N, K) in [-1, 1].

    A bootstrap of few patients is too narrow: its variance falls short by (n - 1) / n, and the mean of few is no normal variate
    (Hesterberg 2015). Its ends are moved away from the mean by as much; of one patient nothing is known.
    """
    from scipy import stats

    n = len(set(patients))
    if n < 2:
        return np.full(values.shape[1], -1.0), np.full(values.shape[1], 1.0)
    mean, wider = values.mean(0), np.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975)
    ends = np.quantile(bootstrap(values, patients, seed), [0.025, 0.975], axis=0)
    low, high = np.clip(mean + (ends - mean) * wider, -1, 1)
    return low, high


def bootstrap(values: NDArray[np.floating[Any]], patients: Sequence[str], seed: int) -> NDArray[np.float64]:
    """Means (REPEATS, K) of values (N, K) with patients drawn anew."""
    rng = np.random.default_rng(seed)
    names, owner = np.unique(np.array(patients, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, owner, values)
    counts = np.bincount(owner, minlength=len(names)).astype(float)
    pick = rng.integers(len(names), size=(REPEATS, len(names)))
    weight = np.apply_along_axis(np.bincount, 1, pick, minlength=len(names))
    return (weight @ sums) / (weight @ counts)[:, None]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
