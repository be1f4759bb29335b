r"""A page in one command: does a model draw what real images' prompts ask for?

    python benchmarks/prompted.py gi.csv --model runs/gi --work WORK -o gi.md \
        --labels "polyp, instrument, ulcerative colitis, oesophagitis" --remove polyp
    python benchmarks/prompted.py brain.csv --model runs/brain-t1c --test val --work WORK -o brain-t1c.md \
        --labels "meningioma|glioma|pituitary tumour, image left|midline|image right, upper third|middle third|lower third"

A classifier learns the labels from the train split: columns of the manifest, or words of its captions; of alternatives, joined
by ``|``, one holds. Every wording of the test split that names a label is drawn once, and the classifier says whether the image
shows it. The same images are compared with the real ones of the split, beside as many real ones of the train split. With
``--remove`` the maps of a removal are compared with the masks of the test split. ``WORK`` keeps what was computed: a stopped run
goes on.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nih_report import table
from PIL import Image

import counterscan
from counterscan import generation, load
from counterscan.data import manifest as manifests
from counterscan.evaluate.attribution import attribution
from counterscan.evaluate.fidelity import fidelity
from counterscan.evaluate.page import cell
from counterscan.imaging import fit, from_array, read, write
from counterscan.language.captions import mentions
from counterscan.metrics.intervals import interval
from counterscan.robustness.classifier import Classifier
from counterscan.robustness.learning import learn

BATCH, SHOWN, SIDE = 8, 24, 160
SEPARATOR = " || "


@dataclass(frozen=True)
class Asked:
    """A prompt of a test image, and of each label that it names the group of alternatives to choose from."""

    words: str
    record: manifests.Record
    named: tuple[tuple[str, tuple[str, ...]], ...]


def groups_of(text: str) -> list[tuple[str, ...]]:
    """``"a, b | c"`` → ``[("a",), ("b", "c")]``."""
    return [tuple(name.strip() for name in part.split("|")) for part in text.split(",")]


def holds(record: manifests.Record, group: tuple[str, ...], label: str) -> bool:
    """Whether the image has the label: of alternatives by its caption, otherwise by its column."""
    return label in record.caption.lower() if len(group) > 1 else record.findings.get(label) == 1


def names(words: str, record: manifests.Record, group: tuple[str, ...], label: str) -> bool:
    """Whether a wording says that the label is there."""
    if len(group) > 1:
        return label in words.lower()
    return any(m.finding == label and m.present for m in mentions(words, tuple(record.findings)))


def questions(records: Sequence[manifests.Record], groups: Sequence[tuple[str, ...]]) -> list[Asked]:
    """For every test image and label that it has, the first of its wordings that names it; equal ones of an image once."""
    out: dict[tuple[str, str], Asked] = {}
    for record in records:
        wordings = [part.strip() for part in record.caption.split(SEPARATOR)]
        for group in groups:
            for label in group:
                chosen = [w for w in wordings if names(w, record, group, label)] if holds(record, group, label) else []
                if chosen:
                    told = tuple((n, g) for g in groups for n in g if names(chosen[0], record, g, n))
                    out[record.path, chosen[0]] = Asked(chosen[0], record, told)
    return list(out.values())


def judge_of(
    folder: Path, records: Sequence[manifests.Record], groups: Sequence[tuple[str, ...]], test: str, epochs: int
) -> tuple[Classifier, dict[str, float]]:
    """The classifier of the labels and its scores on the test split; trained where the folder has none."""
    for group in groups:
        for label in group:
            if not any(holds(r, group, label) for r in records):
                raise SystemExit(f"--labels: no image has {label!r}")
    if not (folder / "model.safetensors").exists():
        splits = {"train": "train", test: "test"}
        rows = [
            {"path": r.path, "split": splits[r.split]} | {n: int(holds(r, g, n)) for g in groups for n in g}
            for r in records
            if r.split in splits
        ]
        labels = [name for group in groups for name in group]
        model, scores = learn(rows, labels, epochs=epochs, size=160)
        model.save(folder, {"scores": scores, "epochs": epochs})
    model = Classifier.load(folder)
    return model, dict(model.facts["scores"])


def drawn(asked: Sequence[Asked], backbone: Any, folder: Path, steps: int, guidance: float) -> list[Path]:
    """An image a prompt; those of the same model, prompts and settings that are there are kept."""
    card = backbone.card
    told = repr(
        (backbone.fingerprint, card.generate_by, card.method_settings, [a.words for a in asked], steps, guidance)
    )
    folder = folder / hashlib.sha256(told.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{k:04d}.png" for k in range(len(asked))]
    missing = [k for k, path in enumerate(paths) if not path.exists()]
    for start in range(0, len(missing), BATCH):
        some = missing[start : start + BATCH]
        noise = [torch.Generator().manual_seed(k) for k in some]
        images = generation.drawn(backbone, [asked[k].words for k in some], noise, steps=steps, guidance=guidance)
        for k, image in zip(some, images, strict=True):
            pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
            note = {"prompt": asked[k].words, "model": backbone.card.name}
            write(from_array(pixels.cpu().numpy()), paths[k], note=note)
        print(f"drawn {some[-1] + 1} of {len(asked)}", flush=True)
    return paths


def listed(path: Path, rows: Sequence[tuple[str, str, str]]) -> Path:
    """A manifest of images, their patients and captions."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "patient", "caption"), *rows])
    return path


