"""Small studies on disk, and readers who see as much as they are told to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.stats import norm

from counterscan.imaging import from_array
from counterscan.reader.study import Study, read
from counterscan.reader.trials import Answer, Trial
from counterscan.result import Counterfactual
from counterscan.types import Change, Edit

CRITERIA = (-1.2, -0.6, 0.0, 0.6, 1.2)  # between the six ratings, around the middle of the two distributions


def images(folder: Path, count: int, start: int = 0) -> None:
    folder.mkdir(parents=True)
    y, x = np.indices((34, 40))
    for k in range(count):
        Image.fromarray(((y * 5 + x * 3 + (start + k) * 7) % 256).astype(np.uint8)).save(folder / f"{k:03d}.png")


def edits(folder: Path, count: int) -> None:
    """Edits whose change is the square of rows 4 to 12 and columns 20 to 28, of 40 x 40 pixels."""
    rng = np.random.default_rng(0)
    for k in range(count):
        before = (rng.random((40, 40)) * 255).astype(np.uint8)
        mask = np.zeros((40, 40), bool)
        mask[4:12, 20:28] = True
        after = np.where(mask, 255 - before, before).astype(np.uint8)
        change = Change(("pacemaker", "effusion")[k % 2], "remove")
        edit = Edit("a", "b", (change,))
        difference = (after.astype(np.float32) - before) / 255
        result = Counterfactual(from_array(before), from_array(after), difference, mask, edit, "ddim")
        result.save(folder, f"case{k}")


def study(folder: Path, tasks: str, more: str = "") -> Study:
    (folder / "study.yaml").write_text(f"title: A study\nseed: 3\nside: 64\n{more}tasks:\n{tasks}", encoding="utf-8")
    return read(folder / "study.yaml")


def rates(rng: np.random.Generator, trial: Trial, sees: float) -> Answer:
    """A rating of equal-variance evidence, ``sees`` standard deviations apart."""
    evidence = rng.normal((trial.case.truth - 0.5) * sees)
    return Answer(rating=1 + int(np.searchsorted(CRITERIA, evidence)), seconds=2.0)


def chooses(rng: np.random.Generator, trial: Trial, sees: float, prefers_left: float = 0.0) -> Answer:
    """A choice of the side with more evidence, or of the preferred one where they are near."""
    left = rng.normal(sees if trial.swapped else 0) + prefers_left
    right = rng.normal(0 if trial.swapped else sees)
    return Answer(choice=int(right > left))


def rated_area(sees: float) -> float:
    """The area under the ROC curve that six ratings leave of the evidence."""
    edges = np.array([-np.inf, *CRITERIA, np.inf])
    real, made = (np.diff(norm.cdf(edges - (k - 0.5) * sees)) for k in (0, 1))
    return float(sum(made[i] * (real[:i].sum() + real[i] / 2) for i in range(6)))
