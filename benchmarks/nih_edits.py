"""Edits of real radiographs, judged by a classifier that no method sees: counterfactual prediction gain and pictures.

    python benchmarks/nih_edits.py NIH -o benchmarks/results/nih_edits

``NIH`` is the folder of real radiographs with ``images/`` and ``metadata.csv``; only its test split is used. The gain is the
judge's mean change towards what was asked, in probability, beside the same for the null edit (the words of the source on
both sides). Intervals are 95 % bootstraps over patients. There is no ground truth here: look at the sheets.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from counterscan import edit, generate, load
from counterscan.robustness.classifier import Classifier
from counterscan.training.radiographs import NIH_NAMES, nih_table

ASKED = (
    ("Support_Devices", "remove"),
    ("Effusion", "remove"),
    ("Pneumonia", "remove"),
    ("Infiltration", "remove"),
    ("Support_Devices", "add"),
    ("Effusion", "add"),
)
PROMPTS = (
    "nih chest radiograph, PA, female: no support devices.",
    "nih chest radiograph, AP, male: support devices.",
    "nih chest radiograph, AP, male: pleural effusion, support devices.",
    "nih chest radiograph, PA, male: cardiomegaly, no support devices.",
)


def pictures(folder: Path, column: str, direction: str, limit: int) -> list[dict[str, str]]:
    """Test rows whose label makes the question sensible."""
    wanted = ("1", "1.0") if direction == "remove" else ("0", "0.0")
    return [row for row in nih_table(folder, "test") if row.get(column) in wanted][:limit]


def tensor(images: list[np.ndarray]) -> torch.Tensor:
    """256-px views, float32 (B, 1, 256, 256)."""
    views = [
        np.asarray(Image.fromarray(x).resize((256, 256), Image.Resampling.LANCZOS), np.float32) / 255 for x in images
    ]
    return torch.from_numpy(np.stack(views))[:, None]


def interval(values: np.ndarray, patients: list[str], rng: np.random.Generator) -> tuple[float, float]:
    """95 % bootstrap of the mean, drawing patients."""
    groups = [values[[p == q for p in patients]] for q in dict.fromkeys(patients)]
    draws = [
        np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))]).mean() for _ in range(2000)
    ]
    return float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))


def question(backbone: Any, judge: Classifier, folder: Path, column: str, direction: str, limit: int) -> dict[str, Any]:
    """One line of the table, and the images of its sheet."""
    rows, name = pictures(folder, column, direction, limit), NIH_NAMES[column]
    paths = [folder / "images" / row["file"] for row in rows]
    words = {direction: [name]}
    results = edit(paths, **words, model=backbone)
    null = edit(paths, source=results[0].edit.source, target=results[0].edit.source, model=backbone)
    k = judge.labels.index(name)

    def told(images: list[np.ndarray]) -> np.ndarray:
        return judge.probabilities(tensor(images))[:, k].numpy()

    before = told([r.factual.pixels for r in results])
    sign = 1 if direction == "add" else -1
    gain = sign * (told([r.counterfactual.pixels for r in results]) - before)
    idle = sign * (told([r.counterfactual.pixels for r in null]) - before)
    patients, rng = [row["patient_id"] for row in rows], np.random.default_rng(0)
    low, high = interval(gain, patients, rng)
    facts = {"finding": name, "direction": direction, "n": len(rows), "judge_before": float(before.mean())}
    facts |= {"gain": float(gain.mean()), "gain_low": low, "gain_high": high, "gain_of_null_edit": float(idle.mean())}
    facts |= {"changed_area": float(np.mean([r.mask.mean() for r in results]))}
    facts |= {"mean_change": float(np.mean([np.abs(r.difference).mean() for r in results]))}
    return facts | {"results": results}


def sheet(results: list[Any], columns: int = 8) -> Image.Image:
    """Originals, counterfactuals and differences, one column a case, 256 px each."""
    page = Image.new("L", (256 * min(columns, len(results)), 768), 128)
    for i, r in enumerate(results[:columns]):
        for j, x in enumerate((r.factual.unit(), r.counterfactual.unit(), np.clip(0.5 + r.difference, 0, 1))):
            view = Image.fromarray((x * 255).astype(np.uint8)).resize((256, 256), Image.Resampling.LANCZOS)
            page.paste(view, (256 * i, 256 * j))
    return page


def samples(backbone: Any, steps: int = 30) -> Image.Image:
    """Four images of each prompt, one row a prompt."""
    page = Image.new("L", (4 * 256, len(PROMPTS) * 256))
    for j, words in enumerate(PROMPTS):
        for i, picture in enumerate(generate(words, n=4, steps=steps, model=backbone)):
            page.paste(Image.fromarray((picture.unit() * 255).astype(np.uint8)), (256 * i, 256 * j))
    return page


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nih", type=Path)
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results/nih_edits"))
    parser.add_argument("-n", type=int, default=144)
    parser.add_argument("--model", default="chest-nih")
    parser.add_argument("--judge", default="chest-nih-judge")
    o = parser.parse_args()
    backbone, judge = load(o.model), Classifier.load(o.judge)
    o.o.mkdir(parents=True, exist_ok=True)
    rows = []
    for column, direction in ASKED:
        row = question(backbone, judge, o.nih, column, direction, o.n)
        sheet(row.pop("results")).save(o.o / f"{direction}-{column}.jpg", quality=88)
        rows.append(row)
        print(json.dumps(row), flush=True)
    samples(backbone).save(o.o / "samples.jpg", quality=88)
    keys = list(rows[0])
    lines = ["| " + " | ".join(keys) + " |", "|" + " --- |" * len(keys)]
    lines += [
        "| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()) + " |" for row in rows
    ]
    facts = {"model": o.model, "fingerprint": backbone.fingerprint, "judge": judge.facts, "rows": rows}
    (o.o / "results.json").write_text(json.dumps(facts, indent=2) + "\n")
    (o.o / "results.md").write_text(
        f"# Edits of real radiographs, test split\n\n`{o.model}`\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
