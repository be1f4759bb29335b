"""Does a generated image show what its prompt says? The world's judge, which the model never sees, answers.

    python benchmarks/text_to_image.py -n 500 -o benchmarks/results/text_to_image

Prompts are terse captions of unseen world cases, one to three findings each with side, place and severity, and one denied
finding. ``named`` is the share of named findings that the judge sees, ``denied`` of denied ones that it does not see,
``side`` and ``place`` of the seen ones where it agrees.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from counterscan import load
from counterscan.generation import sample
from counterscan.language.phrase import phrase, prompt
from counterscan.robustness.classifier import Classifier
from counterscan.worlds import chest

FIRST_SEED = 600_000_000


def question(seed: int, template: str) -> tuple[str, dict[str, chest.Present], str]:
    """A prompt, the findings it names, and the one it denies."""
    rng = np.random.default_rng(seed)
    anatomy = chest.sample(seed, size=32).anatomy
    names = [str(n) for n in rng.permutation(chest.FINDINGS)]
    k = int(rng.integers(1, 4))
    named = {name: chest.attributes(anatomy, name) for name in names[:k]}
    words = [chest.words(name, what) for name, what in named.items()] + [phrase(names[k], absent=True)]
    return prompt(words, template=template), named, names[k]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results/text_to_image"))
    parser.add_argument("--model", default="chest-world")
    parser.add_argument("--judge", default="chest-world-judge")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=10)
    o = parser.parse_args()
    backbone, judge = load(o.model), Classifier.load(o.judge)
    column = {label: k for k, label in enumerate(judge.labels)}
    asked = [question(FIRST_SEED + i, backbone.card.template) for i in range(o.n)]
    right: dict[str, list[bool]] = {key: [] for key in ("named", "denied", "side", "place", *chest.FINDINGS)}
    shown = []
    for start in range(0, o.n, o.batch):
        chunk = asked[start : start + o.batch]
        generators = [torch.Generator().manual_seed(FIRST_SEED + start + i) for i in range(len(chunk))]
        images = sample(backbone, [words for words, _, _ in chunk], generators, steps=o.steps, guidance=o.guidance)
        seen = judge.probabilities(images).numpy() > 0.5
        shown += list(images[:, 0].numpy()) if len(shown) < 24 else []
        for (_, named, denied), row in zip(chunk, seen, strict=True):
            right["denied"].append(not row[column[denied]])
            for name, what in named.items():
                right["named"].append(bool(row[column[name]]))
                right[name].append(bool(row[column[name]]))
                if row[column[name]] and what.side:
                    right["side"].append(row[column[f"left {name}"]] == (what.side == "left"))
                if row[column[name]] and what.place:
                    right["place"].append(bool(row[column[f"{what.place} {name}"]]))
    scores = {key: float(np.mean(values)) for key, values in right.items() if values}
    print(json.dumps(scores))
    o.o.mkdir(parents=True, exist_ok=True)
    facts = {"model": o.model, "fingerprint": backbone.fingerprint, "n": o.n, "steps": o.steps, "guidance": o.guidance}
    (o.o / "results.json").write_text(json.dumps(facts | {"agreement": scores}, indent=2) + "\n")
    lines = [f"| {key} | {value:.3f} |" for key, value in scores.items()]
    title = f"# Text to image: agreement of the judge with {o.n} prompts\n\n`{o.model}`\n\n| what | agreement |\n| --- | --- |\n"
    (o.o / "results.md").write_text(title + "\n".join(lines) + "\n")
    rows = [np.concatenate(shown[i : i + 6], axis=1) for i in range(0, min(len(shown), 24) - 5, 6)]
    Image.fromarray((np.concatenate(rows) * 255).astype(np.uint8)).save(o.o / "samples.jpg", quality=88)
    (o.o / "prompts.txt").write_text("\n".join(words for words, _, _ in asked[:24]) + "\n")


if __name__ == "__main__":
    main()
