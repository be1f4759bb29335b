"""Maps of every finding of the chest world against its exact change, beside Grad-CAM, and false alarms on healthy cases.

    python benchmarks/world_attribution.py --model chest-world --work WORK -n 20 -o benchmarks/results/world_attribution

The truth is where the exact counterfactual differs. Validation cases choose thresholds, test cases are scored; both are unseen
by the model. ``WORK`` keeps the images and maps: a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from counterscan import load
from counterscan.bench.cases import pairs
from counterscan.evaluate.attribution import attribution
from counterscan.evaluate.page import cell
from counterscan.imaging.raster import save_png
from counterscan.worlds import chest

HEALTHY = 760_000_000  # world seeds of cases without the finding; no training run uses them
COLUMNS = ("auprc", "auprc_pooled", "dice_validation", "pointing", "error_ranking", "false_alarms", "sensitivity")


def draw(finding: str, folder: Path, n: int, template: str, size: int) -> Path:
    """``n`` cases with and ``2 n`` without the finding, half of each for validation, and their manifest."""
    lines = [f"path,patient,split,mask,{finding}"]
    folder.mkdir(parents=True, exist_ok=True)
    for i, pair in enumerate(pairs("chest", finding, "remove", n, template=template, size=size)):
        save_png((pair.factual * 65535).round().astype(np.uint16), folder / f"with-{i}.png", {})
        save_png(pair.mask.astype(np.uint8) * 255, folder / f"mask-{i}.png", {})
        lines.append(f"with-{i}.png,W{i},{'val' if i % 2 else 'test'},mask-{i}.png,1")
    for i in range(2 * n):
        case = chest.intervene(chest.sample(HEALTHY + i, size=size), {finding: False})
        save_png((case.image * 65535).round().astype(np.uint16), folder / f"without-{i}.png", {})
        lines.append(f"without-{i}.png,H{i},{'val' if i % 2 else 'test'},,0")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="chest-world")
    parser.add_argument("--judge", default="chest-world-judge")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--findings", help="comma-separated; all otherwise")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("-n", type=int, default=20, help="cases with the finding; twice as many without")
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results/world_attribution"))
    o = parser.parse_args()
    card = load(o.model, offline=True).card
    named = o.findings.split(",") if o.findings else [name for name in chest.FINDINGS if name in card.findings]
    rate = max(0.05, 1 / (o.n + 1))  # the least that n healthy validation cases can promise
    rows: list[dict[str, Any]] = []
    for finding in named:
        folder = o.work / f"{finding.replace(' ', '-')}-{o.n}"
        manifest = folder / "images" / "manifest.csv"
        if not manifest.exists():
            draw(finding, manifest.parent, o.n, card.template, card.resolution)
        told = attribution(
            manifest, folder, finding=finding, model=o.model, judge=o.judge, repeats=o.repeats, rate=rate, offline=True
        )
        rows += [{"finding": finding} | {k: row[k] for k in ("map", "n", *COLUMNS)} for row in told["rows"]]
    o.o.mkdir(parents=True, exist_ok=True)
    facts = {"model": o.model, "n": o.n, "repeats": o.repeats, "rate": rate, "rows": rows}
    (o.o / "results.json").write_text(json.dumps(facts, indent=2) + "\n")
    head = ("finding", "map", "n", *COLUMNS)
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(cell(row[key]) for key in head) + " |" for row in rows]
    words = f"# Maps of {o.model} against exact changes\n\n{o.n // 2} test cases a finding; false alarms asked: {rate:.3f}.\n\n"
    (o.o / "results.md").write_text(words + "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
