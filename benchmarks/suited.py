"""How strongly to add a finding, and in how many passes to remove it: what a model's card gives the method ``instruct``.

    python benchmarks/suited.py MODEL -n 16 -o benchmarks/results/suited [--write CARD.json]

On cases of the chest world that neither training nor ``counterscan bench`` sees, every finding is added with each of
:data:`ADDED` and removed with each of :data:`REMOVED`. Too little guidance leaves a finding faint, too much overdraws it, so
those with the least ``error_inside + 2 (1 - flip_rate)`` are chosen. With ``--write`` they go into the card. Those of the
shipped cards (``counterscan.training.suited``) were chosen by hand, from such rows of 16 cases and the pictures.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

from counterscan import load
from counterscan.bench.cases import pairs
from counterscan.bench.run import cell
from counterscan.imaging.files import replacing
from counterscan.methods.instruct import Instruct
from counterscan.robustness.classifier import Classifier
from counterscan.types import Direction
from counterscan.worlds.chest import FINDINGS

WAYS: tuple[Direction, Direction] = "add", "remove"
SEED = 7  # the bench's own cases have 0
ADDED: tuple[dict[str, Any], ...] = (
    {"guidance": 1.0},
    {"guidance": 2.0},
    {"guidance": 2.0, "guided": 0.5},
    {"guidance": 3.0, "gain": 0.6},
    {"guidance": 3.0, "guided": 0.5, "gain": 0.6},
    {"guidance": 3.0, "guided": 0.5, "gain": 0.5, "passes": 2},
    {"guidance": 4.0, "gain": 0.4},
    {"guidance": 4.0, "guided": 0.5, "gain": 0.5},
)
REMOVED: tuple[dict[str, Any], ...] = tuple(
    {"removal_at": shares} for shares in ((0.1,), (0.12,), (0.15,), (0.2, 0.1), (0.15, 0.15), (0.15, 0.15, 0.15))
)
COLUMNS = (
    "direction",
    "finding",
    "setting",
    "error_inside",
    "flip_rate",
    "side_right",
    "place_right",
    "drift_composited",
)


def measure(model: str, n: int) -> list[dict[str, Any]]:
    """A row a direction, finding and setting."""
    backbone, judge, rows = load(model), Classifier.load("chest-world-judge"), []
    for way, finding in product(WAYS, FINDINGS):
        items = pairs("chest", finding, way, n, template=backbone.card.template, size=backbone.resolution, seed=SEED)
        for setting in ADDED if way == "add" else REMOVED:
            row, _ = cell(backbone, Instruct(**setting), items, judge, lambda done: None)
            facts = {"direction": way, "finding": finding, "setting": setting}
            rows.append(facts | {key: row[key] for key in COLUMNS[3:]})
            print(*(f"{value:.2f}" if isinstance(value, float) else value for value in rows[-1].values()), flush=True)
    return rows


def chosen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best row of every direction and finding."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["error_inside"] + 2 * (1 - (row["flip_rate"] or 0))):
        best.setdefault((row["direction"], row["finding"]), row)
    return list(best.values())


def settings(best: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The chosen numbers as settings of the method, of each the findings that have it."""
    known: dict[str, dict[str, float]] = {}
    for row in best:
        for name, value in row["setting"].items():
            known.setdefault(name, {})[row["finding"]] = value
    return known


def table(rows: list[dict[str, Any]], best: list[dict[str, Any]]) -> str:
    """Markdown; the chosen rows are bold."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for row in rows:
        words = [
            "" if row[key] is None else f"{row[key]:.2f}" if isinstance(row[key], float) else str(row[key])
            for key in COLUMNS
        ]
        bold = "**" if row in best else ""
        lines.append("| " + " | ".join(f"{bold}{word}{bold}" if word else "" for word in words) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, choose, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("-n", type=int, default=16, help="cases a finding")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--write", type=Path, help="card to put the numbers into")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = measure(options.model, options.n)
    best = chosen(rows)
    facts = {"n": options.n, "seed": SEED, "chosen": settings(best), "rows": rows}
    name = Path(options.model).name
    texts = {
        options.out / f"{name}.json": json.dumps(facts, indent=1) + "\n",
        options.out / f"{name}.md": table(rows, best),
    }
    if options.write:
        card = json.loads(options.write.read_text())
        card["method_settings"] = card.get("method_settings", {}) | {"instruct": settings(best)}
        texts[options.write] = json.dumps(card, indent=2) + "\n"
    for path, text in texts.items():
        with replacing(path) as draft:
            draft.write_text(text)


if __name__ == "__main__":
    main()
