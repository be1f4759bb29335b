"""The chest world as a training set in a work folder: patients with their exact counterfactuals, and what is known of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.training.captions import Row

WORLD_TEMPLATE = "world chest radiograph"


def draw(work: Path, count: int, part: int, first: int, twins: int, size: int = 256) -> None:
    """Draw ``count`` patients of the world (seeds from ``first``), each with exact counterfactuals, into ``world<part>``.

    A twin differs from the first image of its patient by one finding: half of the twins lose one, half gain one.
    """
    from counterscan.worlds import chest

    images = np.empty((count * (1 + twins), size, size), np.uint8)
    rows: list[dict[str, Any]] = []
    for seed in range(first, first + count):
        rng = np.random.default_rng([seed, 4])
        case = chest.sample(seed, size=size)
        gained = [str(f) for f in rng.permutation([f for f in chest.FINDINGS if f not in case.findings])]
        lost = [str(f) for f in rng.permutation(list(case.findings))]
        order = [*lost[: int(rng.integers(1, 3))], *gained][:twins]
        for member in (case, *(chest.intervene(case, {name: name not in case.findings}) for name in order)):
            images[len(rows)] = (member.image * 255 + 0.5).astype(np.uint8)
            found = [(n, p.side, p.place, chest.severity_word(n, p.severity)) for n, p in member.findings.items()]
            rows.append({"patient": seed, "view": case.view, "sex": case.sex, "findings": found})
    np.save(work / f"world{part}.npy", images)
    (work / f"world{part}.json").write_text(json.dumps(rows))


def world_rows(work: Path, part: int) -> tuple[list[Row], NDArray[np.int64]]:
    """Everything is known of a world case: what is not present is absent. Also the patients' numbers."""
    from counterscan.worlds.chest import FINDINGS

    rows: list[Row] = []
    facts = json.loads((work / f"world{part}.json").read_text())
    for fact in facts:
        present = tuple((str(n), s, p, g) for n, s, p, g in fact["findings"])
        names = {n for n, *_ in present}
        rows.append(
            Row(WORLD_TEMPLATE, present, tuple(f for f in FINDINGS if f not in names), fact["view"], fact["sex"])
        )
    patients = np.array([fact["patient"] for fact in facts])
    return rows, np.where(np.isin(patients, patients[1:][np.diff(patients) == 0]), patients, -1)
