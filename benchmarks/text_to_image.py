"""Does a generated image show what its prompt says? The world's judge, which the model never sees, answers.

    python benchmarks/text_to_image.py -n 500 -o benchmarks/results/text_to_image

Prompts are terse captions of unseen world cases, one to three findings each with side, place and severity, and one denied
finding. Each is asked in two ways: "edits" is what ``counterscan generate`` does, the radiograph from noise and its findings by
edits; "noise" is the model alone, from noise under the whole prompt. ``named`` is the share of named findings that the judge
sees, ``denied`` of denied ones that it does not see, ``side`` and ``place`` of the seen ones where it agrees.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from counterscan import load
from counterscan.generation import drawn, sample
from counterscan.language.phrase import phrase, prompt
from counterscan.metrics.intervals import interval
from counterscan.robustness.classifier import Classifier
from counterscan.worlds import chest

FIRST_SEED = 600_000_000
WAYS = "edits", "noise"
KEYS = "named", "denied", "side", "place"


def question(seed: int, template: str) -> tuple[str, dict[str, chest.Present], str]:
    """A prompt, the findings it names, and the one it denies."""
    rng = np.random.default_rng(seed)
    anatomy = chest.sample(seed, size=32).anatomy
    names = [str(n) for n in rng.permutation(chest.FINDINGS)]
    k = int(rng.integers(1, 4))
    named = {name: chest.attributes(anatomy, name) for name in names[:k]}
    words = [chest.words(name, what) for name, what in named.items()] + [phrase(names[k], absent=True)]
    return prompt(words, template=template), named, names[k]


def answers(backbone: Any, prompts: list[str], way: str, steps: int, guidance: float, first: int) -> torch.Tensor:
    """An image a prompt, (B, C, H, W)."""
    generators = [torch.Generator().manual_seed(first + i) for i in range(len(prompts))]
    if way == "noise":
        return sample(backbone, prompts, generators, steps=steps, guidance=guidance)
    return drawn(backbone, prompts, generators, steps=steps, guidance=guidance)


def agreement(
    row: np.ndarray, column: dict[str, int], named: dict[str, chest.Present], denied: str
) -> list[tuple[str, bool]]:
    """What of a prompt the judge's answers (L,), bool, agree with."""
    told = [("denied", not row[column[denied]])]
    for name, what in named.items():
        seen = bool(row[column[name]])
        told += [("named", seen), (name, seen)]
        if seen and what.side:
            told.append(("side", bool(row[column[f"left {name}"]]) == (what.side == "left")))
        if seen and what.place:
            told.append(("place", bool(row[column[f"{what.place} {name}"]])))
    return told


def means(told: list[list[tuple[str, bool]]]) -> dict[str, dict[str, float]]:
    """The mean of every key with its 95 % interval, by prompt."""
    scores = {}
    for key in (*KEYS, *chest.FINDINGS):
        found = [(float(agrees), k) for k, some in enumerate(told) for name, agrees in some if name == key]
        if found:
            at = interval(*zip(*found, strict=True))
            scores[key] = {"mean": at.mean, "low": at.low, "high": at.high, "n": at.n}
    return scores


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("-o", "--out", type=Path, default=Path("benchmarks/results/text_to_image"))
    parser.add_argument("--model", default="chest-world")
    parser.add_argument("--judge", default="chest-world-judge")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=10)
    o = parser.parse_args()
    backbone, judge = load(o.model), Classifier.load(o.judge)
    column = {label: k for k, label in enumerate(judge.labels)}
    asked = [question(FIRST_SEED + i, backbone.card.template) for i in range(o.n)]
    o.out.mkdir(parents=True, exist_ok=True)
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for way in WAYS:
        told: list[list[tuple[str, bool]]] = []
        shown: list[np.ndarray] = []
        for start in range(0, o.n, o.batch):
            chunk = asked[start : start + o.batch]
            images = answers(backbone, [w for w, _, _ in chunk], way, o.steps, o.guidance, FIRST_SEED + start)
            shown += list(images[:, 0].numpy()) if len(shown) < 24 else []
            for (_, named, denied), row in zip(chunk, judge.probabilities(images).numpy() > 0.5, strict=True):
                told.append(agreement(row, column, named, denied))
        scores[way] = means(told)
        rows = [np.concatenate(shown[i : i + 6], axis=1) for i in range(0, min(len(shown), 24) - 5, 6)]
        Image.fromarray((np.concatenate(rows) * 255).astype(np.uint8)).save(o.out / f"{way}.jpg", quality=85)
        print(way, json.dumps(scores[way]), flush=True)
    facts = {"model": o.model, "fingerprint": backbone.fingerprint, "n": o.n, "steps": o.steps, "guidance": o.guidance}
    (o.out / "results.json").write_text(json.dumps(facts | {"agreement": scores}, indent=1) + "\n")
    table = ["| what | by edits | from noise alone |", "| --- | --- | --- |"]
    for key in scores["edits"]:
        cells = [
            "{mean:.2f} [{low:.2f}, {high:.2f}]".format(**scores[way][key]) if key in scores[way] else ""
            for way in WAYS
        ]
        table.append(f"| {key} | {' | '.join(cells)} |")
    head = f"# Text to image: agreement of `{o.judge}` with {o.n} prompts\n\n`{o.model}`, {o.steps} steps. In brackets: 95 %\n\n"
    (o.out / "results.md").write_text(head + "\n".join(table) + "\n")
    (o.out / "prompts.txt").write_text("\n".join(words for words, _, _ in asked[:24]) + "\n")


if __name__ == "__main__":
    main()
