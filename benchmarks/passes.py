"""How many passes a finding needs: what a model's card gives the method ``noise-free`` as ``steps`` and ``removal_steps``.

    python benchmarks/passes.py MODEL -n 16 -o benchmarks/results/passes [--write CARD.json]

On cases of the chest world that neither training nor ``counterscan bench`` sees, every finding is added with 1 to ``--most``
passes and removed with 1 to 3. Of what is drawn further at every pass too much is soon drawn, of what is found late too
little at first, so the number with the least ``error_inside + (1 - flip_rate)`` is chosen. With ``--write`` it goes into
the card.
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
from counterscan.methods.noise_free import NoiseFree
from counterscan.robustness.classifier import Classifier
from counterscan.types import Direction
from counterscan.worlds.chest import FINDINGS

WAYS: tuple[Direction, Direction] = "add", "remove"
SEED = 7  # the bench's own cases have 0
COLUMNS = (
    "direction",
    "finding",
    "passes",
    "error_inside",
    "flip_rate",
    "side_right",
    "place_right",
    "drift_composited",
)


def measure(model: str, n: int, most: int) -> list[dict[str, Any]]:
    """A row a direction, finding and number of passes."""
    backbone, judge, rows = load(model), Classifier.load("chest-world-judge"), []
    for way, finding in product(WAYS, FINDINGS):
        items = pairs("chest", finding, way, n, template=backbone.card.template, size=backbone.resolution, seed=SEED)
        for passes in range(1, (most if way == "add" else 3) + 1):
            row, _ = cell(backbone, NoiseFree(passes, passes), items, judge, lambda done: None)
            rows.append(
                {"direction": way, "finding": finding, "passes": passes} | {key: row[key] for key in COLUMNS[3:]}
            )
            print(*(f"{value:.2f}" if isinstance(value, float) else value for value in rows[-1].values()), flush=True)
    return rows


def chosen(rows: list[dict[str, Any]], direction: str) -> dict[str, int]:
    """The number of passes of every finding."""
    best = {}
    for finding in dict.fromkeys(row["finding"] for row in rows):
        own = [row for row in rows if row["finding"] == finding and row["direction"] == direction]
        best[finding] = int(min(own, key=lambda row: row["error_inside"] + 1 - (row["flip_rate"] or 0))["passes"])
    return best


def table(rows: list[dict[str, Any]], steps: dict[str, dict[str, int]]) -> str:
    """Markdown; the chosen rows are bold."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for row in rows:
        words = [
            "" if row[key] is None else f"{row[key]:.2f}" if isinstance(row[key], float) else str(row[key])
            for key in COLUMNS
        ]
        bold = "**" if steps[row["direction"]][row["finding"]] == row["passes"] else ""
        lines.append("| " + " | ".join(f"{bold}{word}{bold}" if word else "" for word in words) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, choose, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("-n", type=int, default=16, help="cases a finding")
    parser.add_argument("--most", type=int, default=6, help="passes")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--write", type=Path, help="card to put the numbers into")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = measure(options.model, options.n, options.most)
    steps = {way: chosen(rows, way) for way in WAYS}
    name = Path(options.model).name
    texts = {
        options.out / f"{name}.json": json.dumps({"n": options.n, "seed": SEED, "steps": steps, "rows": rows}, indent=1)
        + "\n",
        options.out / f"{name}.md": table(rows, steps),
    }
    if options.write:
        card = json.loads(options.write.read_text())
        settings = {"steps": steps["add"], "removal_steps": steps["remove"]}
        card["method_settings"] = card.get("method_settings", {}) | {"noise-free": settings}
        texts[options.write] = json.dumps(card, indent=2) + "\n"
    for path, text in texts.items():
        with replacing(path) as draft:
            draft.write_text(text)


if __name__ == "__main__":
    main()
