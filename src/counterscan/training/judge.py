"""The commands that made the built-in classifiers, which judge edits and are a feature space.

    python -m counterscan.training.judge world WORK --out src/counterscan/models/chest-world-judge
    python -m counterscan.training.judge nih NIH --start MODEL --out src/counterscan/models/chest-nih-judge

``WORK`` holds the ``world*.npy`` of ``counterscan.training.chest draw``; ``NIH`` is a folder with ``images/`` and
``metadata.csv``. They never see a test image, and no edit is guided or chosen by them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from counterscan.robustness.classifier import Classifier
from counterscan.robustness.fit import FitSettings, as_images, fit
from counterscan.training.captions import Row
from counterscan.training.radiographs import NIH_NAMES, nih_images, nih_table
from counterscan.training.shipping import sign
from counterscan.training.world_set import world_rows

TEST_SEED = 700_000_000


def world_labels() -> list[str]:
    """Findings, then "left X" for those with a side, then "upper X" and so on for those with a place."""
    from counterscan.worlds.chest import FINDINGS, PLACED, SIDED

    places = [f"{zone} {name}" for name in PLACED for zone in ("upper", "middle", "lower")]
    return [*FINDINGS, *(f"left {name}" for name in SIDED), *places]


def world_targets(rows: list[Row]) -> NDArray[np.float32]:
    """(N, labels): side and place are known only of findings that are there."""
    labels = world_labels()
    out = np.full((len(rows), len(labels)), np.nan, np.float32)
    column = {label: k for k, label in enumerate(labels)}
    for i, row in enumerate(rows):
        for name in row.absent:
            out[i, column[name]] = 0
        for name, side, place, _ in row.present:
            out[i, column[name]] = 1
            if side:
                out[i, column[f"left {name}"]] = side == "left"
            if place:
                for zone in ("upper", "middle", "lower"):
                    out[i, column[f"{zone} {name}"]] = place == zone
    return out


def accuracy(model: Classifier, images: NDArray[np.uint8], targets: NDArray[np.float32]) -> dict[str, float]:
    """Accuracy of every label at probability 1/2, over the images where it is known."""
    p = np.concatenate(
        [model.probabilities(as_images(part)).numpy() for part in np.array_split(images, len(images) // 50)]
    )
    known = ~np.isnan(targets)
    right = ((p > 0.5) == (targets > 0.5)) & known
    return {label: float(right[:, k].sum() / max(known[:, k].sum(), 1)) for k, label in enumerate(model.labels)}


def auc(model: Classifier, images: NDArray[np.uint8], targets: NDArray[np.float32]) -> dict[str, float]:
    """Area under the ROC curve of every label that has at least five known images of each kind."""
    from sklearn.metrics import roc_auc_score

    p = model.probabilities(as_images(images)).numpy()
    out = {}
    for k, label in enumerate(model.labels):
        known = ~np.isnan(targets[:, k])
        y = targets[known, k]
        if min(y.sum(), (1 - y).sum()) >= 5:
            out[label] = float(roc_auc_score(y, p[known, k]))
    return out


def log(row: dict[str, float]) -> None:
    """One line on stderr."""
    print(json.dumps(row), file=sys.stderr, flush=True)


def new(labels: list[str], size: int, width: int, seed: int) -> Classifier:
    """A classifier with weights drawn from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return Classifier(labels, size=size, width=width)


def world(o: argparse.Namespace) -> None:
    """Train on the world's images and test on unseen patients."""
    from counterscan.worlds import chest

    parts = sorted(int(path.stem[5:]) for path in o.data.glob("world?.npy"))
    rows = [row for part in parts for row in world_rows(o.data, part)[0]]
    images = np.concatenate([np.load(o.data / f"world{part}.npy", mmap_mode="r") for part in parts])
    model = new(world_labels(), o.size, o.width, o.seed)
    settings = FitSettings(epochs=o.epochs, seed=o.seed)
    fit(model, images, world_targets(rows), settings, log=log)
    cases = [chest.sample(TEST_SEED + i) for i in range(o.tests)]
    facts = [tuple((n, p.side, p.place, None) for n, p in case.findings.items()) for case in cases]
    tests = [Row("", f, tuple(n for n in chest.FINDINGS if n not in {x for x, *_ in f})) for f in facts]
    pixels = np.stack([(case.image * 255 + 0.5).astype(np.uint8) for case in cases])
    scores = accuracy(model, pixels, world_targets(tests))
    mean = float(np.mean([scores[name] for name in chest.FINDINGS]))
    log({"mean accuracy of findings": mean} | scores)
    data = f"{len(images)} images of the chest world; tested on {o.tests} unseen patients"
    save(model, o, data, settings, {"mean_accuracy": mean, "accuracy": scores})


def nih(o: argparse.Namespace) -> None:
    """Go on from the world's classifier on real radiographs; test on the test split."""
    labels = list(dict.fromkeys(NIH_NAMES.values()))
    model = new(labels, o.size, o.width, o.seed)
    if o.start:
        old = Classifier.load(o.start)
        model.load_state_dict({k: v for k, v in old.state_dict().items() if not k.startswith("head")}, strict=False)
    train, test = nih_table(o.data, "train"), nih_table(o.data, "test")
    pixels, targets = nih_images(o.data, train), nih_targets(train, labels)
    settings = FitSettings(
        epochs=o.epochs, rate=1e-3, decay=5e-2, shift=0.05, turn=0.1, zoom=0.1, light=0.2, seed=o.seed
    )
    fit(model, pixels, targets, settings, log=log)
    scores = auc(model, nih_images(o.data, test), nih_targets(test, labels))
    log(scores)
    save(
        model,
        o,
        f"{len(train)} train images of NIH ChestX-ray14; tested on {len(test)} others",
        settings,
        {"auc": scores},
    )


def nih_targets(table: list[dict[str, str]], labels: list[str]) -> NDArray[np.float32]:
    """1 and 0 as labelled, NaN for uncertain and missing."""
    column = {name: key for key, name in NIH_NAMES.items()}
    known = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0}
    return np.array([[known.get(row.get(column[name], ""), np.nan) for name in labels] for row in table], np.float32)


def save(model: Classifier, o: argparse.Namespace, data: str, settings: FitSettings, scores: dict[str, object]) -> None:
    """Write the classifier and its card."""
    facts = {"name": o.out.name, "data": data, "settings": repr(settings), "seed": o.seed, "scores": scores}
    model.save(o.out, facts | {"command": f"python -m counterscan.training.judge {o.stage}", "license": "Apache-2.0"})
    sign(o.out)


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("world", "nih"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--tests", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    {"world": world, "nih": nih}[options.stage](options)


if __name__ == "__main__":
    main()
