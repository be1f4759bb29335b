"""Edits of unseen chest-world cases against their exact counterfactuals, a finding and a direction at a time.

    python benchmarks/chest_edits.py -n 64 -o benchmarks/results/chest_edits

Writes ``results.json``, ``results.md`` and a contact sheet (factual, ours, truth, our difference, true difference).

``error_inside``: mean |edited - truth| inside the true change mask over the same for doing nothing (0 exact, 1 nothing
done); ``drift_outside``: mean |change| outside it. Both are shown before compositing (the edited decoding as the method
returns it) and after blending. ``mask_auprc`` ranks pixels by |change| against the true mask.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from counterscan import load, methods
from counterscan.blending import blend
from counterscan.language.phrase import phrase, prompt
from counterscan.types import Change, Edit
from counterscan.worlds import chest

FIRST_SEED = 900_000_000  # training used seeds below 100 million


@dataclass(frozen=True)
class Pair:
    """A factual, its exact counterfactual, and the edit that leads from one to the other."""

    factual: chest.Case
    truth: chest.Case
    edit: Edit


def pairs(finding: str, direction: str, n: int, template: str, size: int) -> list[Pair]:
    """n unseen cases whose counterfactual visibly changes the picture."""
    out: list[Pair] = []
    seed = FIRST_SEED + 100_000 * chest.FINDINGS.index(finding)
    while len(out) < n:
        seed += 1
        base = chest.intervene(chest.sample(seed, size=size), {finding: False})
        there = chest.intervene(base, {finding: True})
        if chest.change_mask(base, there).mean() < 0.0005:  # hidden behind another finding: nothing to edit
            continue
        p = there.findings[finding]
        present = phrase(finding, side=p.side, place=p.place, severity=chest.severity_word(finding, p.severity))
        source, target = (prompt([x], template=template) for x in (present, phrase(finding, absent=True)))
        change = Change(finding, "remove" if direction == "remove" else "add", p.side, p.place)
        if direction == "remove":
            out.append(Pair(there, base, Edit(source, target, (change,))))
        else:
            out.append(Pair(base, there, Edit(target, source, (change,))))
    return out


def scores(pair: Pair, edited: np.ndarray) -> dict[str, float]:
    """The measures of one edited image, float32 (H, W)."""
    from sklearn.metrics import average_precision_score

    factual, truth = pair.factual.image, pair.truth.image
    mask = chest.change_mask(pair.factual, pair.truth)
    change = np.abs(edited - factual)
    found, total = change > np.quantile(change, 1 - mask.mean()), mask.sum()
    return {
        "error_inside": float(np.abs(edited - truth)[mask].mean() / np.abs(factual - truth)[mask].mean()),
        "drift_outside": float(change[~mask].mean()),
        "mask_auprc": float(average_precision_score(mask.ravel(), change.ravel())),
        "mask_dice": float(2 * (found & mask).sum() / (found.sum() + total)),
    }


def run(
    backbone: Any, method: Any, items: list[Pair], batch: int = 8
) -> tuple[list[dict[str, float]], list[np.ndarray]]:
    """Edit all pairs; returns their scores (raw and blended) and the blended images."""
    rows, images = [], []
    for i in range(0, len(items), batch):
        chunk = items[i : i + batch]
        x = torch.from_numpy(np.stack([p.factual.image for p in chunk]))[:, None]
        edited = np.concatenate(
            [
                method(backbone, x[k : k + 1], p.edit, generator=torch.Generator().manual_seed(i + k)).numpy()
                for k, p in enumerate(chunk)
            ]
        )
        rebuilt = backbone.decode(backbone.encode(x)).numpy()
        for k, p in enumerate(chunk):
            factual = p.factual.image
            delta, weight = blend(factual, rebuilt[k, 0], edited[k, 0])
            final = np.clip(factual + weight * delta, 0, 1)
            raw = scores(p, edited[k, 0])
            rows.append(scores(p, final) | {f"raw_{key}": value for key, value in raw.items()})
            images.append(final)
    return rows, images


def sheet(items: list[Pair], images: list[np.ndarray], columns: int = 4) -> Image.Image:
    """Factual, ours, truth, our difference, true difference, one row a case."""
    size = images[0].shape[0]
    page = Image.new("RGB", (5 * size, columns * size))
    for row, (p, ours) in enumerate(list(zip(items, images, strict=True))[:columns]):
        panels = [p.factual.image, ours, p.truth.image]
        panels += [np.clip(0.5 + (x - p.factual.image), 0, 1) for x in (ours, p.truth.image)]
        for column, panel in enumerate(panels):
            page.paste(Image.fromarray((panel * 255).astype(np.uint8)), (column * size, row * size))
    return page


def table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    keys = ["error_inside", "drift_outside", "mask_auprc", "mask_dice", "raw_error_inside", "raw_drift_outside"]
    lines = ["| method | finding | direction | " + " | ".join(keys) + " | s/image |", "|" + " --- |" * (len(keys) + 4)]
    for row in rows:
        cells = " | ".join(f"{row[key]:.3f}" for key in keys)
        lines.append(
            f"| {row['method']} | {row['finding']} | {row['direction']} | {cells} | {row['seconds_per_image']:.2f} |"
        )
    for direction in ("remove", "add"):
        chosen = [row for row in rows if row["direction"] == direction]
        if chosen:
            cells = " | ".join(f"**{np.mean([row[key] for row in chosen]):.3f}**" for key in keys)
            lines.append(f"| all | mean | {direction} | {cells} | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results/chest_edits"))
    parser.add_argument("--model", default="chest-world")
    parser.add_argument("--method", default="edit-friendly")
    parser.add_argument("--set", nargs="*", default=[], help="settings of the method, key=value")
    parser.add_argument("--findings", nargs="*", default=list(chest.FINDINGS))
    parser.add_argument("--directions", nargs="*", default=["remove", "add"])
    options = parser.parse_args()
    settings = {key: json.loads(value) for key, value in (item.split("=") for item in options.set)}
    backbone, method = load(options.model), methods.get(options.method, **settings)
    options.o.mkdir(parents=True, exist_ok=True)
    results = []
    for finding in options.findings:
        for direction in options.directions:
            items = pairs(finding, direction, options.n, backbone.card.template, backbone.resolution)
            start, before = time.monotonic(), backbone.evaluations
            rows, images = run(backbone, method, items)
            row: dict[str, Any] = {
                "method": options.method,
                "finding": finding,
                "direction": direction,
                "n": len(items),
            }
            row |= {key: float(np.mean([r[key] for r in rows])) for key in rows[0]}
            row["seconds_per_image"] = (time.monotonic() - start) / len(items)
            row["evaluations"] = (backbone.evaluations - before) / len(items)
            results.append(row)
            sheet(items, images).save(options.o / f"{finding.replace(' ', '-')}-{direction}.png")
            print(json.dumps(row), flush=True)
    facts = {"model": options.model, "fingerprint": backbone.fingerprint, "method": repr(method), "rows": results}
    (options.o / "results.json").write_text(json.dumps(facts, indent=2) + "\n")
    (options.o / "results.md").write_text(
        f"# Edits of unseen chest-world cases\n\n`{options.model}`, `{method!r}`\n\n" + table(results)
    )


if __name__ == "__main__":
    main()
