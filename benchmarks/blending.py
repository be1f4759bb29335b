"""How a change should be put into the original: rules compared on exact edits, where the model cannot be at fault.

    python benchmarks/blending.py -n 8 -o benchmarks/results/blending

The "edited" image is the exact counterfactual through the model's autoencoder, the reconstruction the factual through it: an
edit by a perfect model. What error is left is the rule's and the autoencoder's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from counterscan import load
from counterscan.bench.cases import Pair, pairs
from counterscan.blending import blend
from counterscan.metrics.truth import drift_outside, error_inside
from counterscan.worlds import chest

Rule = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def ours(threshold: float | None = None) -> Rule:
    """The rule in use, with its own threshold or another."""

    def rule(original: np.ndarray, rebuilt: np.ndarray, edited: np.ndarray) -> np.ndarray:
        change, weight = blend(original, rebuilt, edited, **({} if threshold is None else {"threshold": threshold}))
        return original + weight * change

    return rule


RULES: dict[str, Rule] = {
    "the decoding alone": lambda original, rebuilt, edited: edited,
    "differences alone": lambda original, rebuilt, edited: original + edited - rebuilt,
    "ours": ours(),
    "ours, threshold 0.04": ours(0.04),
    "ours, everywhere": ours(-1.0),
}


def decoded(backbone: object, images: list[np.ndarray]) -> list[np.ndarray]:
    """Images through the autoencoder."""
    x = torch.from_numpy(np.stack(images))[:, None]
    return list(backbone.decode(backbone.encode(x))[:, 0].numpy())  # type: ignore[attr-defined]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=8)
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results/blending"))
    parser.add_argument("--model", default="chest-world")
    o = parser.parse_args()
    backbone, rows = load(o.model), []
    for finding in chest.FINDINGS:
        items: list[Pair] = pairs(
            "chest", finding, "remove", o.n, template=backbone.card.template, size=backbone.resolution
        )
        rebuilt, edited = (decoded(backbone, [getattr(p, key) for p in items]) for key in ("factual", "truth"))
        for name, rule in RULES.items():
            out = [np.clip(rule(p.factual, r, e), 0, 1) for p, r, e in zip(items, rebuilt, edited, strict=True)]
            error = np.mean([error_inside(x, p.truth, p.factual, p.mask) for x, p in zip(out, items, strict=True)])
            drift = np.mean([drift_outside(x, p.factual, p.mask) for x, p in zip(out, items, strict=True)])
            rows.append({"rule": name, "finding": finding, "error_inside": float(error), "drift_outside": float(drift)})
    lines = ["| rule | mean error inside | worst finding | drift outside |", "| --- | --- | --- | --- |"]
    for name in RULES:
        some = [row for row in rows if row["rule"] == name]
        worst = max(some, key=lambda row: row["error_inside"])
        mean, drift = (np.mean([row[key] for row in some]) for key in ("error_inside", "drift_outside"))
        lines.append(f"| {name} | {mean:.3f} | {worst['finding']} {worst['error_inside']:.3f} | {drift:.5f} |")
    print("\n".join(lines))
    o.o.mkdir(parents=True, exist_ok=True)
    facts = {"model": o.model, "fingerprint": backbone.fingerprint, "n": o.n, "rows": rows}
    (o.o / "results.json").write_text(json.dumps(facts, indent=2) + "\n")
    (o.o / "results.md").write_text(
        f"# Rules of blending, on exact edits\n\n`{o.model}`, {o.n} cases a finding\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
