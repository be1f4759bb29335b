"""Where is the lesion? Healthy counterfactuals of the brain world against exact masks, beside reconstruction and Grad-CAM.

    python benchmarks/brain.py --model brain-world --work WORK -n 64 -o benchmarks/results/brain

Two truths: ``lesion`` is where the world painted a lesion's own tissue, ``change`` where the exact healthy twin differs at
all, which is more, as tumours push the tissue around them. So the exact twin itself does not score 1 against the first, and
stands in the table. Validation cases choose, for every row, how a change is read as a map (:data:`READINGS`), the threshold
and what else a baseline leaves open; test cases are scored. No model has seen either. ``WORK`` keeps the changes, so that a
stopped run goes on. Writes ``<o>.json``, ``<o>.md`` and docs/figures/brain-world.png.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

import counterscan
from counterscan import methods
from counterscan.attribution.peers import grad_cam
from counterscan.language import resolve
from counterscan.metrics.localisation import Curve, curve, dice
from counterscan.robustness.classifier import Classifier
from counterscan.robustness.fit import FitSettings, fit
from counterscan.training.brain import SIZE, patient
from counterscan.types import Edit
from counterscan.worlds.brain import CONTRASTS, change_mask

VALIDATION, TEST, CLASSIFIER = 820_000_000, 840_000_000, 830_000_000  # first seeds; training uses others
NOTHING = Edit("", "")
SHOWN = 8
LOOK = (-1, 1, 1, 1)  # lesions are dark on T1, and bright where they enhance, on T2 and on FLAIR
Maps = NDArray[np.float32]
Change = NDArray[np.float32]  # (n, contrasts, 64, 64), counterfactual minus factual


def absolute(change: Change) -> Maps:
    """The paper's: the absolute change, averaged over contrasts."""
    return np.abs(change).mean(1)


def as_lesions_look(change: Change) -> Maps:
    """Only what a lesion would have added: pushed tissue changes in both directions."""
    gone = -change * np.reshape(LOOK, (-1, 1, 1)) if change.shape[1] == len(LOOK) else change
    return np.clip(gone, 0, None).mean(1)


def read(change: Change, reading: str) -> Maps:
    """A change as maps (n, 64, 64), smoothed over so many pixels."""
    how, _, width = reading.rpartition(", ")
    return np.stack([ndimage.gaussian_filter(m, float(width)) for m in HOWS[how](change)])


HOWS: dict[str, Callable[[Change], Maps]] = {"absolute": absolute, "as lesions look": as_lesions_look}
READINGS = [f"{how}, {width}" for how in HOWS for width in (0.5, 1.0)]


class Cases:
    """``n`` patients: images without and with a lesion (n, 4, 64, 64) in [0, 1], lesion and change masks (n, 64, 64)."""

    def __init__(self, first: int, n: int) -> None:
        drawn = [patient(first + i) for i in range(n)]
        self.healthy, self.ill = (
            torch.from_numpy(np.stack([pair[k].image.transpose(2, 0, 1) for pair in drawn])) for k in (0, 1)
        )
        self.lesion = np.stack([case.lesion for _, case in drawn])
        self.change = np.stack([change_mask(*pair) for pair in drawn])
        self.findings = ["+".join(case.findings) for _, case in drawn]


def counterfactuals(method: Any, model: Any, images: torch.Tensor, edit: Edit, batch: int = 16) -> torch.Tensor:
    """What a method makes of images (n, 4, 64, 64)."""
    parts = []
    for part in images.split(batch):
        generators = [torch.Generator().manual_seed(0) for _ in part]
        parts.append(method(model, part, edit, generator=generators))
    return torch.cat(parts)


def classifier(folder: Path, n: int) -> Classifier:
    """A small classifier of lesions, trained on ``n`` other patients; kept in ``folder``."""
    if (folder / "classifier.json").exists():
        return Classifier.load(folder)
    cases = Cases(CLASSIFIER, n)
    pixels = torch.cat([cases.healthy, cases.ill]).permute(0, 2, 3, 1).numpy()
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        model = Classifier(["lesion"], channels=len(CONTRASTS), size=SIZE, width=16)
    targets = np.repeat(np.float32([0, 1]), n)[:, None]
    settings = FitSettings(epochs=8, seed=0)
    fit(model, (pixels * 255 + 0.5).astype(np.uint8), targets, settings)
    model.save(folder, {"data": f"{n} patients of the brain world, each with and without", "settings": repr(settings)})
    return Classifier.load(folder)


