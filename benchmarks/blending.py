"""How a change should be put into the original: rules compared on exact edits, where the model cannot be at fault, and on
the model's own.

    python benchmarks/blending.py -n 8 -o benchmarks/results/blending

For "exact" the edited image is the exact counterfactual through the model's autoencoder, the reconstruction the factual
through it: an edit by a perfect model. What error is left is the rule's and the autoencoder's. For "own" it is what the
model's default method answers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from counterscan import blending, load
from counterscan.bench.cases import Pair, pairs
from counterscan.bench.run import answer
from counterscan.methods import suited
from counterscan.metrics.truth import drift_outside, error_inside
from counterscan.worlds import chest

Rule = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def ours(**constants: float) -> Rule:
    """The rule in use, with some of its constants otherwise."""

    def rule(original: np.ndarray, rebuilt: np.ndarray, edited: np.ndarray) -> np.ndarray:
        with mock.patch.dict(vars(blending), constants):
            change, weight = blending.blend(original, rebuilt, edited)
        return original + weight * change

    return rule


RULES: dict[str, Rule] = {
    "the decoding alone": lambda original, rebuilt, edited: edited,
    "differences alone": lambda original, rebuilt, edited: original + edited - rebuilt,
    "ours": ours(),
    "ours, above 0.01": ours(LEAST=0.01, MOST=0.01),
    "ours, above 0.04": ours(LEAST=0.04, MOST=0.04),
    "ours, everywhere": ours(LEAST=-1.0, MOST=-1.0),
    "ours, blind to what is small": ours(SMOOTHING=1 / 128, SMALLEST=1e-3),
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
        own = [one.edited for one in answer(backbone, suited(backbone.card), items, lambda done: None)]
        for (kind, after), (name, rule) in product((("exact", edited), ("own", own)), RULES.items()):
            out = [np.clip(rule(p.factual, r, e), 0, 1) for p, r, e in zip(items, rebuilt, after, strict=True)]
            error = np.mean([error_inside(x, p.truth, p.factual, p.mask) for x, p in zip(out, items, strict=True)])
            drift = np.mean([drift_outside(x, p.factual, p.mask) for x, p in zip(out, items, strict=True)])
            facts = {"edits": kind, "rule": name, "finding": finding}
            rows.append(facts | {"error_inside": float(error), "drift_outside": float(drift)})
    lines = ["| edits | rule | mean error inside | worst finding | drift outside |", "| --- | --- | --- | --- | --- |"]
    for kind, name in product(("exact", "own"), RULES):
        some = [row for row in rows if (row["edits"], row["rule"]) == (kind, name)]
        worst = max(some, key=lambda row: row["error_inside"])
        mean, drift = (np.mean([row[key] for row in some]) for key in ("error_inside", "drift_outside"))
        lines.append(f"| {kind} | {name} | {mean:.3f} | {worst['finding']} {worst['error_inside']:.3f} | {drift:.5f} |")
    print("\n".join(lines))
    o.o.mkdir(parents=True, exist_ok=True)
    told = {"model": o.model, "fingerprint": backbone.fingerprint, "n": o.n, "rows": rows}
    (o.o / "results.json").write_text(json.dumps(told, indent=2) + "\n")
    (o.o / "results.md").write_text(
        f"# Rules of blending\n\n`{o.model}`, {o.n} cases a finding\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
