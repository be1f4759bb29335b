"""The images of ``benchmarks/robustness.py``: cases of the chest world with and without a pacemaker, and real ones.

    python benchmarks/robustness_images.py WORK/256px --first 820000000 -n 400

That draws cases ahead, if several processes are to share the work; the study itself draws what is missing.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from counterscan.imaging.files import replacing
from counterscan.imaging.raster import write_png
from counterscan.training.radiographs import NIH_NAMES, nih_table
from counterscan.worlds import chest

FINDING, DEVICE = "pleural effusion", "pacemaker"
TEST, TRAIN, APART = 820_000_000, 830_000_000, 1_000_000  # world seeds that no model and no judge has seen
PREVALENCE = {name: 0.22 for name in chest.FINDINGS} | {FINDING: 0.5, DEVICE: 0.5}
MECHANISM = chest.Mechanism(prevalence=MappingProxyType(PREVALENCE), ap_odds=1.0)
Row = dict[str, Any]


@lru_cache(maxsize=256)
def drawn(folder: Path, number: int) -> chest.Case:
    """The case of that world seed, as large as the folder's name says ("256px"). Every effusion is a small one: large ones
    are so easy to see that no shortcut is worth taking, and there is nothing to cure.
    """
    case = chest.sample(number, size=int(folder.name.removesuffix("px")), mechanism=MECHANISM)
    there = case.findings.get(FINDING)
    return case if there is None else chest.intervene(case, {FINDING: replace(there, severity=there.severity / 3)})


def case_row(folder: Path, number: int, device: int) -> Row:
    """The case of that world seed with the device or exactly the same without; both are drawn when first asked for."""
    facts = folder / f"{number}.json"
    if not facts.exists():
        folder.mkdir(parents=True, exist_ok=True)
        case = drawn(folder, number)
        there = DEVICE in case.findings
        for value, one in ((there, case), (not there, chest.intervene(case, {DEVICE: not there}))):
            pixels = (one.image * 255).round().astype(np.uint8)
            write_png(pixels, folder / f"{number}-{int(value)}.png", {"world": "chest", "seed": number})
        told = {name: int(name in case.findings) for name in chest.FINDINGS}
        with replacing(facts) as draft:
            draft.write_text(json.dumps(told | {"sex": case.sex, "view": case.view, "age": case.age}))
    told = json.loads(facts.read_text())
    return told | {"path": folder / f"{number}-{device}.png", "patient": str(number), "number": number, DEVICE: device}


def turned(folder: Path, row: Row, name: str) -> Path:
    """The exact counterfactual of a case in which that one finding is there where it was not, and the other way about."""
    number, device = row["number"], row[DEVICE]
    if name == DEVICE:
        return case_row(folder, number, 1 - device)["path"]
    path = folder / f"{number}-{device}-{name.replace(' ', '-')}.png"
    if not path.exists():
        other = chest.intervene(drawn(folder, number), {DEVICE: bool(device), name: not row[name]})
        write_png((other.image * 255).round().astype(np.uint8), path, {"world": "chest", "seed": number})
    return path


def world_rows(folder: Path, first: int, n: int, agree: float) -> list[Row]:
    """Cases from seed ``first`` on, in which the device agrees with the finding with probability ``agree``."""
    coins = np.random.default_rng([first, 7]).random(n)
    rows = [case_row(folder, first + i, 0) for i in range(n)]
    value = [row[FINDING] if coin < agree else 1 - row[FINDING] for row, coin in zip(rows, coins, strict=True)]
    return [case_row(folder, row["number"], device) for row, device in zip(rows, value, strict=True)]


def nih_rows(folder: Path, split: str, finding: str, device: str) -> list[Row]:
    """Real images whose finding and devices are both known, by the names that models know them by."""
    column = {name: key for key, name in NIH_NAMES.items()}
    rows = [row for row in nih_table(folder, split) if {row[column[finding]], row[column[device]]} <= {"0", "1"}]
    facts = ({"path": folder / "images" / row["file"], "patient": row["patient_id"]} for row in rows)
    known = ({NIH_NAMES.get(key, key): value for key, value in row.items()} for row in rows)
    return [{**labels, **fact} for labels, fact in zip(known, facts, strict=True)]


def thinned(rows: list[Row], finding: str, device: str, rate: float, n: int, seed: int) -> list[Row]:
    """``n`` of the rows, half with the finding, of which the device agrees in ``rate``; fewer where a cell runs out."""
    rng = np.random.default_rng(seed)
    cells = {(f, d): [r for r in rows if (int(r[finding]), int(r[device])) == (f, d)] for f in (0, 1) for d in (0, 1)}
    share = {key: (rate if key[0] == key[1] else 1 - rate) / 2 for key in cells}
    n = min([n, *(int(len(cells[key]) / share[key]) for key in cells if share[key])])
    return [cells[key][i] for key in cells for i in rng.permutation(len(cells[key]))[: round(n * share[key])]]


def main() -> None:
    """Draw cases ahead of the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="its name says the pixels a side, as 256px does")
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("-n", type=int, required=True)
    o = parser.parse_args()
    for i in range(o.n):
        case_row(o.folder, o.first + i, 0)


if __name__ == "__main__":
    main()