def changes_of(
    key: str, make: Callable[[str, torch.Tensor], Any], cases: dict[str, Cases], work: Path, model: Any
) -> tuple[dict[str, Change], dict[str, Any]]:
    """Changes of validation and test cases, and of test cases without a lesion, kept in ``work``; their cost an image."""
    path = work / f"{key}.npz"
    if not path.exists():
        began, spent = time.perf_counter(), model.evaluations
        images = {"val": cases["val"].ill, "test": cases["test"].ill, "healthy": cases["test"].healthy}
        made = {name: np.asarray(make(name, x), np.float32) for name, x in images.items()}
        count = sum(map(len, images.values()))
        cost = [(model.evaluations - spent) / count, (time.perf_counter() - began) / count]
        draft = work / f".{key}.npz"
        np.savez_compressed(draft, cost=np.array(cost), **made)
        draft.rename(path)
    with np.load(path) as kept:
        evaluations, seconds = kept["cost"]
        changes = {name: kept[name] for name in kept.files if name != "cost"}
    return changes, {"evaluations": round(float(evaluations)), "seconds": float(seconds)}


def pooled(maps: Maps, truth: NDArray[np.bool_], scale: float) -> Curve:
    """The curve of all pixels of several images."""
    curves = [curve(m, t, scale) for m, t in zip(maps, truth, strict=True)]
    return sum(curves[1:], curves[0])


def score(changes: dict[str, Change], cases: dict[str, Cases], reading: str) -> dict[str, Any]:
    """All figures of one row under one reading. Pixels are pooled, but for the means over cases."""
    maps = {name: read(change, reading) for name, change in changes.items()}
    scale = max(float(m.max()) for m in maps.values()) or 1.0
    out: dict[str, Any] = {"reading": reading}
    for truth in ("lesion", "change"):
        val, test = (pooled(maps[k], getattr(cases[k], truth), scale) for k in ("val", "test"))
        threshold, free = val.best()[1], test.otsu()
        out[truth] = {
            "auprc": test.auprc(),
            "auroc": test.auroc(),
            "dice": test.dice_at(threshold),
            "dice_best_on_test": test.best()[0],
            "dice_label_free": test.dice_at(free),
            "auprc_validation": val.auprc(),
            "threshold": threshold,
        }
    found = maps["test"] >= out["lesion"]["threshold"]
    out["dice_per_case"] = float(np.mean([dice(f, t) for f, t in zip(found, cases["test"].lesion, strict=True)]))
    out["false_alarms"] = float((maps["healthy"] >= out["lesion"]["threshold"]).mean())
    return out


def contenders(
    model: Any, judge: Classifier, cases: dict[str, Cases], steps: int
) -> dict[str, tuple[str, Callable[[str, torch.Tensor], Any]]]:
    """By name: what it is, and from images to changes. Of several "name @ setting", validation cases choose one."""
    edit = resolve(remove="lesion", card=model.card)

    def edited(method: Any, asked: Edit) -> Callable[[str, torch.Tensor], Any]:
        return lambda split, images: counterfactuals(method, model, images, asked) - images

    def cam(layer: int) -> Callable[[str, torch.Tensor], Any]:
        return lambda split, images: grad_cam(judge, judge.blocks[layer], images, 0)[:, None]

    def truth(split: str, images: torch.Tensor) -> Any:
        return (cases["val"] if split == "val" else cases["test"]).healthy - images

    default = methods.suited(model.card)
    made = {"counterfactual": (repr(default), edited(default, edit))}
    paper = methods.get("diff-scm", steps=steps)
    made["diff-scm"] = (f"the paper's settings, {steps} steps: ratio 0.75, w = 3, quantile 0.99", edited(paper, edit))
    there_and_back = methods.get("ddim", steps=steps, depth=0.75, guidance=1.0)
    made["reconstruction"] = (
        f"unconditional DDIM up and down, {steps} steps, ratio 0.75",
        edited(there_and_back, NOTHING),
    )
    for depth in (0.25, 0.5):
        what = f"random noise to {depth} of the chain, unconditional DDIM down, 20 steps"
        noised = methods.get("sdedit", steps=20, depth=depth, guidance=1.0)
        made[f"noised reconstruction @ {depth}"] = (what, edited(noised, NOTHING))
    for layer in (0, 1, 2):
        made[f"grad-cam @ {layer}"] = (f"block {layer} of a classifier trained here", cam(layer))
    made["exact twin"] = ("the true counterfactual: what no method can beat against the change", truth)
    return made


