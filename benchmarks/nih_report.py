"""``docs/nih.md`` in one command: a model on real radiographs, edits, maps, samples and privacy, with intervals.

    python benchmarks/nih_report.py NIH --model chest-nih --work WORK -o docs/nih.md

``NIH`` is a folder with ``images/``, ``metadata.csv`` and ``boxes.csv``. Edits and scores are of its test split only. ``WORK``
keeps everything that was computed: a stopped run goes on, a finished one only writes the page again. ``-n``,
``--maps`` and ``--samples`` make it smaller, for a trial.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import counterscan
from counterscan.data import manifest as manifests
from counterscan.data.readers import open_layout
from counterscan.evaluate.attribution import attribution
from counterscan.evaluate.edits import edits
from counterscan.evaluate.fidelity import fidelity
from counterscan.evaluate.page import best_median_worst, cell, thumbnail
from counterscan.evaluate.privacy import privacy
from counterscan.evaluate.truths import read_boxes, same_finding
from counterscan.generation import sample
from counterscan.imaging import from_array, read, write
from counterscan.language import resolve
from counterscan.language.phrase import prompt
from counterscan.metrics.axioms import composition, reversibility
from counterscan.metrics.intervals import interval, paired
from counterscan.result import Counterfactual
from counterscan.scale import batch

ASKED = (
    ("support devices", "remove"),
    ("support devices", "add"),
    ("pleural effusion", "remove"),
    ("pneumonia", "remove"),
    ("infiltration", "remove"),
)
CREDIT = (
    "Images: NIH Clinical Center, ChestX-ray14, https://nihcc.app.box.com/v/ChestXray-NIHCC; Wang et al., ChestX-ray8, CVPR "
    "2017. Counterfactual and generated images are synthetic. Not for diagnosis."
)
PER_PROMPT, STEPS = 4, 30
AXIOMS = 16  # images of the axioms
ENOUGH = 5  # boxes of a finding, for its false alarms to be worth the time


@dataclass(frozen=True)
class Run:
    """What the report is of, and where its parts lie."""

    nih: Path
    work: Path
    figures: Path
    model: str
    judge: str
    most: int | None
    maps: int
    samples: int

    @property
    def manifest(self) -> Path:
        """The whole data set."""
        return self.work / "manifest.csv"


def prepare(run: Run) -> list[manifests.Record]:
    """Write the manifest of the whole set; returns its test records."""
    run.work.mkdir(parents=True, exist_ok=True)
    if not run.manifest.exists():
        source = open_layout("metadata", run.nih, run.work)
        manifests.write(run.manifest, source.records, source.findings, source.contrasts)
    return [record for record in manifests.read(run.manifest) if record.split == "test"]


def edited(run: Run, records: Sequence[manifests.Record], backbone: Any) -> list[dict[str, Any]]:
    """Every question on the test images it makes sense for, beside the null edit of the same images."""
    out = []
    for finding, direction in ASKED:
        wanted = 1 if direction == "remove" else 0
        chosen = [r for r in records if r.findings.get(finding) == wanted][: run.most]
        name = f"{direction}-{finding.replace(' ', '-')}"
        listed = run.work / f"{name}.csv"
        manifests.write(listed, chosen, [finding])
        words: dict[str, Any] = {direction: [finding]}
        source = resolve(**{"remove": (), "add": ()} | {direction: (finding,)}, card=backbone.card).source
        folders = {kind: run.work / f"{name}-{kind}" for kind in ("edit", "null")}
        batch(listed, folders["edit"], model=run.model, **words)
        batch(listed, folders["null"], model=run.model, source=source, target=source)
        told = edits(
            [f"{k}={f}" for k, f in folders.items()], run.work / f"{name}-told", judge=run.judge, manifest=listed
        )
        figure(run, name, folders["edit"], run.work / f"{name}-told")
        out.append(
            {"finding": finding, "direction": direction, "told": told, "figure": f"{run.figures.name}/nih-{name}.jpg"}
        )
    return out


def figure(run: Run, name: str, folder: Path, told: Path) -> None:
    """Two best, two median and two worst edits by gain: original, counterfactual and difference, a column a case."""
    lines = [json.loads(line) for path in told.glob("work/edits-*.jsonl") for line in path.open()]
    lines = [line for line in lines if "error" not in line and folder.name in line["files"][0] and not line["null"]]
    saved = [Counterfactual.load(line["files"][0]) for line in lines]
    change = saved[0].edit.changes[0]
    column = label_of(run.judge, change.finding)
    sign = 1 if change.direction == "add" else -1
    gains = [sign * (line["after"][column] - line["before"][column]) for line in lines]
    places = [i for some in best_median_worst(gains, 2).values() for i in some]
    columns = []
    for i in places:
        one = saved[i]
        views = (one.factual.unit(), one.counterfactual.unit(), np.clip(0.5 + one.difference, 0, 1))
        columns.append(np.concatenate([tile(view) for view in views]))
    run.figures.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(columns, axis=1)).save(run.figures / f"nih-{name}.jpg", quality=88)


def tile(view: np.ndarray, side: int = 192) -> np.ndarray:
    """A grey picture of exactly ``side`` pixels a side."""
    small = thumbnail(view if view.ndim == 2 else view.mean(2), side)
    out = np.zeros((side, side), np.uint8)
    out[: small.shape[0], : small.shape[1]] = small
    return out


def axioms(run: Run, records: Sequence[manifests.Record], backbone: Any) -> dict[str, list[list[float]]]:
    """Distances, image by image, after 1, 2, 3 null edits, and after removing devices and adding them again, once and twice."""
    path = run.work / "axioms.json"
    if path.exists():
        return json.loads(path.read_text())
    chosen = [r for r in records if r.findings.get("support devices") == 1][: min(AXIOMS, run.most or AXIOMS)]
    pictures = [read(manifests.resolve(run.manifest, record.path)) for record in chosen]
    source = resolve(remove=("support devices",), add=(), card=backbone.card).source
    null = {"source": source, "target": source}
    kinds = {
        "composition": [[null]] * 3,
        "reversibility": [[{"remove": "support devices"}, {"add": "support devices"}]] * 2,
    }
    told: dict[str, list[list[float]]] = {}
    for name, rounds in kinds.items():
        now, stages = list(pictures), []
        for words in rounds:
            for asked in words:
                now = [result.counterfactual for result in counterscan.edit(now, **asked, model=backbone)]
            stages.append([picture.unit() for picture in now])
        measure = {"composition": composition, "reversibility": reversibility}[name]
        told[name] = [measure(p.unit(), [stage[i] for stage in stages]) for i, p in enumerate(pictures)]
    path.write_text(json.dumps(told | {"patients": [record.patient for record in chosen]}))
    return json.loads(path.read_text())


def told_axioms(told: dict[str, Any]) -> str:
    """The section of the axioms."""
    lines = []
    for name, words in (("composition", "null edits"), ("reversibility", "devices removed and added again")):
        for k in range(len(told[name][0])):
            values = [row[k] for row in told[name]]
            lines.append((name, f"{k + 1} x {words}", len(values), interval(values, told["patients"])))
    return table(("axiom", "after", "n", "mean absolute distance to the original"), lines)


def label_of(judge: str, finding: str) -> int:
    """The judge's output that tells of a finding."""
    from counterscan.evaluate.groups import column_of
    from counterscan.evaluate.spaces import open_space

    column = column_of(finding, open_space(judge).labels)
    assert column is not None, f"{judge} has no output for {finding}"
    return column


