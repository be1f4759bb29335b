"""Does what is learned serve? Findings are removed from held-out images while a model is trained, and what comes of it kept.

The scores of a step are a file of their own, ``validation/step-N.json``, beside the edits' pictures; those of the last step go
into the model's card. Nothing is chosen by them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from counterscan.errors import DataError, WordsError
from counterscan.training.config import Config
from counterscan.training.corpus import finding_name
from counterscan.training.state import write_text

if TYPE_CHECKING:
    from counterscan.backbones.card import Card
    from counterscan.imaging import Picture
    from counterscan.result import Counterfactual

MEASURES = ("gain", "flip_rate", "l1", "mask_auprc")


@dataclass(frozen=True)
class Trial:
    """A held-out image that has ``finding``, which is to be removed, and where it is, if that is known."""

    finding: str
    picture: Picture
    mask: Path | None


def trials(config: Config) -> list[Trial]:
    """The images of a validation, opened: of each finding the first of the split that have it. None without findings.

    Raises:
        DataError: no image of the split has a finding.
        ImageError: an image that cannot be read.
    """
    from counterscan.data.manifest import read, resolve
    from counterscan.imaging import read as opened

    asked, manifest, out = config.validation, config.data.manifest, list[Trial]()
    for name in map(finding_name, asked.findings):
        having = (
            record
            for record in read(manifest)
            if record.split == asked.split
            and any(value == 1 and finding_name(column) == name for column, value in record.findings.items())
        )
        chosen = list(islice(having, asked.images))
        if not chosen:
            raise DataError(
                f"{manifest}: no image of the split {asked.split!r} has {name}; set validation.split or "
                "validation.findings"
            )
        for record in chosen:
            mask = resolve(manifest, record.mask) if record.mask else None
            out.append(Trial(name, opened(resolve(manifest, record.path)), mask))
    return out


def check(backbone: Any, card: Card, config: Config) -> None:
    """Refuse, before any step, findings or a method that this model could not be asked for."""
    from counterscan.editing import edit

    with under(backbone, card):
        for name in config.validation.findings:
            edit([], remove=name, method=config.validation.method, model=backbone)


class Judge:
    """A classifier that scores edits, and for each finding which of its outputs tells."""

    def __init__(self, name: str, findings: Sequence[str]) -> None:
        from counterscan.language.vocabulary import DEVICES
        from counterscan.robustness.opening import open_classifier

        self.outputs = open_classifier(name)
        labels, names = list(self.outputs.labels), [finding_name(finding) for finding in findings]
        # a single device is told of by "support devices" where it has no output of its own
        told = {n: n if n in labels or n not in DEVICES else "support devices" for n in names}
        unknown = [n for n in names if told[n] not in labels]
        if unknown:
            raise WordsError(f"validation.judge: {name} knows no {', '.join(unknown)}; leave it out, or the finding")
        self.columns = {n: labels.index(label) for n, label in told.items()}

    def __call__(self, finding: str, result: Counterfactual) -> dict[str, float]:
        """How far the finding's probability fell, and whether it fell below ½ where it had been above."""
        from counterscan.robustness.study import probabilities

        seen = result.factual, result.counterfactual
        before, after = (float(probabilities(self.outputs, picture)[0, self.columns[finding]]) for picture in seen)
        return {"gain": before - after} | ({"flip_rate": float(after <= 0.5)} if before > 0.5 else {})


def validate(backbone: Any, card: Card, asked: Sequence[Trial], judge: Judge | None, config: Config, step: int) -> Path:
    """Remove the findings with the model as it is, under the card it will have; returns the file of the scores."""
    from counterscan.editing import edit

    getattr(backbone, "_prompts", {}).clear()  # what they became under the weights of an earlier step
    settings = {"model": backbone, "method": config.validation.method, "seed": config.seed}
    found: dict[str, Any] = {}
    for name in dict.fromkeys(trial.finding for trial in asked):
        some = [trial for trial in asked if trial.finding == name]
        with under(backbone, card):
            results = edit([trial.picture for trial in some], remove=name, **settings)
        rows = [scores(trial, result, judge) for trial, result in zip(some, results, strict=True)]
        found[name] = means(rows) | {"n": len(rows)}
        _picture(results, config.output / "validation" / f"step-{step:07d}-{name.replace(' ', '-')}.png")
    path = config.output / "validation" / f"step-{step:07d}.json"
    write_text(path, json.dumps({"step": step, "findings": found}, indent=1) + "\n")
    return path


def scores(trial: Trial, result: Counterfactual, judge: Judge | None) -> dict[str, float]:
    """One edit: the judge's ``gain`` and flip, how much changed (``l1``), and whether it changed where the finding is."""
    from sklearn.metrics import average_precision_score

    from counterscan.attribution.difference import signed, strength
    from counterscan.imaging.masks import mask_of

    row = {"l1": float(np.abs(result.difference).mean())} | (judge(trial.finding, result) if judge else {})
    truth = None if trial.mask is None else mask_of(trial.mask, result.mask.shape)
    if truth is not None and truth.any():
        row["mask_auprc"] = float(average_precision_score(truth.ravel(), strength(signed(result)).ravel()))
    return row


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every measure over the edits that have it."""
    known = {name: [row[name] for row in rows if name in row] for name in MEASURES}
    return {name: round(float(np.mean(values)), 5) for name, values in known.items() if values}


def last(config: Config) -> dict[str, Any]:
    """The scores of the last step as the card has them; empty where none were asked for."""
    path, asked = config.output / "validation" / f"step-{config.steps:07d}.json", config.validation
    if not asked.findings or not path.is_file():
        return {}
    told = {"split": asked.split, "judge": asked.judge, "method": asked.method}
    return {"validation": told | json.loads(path.read_text(encoding="utf-8"))}


@contextmanager
def under(backbone: Any, card: Card) -> Iterator[None]:
    """Inside, the model is spoken to as the card says."""
    kept, backbone.card = backbone.card, card
    try:
        yield
    finally:
        backbone.card = kept


def _picture(results: Sequence[Counterfactual], path: Path) -> None:
    """Factual, counterfactual and difference, one edit a row."""
    from PIL import Image

    rows = [result.figure(128) for result in results]
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)))
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    draft = path.with_name(f".{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(draft, format="PNG")
    os.replace(draft, path)