def chosen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a name: that with the best lesion AUPRC on validation cases."""
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        name = row["map"].split(" @ ")[0]
        if name not in best or row["lesion"]["auprc_validation"] > best[name]["lesion"]["auprc_validation"]:
            best[name] = row | {"map": name}
    return list(best.values())


def sheet(model: Any, cases: Cases, change: Change, row: dict[str, Any]) -> Image.Image:
    """The first test cases, unpicked: original, healthy counterfactual and exact twin in T1c and FLAIR; map, found, truth."""
    columns: list[tuple[str, Any]] = []
    for channel in (1, 3):
        name, ill = CONTRASTS[channel], cases.ill[:SHOWN, channel].numpy()
        columns += [(name, ill), ("healthy", ill + change[:SHOWN, channel]), ("exact", cases.healthy[:, channel])]
    maps = read(change[:SHOWN], row["reading"])
    columns += [("map", maps / maps.max()), ("found", maps >= row["lesion"]["threshold"]), ("lesion", cases.lesion)]
    side, head = 96, 20
    page = Image.new("L", (len(columns) * side, head + len(maps) * side), 255)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for column, (title, images) in enumerate(columns):
        draw.text((column * side + 4, 3), title, fill=0, font=font)
        for i in range(len(maps)):
            pixels = (np.clip(np.asarray(images[i], np.float32), 0, 1) * 255).round().astype(np.uint8)
            tile = Image.fromarray(pixels).resize((side - 2, side - 2), Image.Resampling.BICUBIC)
            page.paste(tile, (column * side + 1, head + i * side + 1))
    return page


def page(facts: dict[str, Any]) -> str:
    """The table as Markdown."""
    inner = [(t, k) for t in ("lesion", "change") for k in ("auprc", "dice", "dice_best_on_test", "dice_label_free")]
    head = ["map", *(f"{t}: {k.replace('_', ' ')}" for t, k in inner), "Dice per case", "false alarms", "evaluations"]
    head += ["read as", "what it is"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in facts["rows"]:
        cells = [row["map"], *(f"{row[t][k]:.3f}" for t, k in inner), f"{row['dice_per_case']:.3f}"]
        cells += [f"{row['false_alarms']:.4f}", str(row["evaluations"]), row["reading"], row["what"]]
        lines.append("| " + " | ".join(cells) + " |")
    words = (
        f"# Lesions of the brain world by {facts['model']}\n\n{facts['n']} unseen patients with a lesion, pixels pooled. "
        f"Lesions cover {facts['prevalence']['lesion']:.3f} of them and the exact change {facts['prevalence']['change']:.3f}, "
        f"which is the AUPRC of chance. Dice: at the threshold that is best on {facts['n_validation']} other patients; best "
        "on test; and by Otsu's threshold, without labels. False alarms: the share of pixels found in the healthy twins. "
        f"The classifier behind Grad-CAM is right in {facts['classifier_accuracy']:.3f} of the test images.\n\n"
    )
    return words + "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="brain-world")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("-n", type=int, default=64, help="test cases")
    parser.add_argument("--validation", type=int, default=32, help="validation cases")
    parser.add_argument("--steps", type=int, default=100, help="of the paper's recipe and of the reconstruction")
    parser.add_argument("--without", nargs="*", default=[], help="rows to leave out, by name")
    parser.add_argument("--patients", type=int, default=600, help="patients that the classifier is trained on")
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/brain-world.png"))
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results/brain"))
    o = parser.parse_args()
    model = counterscan.load(o.model, offline=True)
    work = o.work / f"{model.fingerprint}-{o.n}-{o.validation}"
    work.mkdir(parents=True, exist_ok=True)
    cases = {"val": Cases(VALIDATION, o.validation), "test": Cases(TEST, o.n)}
    judge = classifier(o.work / f"classifier-{o.patients}", o.patients)
    rows: list[dict[str, Any]] = []
    for name, (what, make) in contenders(model, judge, cases, o.steps).items():
        if name.split(" @ ")[0] in o.without:
            continue
        changes, cost = changes_of(f"{zlib.crc32(what.encode()):08x}", make, cases, work, model)
        rows += [{"map": name, "what": what, **score(changes, cases, reading), **cost} for reading in READINGS]
        print(json.dumps(chosen(rows)[-1]), file=sys.stderr, flush=True)
        if name == "counterfactual":
            shown = changes["test"]
    right = [judge.probabilities(getattr(cases["test"], k))[:, 0].numpy() > 0.5 for k in ("ill", "healthy")]
    facts = {
        "model": model.card.name, "fingerprint": model.fingerprint, "n": o.n, "n_validation": o.validation,
        "prevalence": {k: float(getattr(cases["test"], k).mean()) for k in ("lesion", "change")},
        "classifier_accuracy": float(np.mean([*right[0], *~right[1]])), "rows": chosen(rows), "tried": rows,
    }  # fmt: skip
    facts["summary"] = {"n": o.n} | {
        row["map"]: {t: {k: round(row[t][k], 4) for k in ("auprc", "dice")} for t in ("lesion", "change")}
        for row in facts["rows"]
    }
    o.o.parent.mkdir(parents=True, exist_ok=True)
    o.o.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n")
    o.o.with_suffix(".md").write_text(page(facts))
    o.figure.parent.mkdir(parents=True, exist_ok=True)
    sheet(model, cases["test"], shown, facts["rows"][0]).save(o.figure, optimize=True)
    print(page(facts))


if __name__ == "__main__":
    main()