def mapped(run: Run, backbone: Any) -> list[dict[str, Any]]:
    """Maps of every finding that has boxes and that the model knows, against those boxes."""
    with (run.nih / "boxes.csv").open(newline="") as file:
        named = list(dict.fromkeys(row["finding"] for row in csv.DictReader(file)))
    out = []
    for name in named:
        known = [finding for finding in backbone.card.findings if same_finding(finding, name)]
        if not known:
            continue
        boxes, folder = run.nih / "boxes.csv", run.work / f"map-{known[0].replace(' ', '-')}"
        count = sum(len(at) for at in read_boxes(boxes, known[0]).values())
        limit = run.maps if count >= ENOUGH else count  # presence is asked only of findings that have several boxes
        told = attribution(
            run.manifest, folder, finding=known[0], model=run.model, judge=run.judge, boxes=boxes, validation="train",
            limit=limit,
        )  # fmt: skip
        with (folder / "images.jsonl").open() as file:
            images = [json.loads(line) for line in file]
        out.append({"finding": known[0], "boxes": count, "told": told, "images": images})
    return out


def generated(run: Run, records: Sequence[manifests.Record], backbone: Any) -> Path:
    """Images of prompts that say what the test images show, four a prompt, and their manifest."""
    folder, lines = run.work / "generated", [["path", "caption"]]
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for k, i in enumerate(rng.permutation(len(records))[: run.samples]):
        record = records[i]
        named = [name for name, value in record.findings.items() if value == 1 and name in backbone.card.findings]
        words = prompt(named, template=backbone.card.template, view=record.view or None, sex=record.sex or None)
        paths = [folder / f"{k:04d}-{j}.png" for j in range(PER_PROMPT)]
        if not all(path.exists() for path in paths):
            noise = [torch.Generator().manual_seed(1000 * k + j) for j in range(PER_PROMPT)]
            for path, image in zip(paths, sample(backbone, words, noise, steps=STEPS, guidance=2.0), strict=True):
                write(from_array(image[0].cpu().numpy()), path, note={"prompt": words, "model": backbone.card.name})
        lines += [[str(path.absolute()), words] for path in paths]
    manifest = run.work / "generated.csv"
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    shown = [tile(read(row[0]).unit()) for row in lines[1 : 1 + 4 * PER_PROMPT]]
    whole = [np.concatenate(shown[k : k + PER_PROMPT], axis=1) for k in range(0, len(shown), PER_PROMPT)]
    Image.fromarray(np.concatenate(whole)).save(run.figures / "nih-samples.jpg", quality=88)
    return manifest