def agreement(asked: Sequence[Asked], paths: Sequence[Path], judge: Classifier) -> dict[str, Any]:
    """The share of named labels that the judge sees, each and all; of alternatives it has to choose the right one."""
    column = {label: k for k, label in enumerate(judge.labels)}
    told: dict[str, list[tuple[float, str]]] = {}
    for one, path in zip(asked, paths, strict=True):
        unit = fit(read(path).unit(), judge.size)[0]
        image = torch.from_numpy(unit if unit.ndim == 3 else unit[..., None]).permute(2, 0, 1)[None].float()
        p = judge.probabilities(image)[0].numpy()
        for label, group in one.named:
            others = [column[name] for name in group]
            right = p[column[label]] == p[others].max() if len(group) > 1 else p[column[label]] > 0.5
            for key in (label, "all"):
                told.setdefault(key, []).append((float(right), one.record.patient or one.record.path))
    return {label: interval(*zip(*some, strict=True)) for label, some in told.items()}


def shown(count: int) -> list[int]:
    """The prompts that are shown, of ``count``: whole rows of 8."""
    return [int(k) for k in np.linspace(0, count - 1, min(SHOWN, count) // 8 * 8)]


def sheet(asked: Sequence[Asked], paths: Sequence[Path], path: Path) -> None:
    """Pairs of a real test image (above) and what was drawn for its prompt (below)."""
    tiles = []
    for k in shown(len(asked)):
        pair = [read(source).unit() for source in (asked[k].record.path, paths[k])]
        tiles.append(np.concatenate([tile(view) for view in pair]))
    rows = [np.concatenate(tiles[i : i + 8], axis=1) for i in range(0, len(tiles), 8)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path, quality=85)


def tile(view: np.ndarray) -> np.ndarray:
    """A square picture of ``SIDE`` pixels in three colours."""
    square = (fit(view, SIDE)[0] * 255).round().astype(np.uint8)
    return square if square.ndim == 3 else np.repeat(square[..., None], 3, axis=2)


def removed(o: argparse.Namespace, judge: Path, figures: Path) -> str:
    """The section of the removal's maps against masks, beside those of the judge."""
    finding = o.remove
    told = attribution(
        o.work / "manifest.csv", o.work / f"map-{finding}", finding=finding, model=o.model, judge=str(judge),
        validation="val", test=o.test, limit=o.limit,
    )  # fmt: skip
    keys = ("map", "n", "auprc", "dice_validation", "pointing", "false_alarms", "sensitivity")
    head = ("map", "n", "AUPRC", "Dice (threshold of val)", "pointing", "false alarms", "sensitivity")
    lines = [[row.get(key) for key in keys] for row in told["rows"]]
    tests = [t for t in told["paired"] if t["measure"] == "auprc"]
    notes = [f"AUPRC of {t['a']} less that of {t['b']}: {cell(t['difference'])}, p = {t['p']:.2g}" for t in tests]
    results = {"rows": told["rows"], "paired": told["paired"], "n": told["n"]}
    (o.work / "removal.json").write_text(json.dumps(results, indent=1, default=str) + "\n")
    records = [r for r in manifests.read(o.work / "manifest.csv") if r.split == o.test and r.findings.get(finding) == 1]
    chosen = records[:: max(len(records) // 8, 1)][:8]
    edits = counterscan.edit([Path(r.path) for r in chosen], remove=finding, model=o.model)
    columns = []
    for one in edits:
        change = np.abs(one.difference)
        change = change.max(2) if change.ndim == 3 else change
        views = (one.factual.unit(), one.counterfactual.unit(), np.clip(2 * change, 0, 1))
        columns.append(np.concatenate([tile(view) for view in views]))
    name = f"{o.page.stem}-remove.jpg"
    Image.fromarray(np.concatenate(columns, axis=1)).save(figures / name, quality=85)
    shown = f"Eight test images: original, without {finding}, change (twice as strong).\n\n![]({figures.name}/{name})\n"
    bullets = "".join(f"- {note}\n" for note in [*notes, *told["warnings"]])
    title = f"## {finding.capitalize()} removed\n\n{table(head, lines)}\nFalse alarms were asked to be 5 %."
    return f"{title}\n\n{bullets}\n{shown}\n"


def likeness(real: Path, generated: Path, near: Path, folder: Path, judge: Path) -> str:
    """Distances of drawn images from real ones, beside those of as many other real ones."""
    told = {
        name: fidelity(real, some, folder / name, spaces=[str(judge)])["spaces"][0]["scores"]
        for name, some in (("drawn", generated), ("real", near))
    }
    scalar = lambda score: score if "mean" in score else score["value"]  # noqa: E731
    lines = [(name.split("/")[0], *(scalar(told[kind][name]) for kind in ("drawn", "real"))) for name in told["drawn"]]
    return table(("score", "drawn", "real images of the train split"), lines)


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--labels", required=True)
    parser.add_argument("--remove", help="a finding with masks")
    parser.add_argument("--test", default="test", help="the split that is asked about")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("-o", "--page", type=Path, required=True)
    parser.add_argument("-n", "--most", type=int, default=240, help="prompts")
    parser.add_argument("--limit", type=int, help="images with and without the finding whose maps are made")
    parser.add_argument("--epochs", type=int, default=30, help="of the classifier")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=3.0)
    o = parser.parse_args()
    o.work.mkdir(parents=True, exist_ok=True)
    groups, figures = groups_of(o.labels), o.page.parent / "figures"
    records = [replace(r, path=str(manifests.resolve(o.manifest, r.path).absolute()),
                       mask=str(manifests.resolve(o.manifest, r.mask).absolute()) if r.mask else "")
               for r in manifests.read(o.manifest)]  # fmt: skip
    manifests.write(o.work / "manifest.csv", records, tuple(records[0].findings))
    judge, scores = judge_of(o.work / "judge", records, groups, o.test, o.epochs)
    backbone, test = load(o.model), [r for r in records if r.split == o.test]
    asked = questions(test, groups)
    asked = [asked[k] for k in np.random.default_rng(0).permutation(len(asked))[: o.most]]
    paths = drawn(asked, backbone, o.work / "drawn", o.steps, o.guidance)
    agreed, on_real = agreement(asked, paths, judge), agreement(asked, [Path(a.record.path) for a in asked], judge)
    sheet(asked, paths, figures / f"{o.page.stem}-prompts.jpg")
    other = [r for r in records if r.split == "train"]
    other = [other[k] for k in np.random.default_rng(1).permutation(len(other))[: len(asked)]]
    like = likeness(
        listed(o.work / "real.csv", [(r.path, r.patient, "") for r in test]),
        listed(o.work / "drawn.csv", [(str(p.absolute()), str(k), asked[k].words) for k, p in enumerate(paths)]),
        listed(o.work / "near.csv", [(r.path, r.patient, "") for r in other]),
        o.work / "like",
        o.work / "judge",
    )
    lines = [
        (label, found.n, found, on_real[label], scores.get(f"auc {label}", ""))
        for label, found in sorted(agreed.items(), key=lambda row: row[0] == "all")
    ]
    head = ("label", "prompts", "agreement", "agreement on the real images", "AUC of the classifier")
    maps = removed(o, o.work / "judge", figures) if o.remove else ""
    words = "\n".join(f"{k + 1}. {asked[i].words}" for k, i in enumerate(shown(len(asked))))
    o.page.write_text(
        f"""# The model `{backbone.card.name}`

Written by `benchmarks/prompted.py`. In brackets: 95 %. Images are synthetic. Not for diagnosis.

{backbone.card.credit}

## What its prompts ask for

{len(asked)} prompts of the {len(test)} images of the {o.test} split, {o.steps} steps, guidance {o.guidance:g}. The classifier
is trained on the real images of the train split, and asked about those of the {o.test} split as well.

{table(head, lines)}
Each pair: a real image above, below what the model draws for one of its prompts.

![](figures/{o.page.stem}-prompts.jpg)

{words}

## Likeness

In the classifier's features, against the {len(test)} real images of the {o.test} split.

{like}
{maps}""",
        encoding="utf-8",
    )
    print(o.page.read_text())


if __name__ == "__main__":
    main()
