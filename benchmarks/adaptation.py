"""What of a model has to change to go from one kind of image to another? One part at a time (Chambon et al. 2022).

    python benchmarks/adaptation.py NIH --steps 1500 --images 64 -o benchmarks/results/adaptation

``NIH`` is a folder of real radiographs with ``images/`` and ``metadata.csv``. From chest-world, which knows drawn ones, each part
learns the train split by ``configs/chambon-nih.yaml``, then draws ``--images`` with each finding and as many without. FID, KID:
to the test split, in the judge's features; of real images, between two halves. Accuracy, AUROC: does the judge, which no training
saw, find what the prompt says, and only then? What did not learn the new words is asked in those of chest-world. Runs stay in
``--work``: a stopped command goes on, and no finished part is done again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from counterscan import generate, imaging, load
from counterscan.data.manifest import Record, resolve, write
from counterscan.data.readers import open_layout
from counterscan.evaluate.fidelity import fidelity
from counterscan.imaging.files import replacing
from counterscan.language.phrase import phrase, prompt
from counterscan.robustness.classifier import Classifier
from counterscan.training import config
from counterscan.training.pictures import square
from counterscan.training.trainer import train

CONFIG = Path(__file__).parents[1] / "configs/chambon-nih.yaml"
START, JUDGE = "chest-world", "chest-nih-judge"
FINDINGS = "pleural effusion", "support devices"
TOKEN = "optimizer.rate=5e-3", "data.captions.source=caption", "token={word: <real>, start: world}"
PARTS: dict[str, tuple[str, ...]] = {  # how its prompts begin, and its settings: few parameters take a higher rate
    **{START: ("world",), "vae": ("world",), "unet": ("nih",), "text_encoder": ("nih",)},
    **{"lora": ("nih", "optimizer.rate=1e-3"), "token": ("<real>", *TOKEN)},
}
Asked = dict[tuple[str, bool], list[Path]]  # the images of a finding that is there, or not


def words(part: str, findings: dict[str, int | None]) -> str:
    """A prompt for the model of this part, of what is known to be there or not."""
    phrases = [phrase(name, absent=not findings[name]) for name in FINDINGS if findings.get(name) in (0, 1)]
    return prompt(phrases, template=f"{PARTS[part][0]} chest radiograph")


def drawn(model: str | Path, part: str, count: int, folder: Path) -> Asked:
    """``count`` images a question, of the same noise whatever the model."""
    backbone, questions = load(model), product(FINDINGS, (True, False))
    asked = {(name, there): [folder / f"{name}-{there}-{i:04d}.png" for i in range(count)] for name, there in questions}
    folder.mkdir(parents=True, exist_ok=True)
    for (name, there), paths in asked.items():
        if not all(map(Path.exists, paths)):
            pictures = generate(words(part, {name: there}), n=count, model=backbone)
            for picture, path in zip(pictures, paths, strict=True):
                imaging.write(picture, path, note={"model": part, "prompt": words(part, {name: there})})
    return asked


def agreement(judge: Classifier, asked: Asked) -> dict[str, float]:
    """How well the judge tells images with a finding from those without, both weighing the same."""
    row: dict[str, float] = {}
    for name in FINDINGS:
        images = [torch.stack([square(path, 1, judge.size) for path in asked[name, there]]) for there in (True, False)]
        yes, no = (judge.probabilities(part)[:, judge.labels.index(name)].numpy() for part in images)
        row[f"{name}: accuracy"] = float(((yes > 0.5).mean() + (no <= 0.5).mean()) / 2)
        row[f"{name}: AUROC"] = float(roc_auc_score([1] * len(yes) + [0] * len(no), np.concatenate([yes, no])))
    return row


def measured(part: str, o: argparse.Namespace, manifest: Path, test: list[Record]) -> list[dict[str, Any]]:
    """The row of a part; before that of the untrained model, the row of real images."""
    work, judge = manifest.parent / part, Classifier.load(JUDGE)
    fixed = [f"data.manifest={manifest}", f"output={work}", f"steps={o.steps}", "save_every=100", "samples.prompts=[]"]
    model = START if part == START else train(config.read(CONFIG, [*fixed, f"train={part}", *PARTS[part][1:]])).folder
    asked = drawn(model, part, o.images, images := work / f"images-{o.steps}-{o.images}")
    scores = fidelity(manifest, images, work / "fidelity", spaces=[JUDGE], split="test")["spaces"][0]["scores"]
    fid, kid = scores[f"FID/{JUDGE}"], scores[f"KID/{JUDGE}"]["value"]
    real = {(n, there): [resolve(manifest, r.path) for r in test if r.findings[n] == there] for n, there in asked}
    row = {"part": part, f"FID/{JUDGE}": fid["value"], "KID": kid} | agreement(judge, asked)
    floor = {"part": "real images", f"FID/{JUDGE}": fid["real_halves"], "KID": None} | agreement(judge, real)
    return [floor, row] if part == START else [row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nih", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--images", type=int, default=64, help="with each finding, and as many without")
    parser.add_argument("--work", type=Path, default=Path("runs/adaptation"))
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results/adaptation"))
    o = parser.parse_args()
    o.o.mkdir(parents=True, exist_ok=True)
    told = {"start": load(START).fingerprint, "steps": o.steps, "images": o.images, "judge": JUDGE}
    path, manifest = o.o / "results.json", o.work / told["start"][:8] / "nih.csv"  # another chest-world, other runs
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows: list[dict[str, Any]] = old["rows"] if old.get("told") == told else []
    found = open_layout("metadata", o.nih, manifest.parent)
    records = [replace(record, caption=words("token", record.findings)) for record in found.records]
    write(manifest, records, found.findings)
    for part in list(PARTS)[max(0, len(rows) - 1) :]:  # the first gives two rows
        rows += measured(part, o, manifest, [record for record in records if record.split == "test"])
        cells = [["" if v is None else v if isinstance(v, str) else f"{v:.3f}" for v in row.values()] for row in rows]
        lines = ["| " + " | ".join(line) + " |\n" for line in [list(rows[0]), ["---"] * len(rows[0]), *cells]]
        text = f"One part at a time, {o.steps} steps each; {o.images} images of each finding there and not.\n\n{''.join(lines)}"
        print(text, flush=True)
        for name, content in ((path, json.dumps({"told": told, "rows": rows}, indent=1)), (o.o / "results.md", text)):
            with replacing(name) as draft:
                draft.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