def table(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown."""
    rows = [head, ["---"] * len(head), *([cell(value) for value in line] for line in lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def told_edits(parts: Sequence[dict[str, Any]]) -> str:
    """The section of the edits: gains beside those of the null edits, and what they mean."""
    lines, words = [], []
    for part in parts:
        rows = {row["source"]: row for row in part["told"]["rows"]}
        test = next(t for t in part["told"]["paired"] if t["measure"] == "gain")
        edit, null = rows["edit"], rows["null"]
        lines.append(
            (f"{part['direction']} {part['finding']}", edit["n"], edit["patients"], edit["gain"], null["gain"],
             test["difference"], test["p"], edit["flip_rate"], edit["l1"], edit["ssim"], edit["identity"])
        )  # fmt: skip
        gap = test["difference"]
        if test["p"] >= 0.05:
            words.append(
                f"{part['direction']} {part['finding']}: no effect on the judge that the null edit does not have "
                f"(p = {test['p']:.2g}, {edit['patients']} patients). The edit is too weak, the judge cannot see it, or both."
            )
        elif gap["mean"] < 0:
            words.append(f"{part['direction']} {part['finding']}: the edit moves the judge AWAY from what was asked.")
        elif gap["mean"] < 0.1:
            words.append(
                f"{part['direction']} {part['finding']}: more than the null edit, but by less than 0.1 of probability."
            )
    head = (
        "edit",
        "n",
        "patients",
        "gain",
        "gain of null edit",
        "difference",
        "p",
        "flip rate",
        "l1",
        "ssim",
        "identity",
    )
    figures = "".join(
        f"\n{part['direction'].capitalize()} {part['finding']}: two best, two median, two worst by gain; original, "
        f"counterfactual, difference.\n\n![]({part['figure']})\n"
        for part in parts
    )
    return table(head, lines) + "\n" + "".join(f"- {line}\n" for line in words) + figures


def told_maps(parts: Sequence[dict[str, Any]]) -> str:
    """The section of the maps: every finding, and all boxes together."""
    names = list(dict.fromkeys(row["map"] for part in parts for row in part["images"]))
    lines, pools = [], {}
    for name in names:
        pool = [row for part in parts for row in part["images"] if row["map"] == name]
        owners = [row["patient"] for row in pool]
        scores = {
            key: np.array([np.nan if row[key] is None else row[key] for row in pool])
            for key in ("auprc", "pointing", "boxes_iou")
        }
        pools[name] = (scores, owners)
        lines.append((name, len(pool), *(interval(values, owners) for values in scores.values())))
    out = table(("map, all boxed images", "n", "AUPRC", "pointing game", "IoU"), lines)
    for name in names[1:]:
        if len(pools[name][1]) == len(pools[names[0]][1]):
            test = paired(pools[names[0]][0]["auprc"], pools[name][0]["auprc"], pools[name][1])
            out += f"\n- {names[0]} less {name}: AUPRC {cell(test.difference)}, p = {test.p:.2g}"
    rows = [
        (
            part["finding"],
            row["map"],
            row["n"],
            row["auprc"],
            row["pointing"],
            row["boxes_iou"],
            row["false_alarms"],
            row["sensitivity"],
        )
        for part in parts
        for row in part["told"]["rows"]
    ]
    head = ("finding", "map", "n", "AUPRC", "pointing", "IoU", "false alarms", "sensitivity")
    notes = "".join(f"- {part['finding']}: {warning}\n" for part in parts for warning in part["told"]["warnings"])
    return f"{out}\n\n{table(head, rows)}\nFalse alarms were asked to be 5 %.\n\n{notes}"


def told_samples(told: dict[str, Any], figures: str) -> str:
    """The section of text-to-image samples."""
    lines = []
    for space in told["spaces"]:
        for name, score in space["scores"].items():
            more = {
                key: value
                for key, value in score.items()
                if key in ("limit", "real_halves", "deviation") and value is not None
            }
            facts = ", ".join(f"{key} {cell(value)}" for key, value in more.items())
            lines.append((name, score if "mean" in score else score["value"], facts))
    if told["diversity"]:
        lines.append((told["diversity"]["measure"], told["diversity"], ""))
    notes = "".join(f"- {warning}\n" for warning in told["warnings"])
    shown = f"A row a prompt, four samples each:\n\n![]({figures}/nih-samples.jpg)\n"
    return f"{table(('score', 'value', 'with'), lines)}\n{notes}\n{shown}"


def told_privacy(told: dict[str, Any]) -> str:
    """The section of the audit."""
    member = told["membership"]
    lines = [("copy rate", told["copy_rate"])] + [(k, v) for k, v in told.items() if k.startswith("near in features")]
    lines += [("membership AUROC (0.5: none)", member["auroc"]), ("members found at 1 %", member["found_at_1_percent"])]
    notes = "".join(f"- {warning}\n" for warning in told["warnings"])
    prompts = "".join(
        f"- reproduces a training image: {line['prompt']!r}, {line['copies']} of {line['images']}\n"
        for line in told["prompts"]
    )
    return f"{table(('rate', 'value'), lines)}\n{notes}{prompts}"


def write_page(run: Run, page: Path, backbone: Any, parts: dict[str, str], records: Sequence[manifests.Record]) -> None:
    """Put the sections together."""
    patients = len({record.patient for record in records})
    sizes = {"-n": run.most, "--maps": run.maps, "--samples": run.samples}
    asked = " ".join([f"--model {Path(run.model).name}", *(f"{k} {v}" for k, v in sizes.items() if v)])
    text = f"""# Real radiographs: {backbone.card.name}

Made by `python benchmarks/nih_report.py NIH {asked}`.
Model {backbone.card.name}, fingerprint {backbone.fingerprint}, method {backbone.card.default_method};
judge and peers {Path(run.judge).name}, which guided and chose no edit.
{len(records)} test images of {patients} patients of NIH ChestX-ray14; no patient is in
training and test. Intervals
are 95 % bootstraps by patient, p-values of sign-flip tests by patient. Definitions: [evaluation](evaluation.md).

What limits every number here: labels were mined from reports ("pneumonia" above all is noisy); support devices were labelled
by one visual review and go with the AP view; the judge is a small network trained on the same few hundred images as the
model, so it can share its mistakes; there are few patients.

## Edits

`gain` is the judge's mean move toward what was asked, in probability. The null edit asks for nothing with the same method:
what it gains is no effect.

{parts["edits"]}
## Axioms

How far an image is from the original after edits that should return it (0 is perfect; intensities from 0 to 1).

{parts["axioms"]}
## Maps against radiologists' boxes

The finding is removed; where the image changes is the map. Centre is a prior that sees no image: a map that is not above it
has found nothing but the middle of the chest. Thresholds of presence come from training images without the finding.

{parts["maps"]}
## Text-to-image samples

Prompts say of {run.samples} test images what their labels say, four samples each, against the test images.

{parts["samples"]}
## Privacy

{parts["privacy"]}
{CREDIT}
"""
    page.write_text(text, encoding="utf-8")


def main() -> None:
    """Compute what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nih", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("-o", type=Path, default=Path("docs/nih.md"))
    parser.add_argument("--model", default="chest-nih")
    parser.add_argument("--judge", default="chest-nih-judge")
    parser.add_argument("-n", type=int, help="images a question at most")
    parser.add_argument("--maps", type=int, default=40, help="mapped images of a kind at most")
    parser.add_argument("--samples", type=int, default=144, help="prompts")
    o = parser.parse_args()
    run = Run(o.nih.absolute(), o.work.absolute(), o.o.parent / "figures", o.model, o.judge, o.n, o.maps, o.samples)
    run.figures.mkdir(parents=True, exist_ok=True)
    backbone = counterscan.load(run.model, offline=True)
    records = prepare(run)
    parts = {"edits": told_edits(edited(run, records, backbone)), "maps": told_maps(mapped(run, backbone))}
    parts["axioms"] = told_axioms(axioms(run, records, backbone))
    made = generated(run, records, backbone)
    like = fidelity(run.manifest, made, run.work / "fidelity", spaces=(run.judge,), split="test")
    parts["samples"] = told_samples(like, run.figures.name)
    audit = privacy(made, run.manifest, run.work / "privacy", space=run.judge, model=run.model)
    parts["privacy"] = told_privacy(audit)
    write_page(run, o.o, backbone, parts, records)


if __name__ == "__main__":
    main()
