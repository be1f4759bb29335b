"""Does a device stay when the finding beside it is removed? Plain edits against ``--keep``, on cases of the chest world.

    python benchmarks/keep.py --methods flow-edit,factored -n 16 -o benchmarks/results/keep

Every case has the finding and the device. ``kept`` is the share of devices that the judge, which no method sees, still finds in
the result, of those it finds in the factual; ``device_error`` the distance to the exact counterfactual in the device's own
mask, divided by that of the same image without the device (0: untouched, 1: as wrong as gone). ``error_inside`` is the bench's,
of the finding that was to go. Finished rows are kept in the output folder: a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from counterscan import load
from counterscan.bench.cases import FIRST_SEED, SMALLEST, Pair
from counterscan.bench.run import answer
from counterscan.language import resolve
from counterscan.methods import suited
from counterscan.metrics.truth import error_inside
from counterscan.robustness.classifier import Classifier
from counterscan.types import Edit
from counterscan.worlds import chest

SEEDS = FIRST_SEED + 90_000_000  # the bench's own cases stay below
COLUMNS = ("kept", "device_error", "error_inside", "removed", "evaluations")


@dataclass(frozen=True)
class Both:
    """A case with finding and device: the question, where the device is (bool (H, W)), and the truth without it."""

    pair: Pair
    device: NDArray[np.bool_]
    bare: NDArray[np.float32]


def cases(finding: str, device: str, n: int, edit: Edit, size: int) -> list[Both]:
    """``n`` cases of which both show: removing either changes the picture."""
    out: list[Both] = []
    seed = SEEDS + 100_000 * chest.FINDINGS.index(device)
    while len(out) < n:
        seed += 1
        factual = chest.intervene(chest.sample(seed, size=size), {finding: True, device: True})
        truth = chest.intervene(factual, {finding: False})
        bare = chest.intervene(truth, {device: False})
        mask, own = chest.change_mask(factual, truth), chest.change_mask(truth, bare)
        if min(mask.mean(), own.mean()) >= SMALLEST:
            out.append(Both(Pair(factual.image, truth.image, mask, edit, seed), own, bare.image))
    return out


def measure(
    backbone: Any, method: Any, judge: Classifier, finding: str, device: str, asked: Sequence[Both]
) -> dict[str, Any]:
    """The means of one method over its cases."""
    spent, pairs = backbone.evaluations, [both.pair for both in asked]
    finals = [given.final for given in answer(backbone, method, pairs, lambda done: None)]
    before, after = (found(judge, images) for images in ([pair.factual for pair in pairs], finals))
    seen = before[device]
    error = [error_inside(x, p.truth, p.factual, p.mask) for x, p in zip(finals, pairs, strict=True)]
    lost = [
        np.abs(x - b.pair.truth)[b.device].mean() / np.abs(b.bare - b.pair.truth)[b.device].mean()
        for x, b in zip(finals, asked, strict=True)
    ]
    return {
        "n": len(asked),
        "seen": int(seen.sum()),
        "kept": float(after[device][seen].mean()) if seen.any() else None,
        "device_error": float(np.mean(lost)),
        "error_inside": float(np.mean(error)),
        "removed": float(1 - after[finding][before[finding]].mean()) if before[finding].any() else None,
        "evaluations": (backbone.evaluations - spent) / len(asked),
    }


def found(judge: Classifier, images: Sequence[NDArray[np.float32]]) -> dict[str, NDArray[np.bool_]]:
    """What the judge sees: a bool (n,) for every label."""
    there = judge.probabilities(torch.from_numpy(np.stack(images))[:, None]).numpy() > 0.5
    return {label: there[:, k] for k, label in enumerate(judge.labels)}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    head = ("method", "asked", "device", "seen", *COLUMNS)
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = [f"{row[c]:.3g}" if isinstance(row[c], float) else str(row[c] or "") for c in head]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="chest-world")
    parser.add_argument("--judge", default="chest-world-judge")
    parser.add_argument("--methods", default="flow-edit,factored")
    parser.add_argument("--finding", default="cardiomegaly")
    parser.add_argument("--devices", default=",".join(chest.DEVICES))
    parser.add_argument("-n", type=int, default=16, help="cases a device")
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results/keep"))
    o = parser.parse_args()
    backbone, judge = load(o.model, offline=True), Classifier.load(o.judge)
    o.o.mkdir(parents=True, exist_ok=True)
    path = o.o / "keep.json"
    told = {"model": backbone.fingerprint, "judge": o.judge, "finding": o.finding, "n": o.n}
    old = json.loads(path.read_text()) if path.exists() else {}
    rows: list[dict[str, Any]] = old["rows"] if old.get("told") == told else []
    for device in o.devices.split(","):
        for asked, keep in (("plain", ()), ("keep", (device,))):
            edit = resolve(remove=o.finding, keep=keep, card=backbone.card)
            items: list[Both] = []
            for method in (suited(backbone.card, name) for name in o.methods.split(",")):
                if keep == () and method.name == "factored":
                    continue  # without findings to keep it is flow-edit
                facts = {"method": method.name, "settings": repr(method), "asked": asked, "device": device}
                if any(facts.items() <= row.items() for row in rows):
                    continue
                items = items or cases(o.finding, device, o.n, edit, backbone.resolution)
                rows.append(facts | measure(backbone, method, judge, o.finding, device, items))
                draft = path.with_name(f".{path.name}.{os.getpid()}")
                draft.write_text(json.dumps({"told": told, "rows": rows}, indent=1) + "\n")
                os.replace(draft, path)
    text = table(rows)
    (o.o / "keep.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
