"""Train a classifier on a manifest, plainly or against its groups, and score it by its worst group.

Group-DRO (Sagawa et al. 2020) is approximated by its online form on the sampler: after every epoch a group is drawn in
proportion to the exponential of its loss. ``balanced`` draws all groups equally.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from counterscan.errors import DataError
from counterscan.robustness.augment import known
from counterscan.robustness.classifier import Classifier
from counterscan.robustness.fit import FitSettings, as_images, fit

OBJECTIVES = ("plain", "balanced", "group-dro")
STEP = 1.0  # of the exponentiated gradient on the groups


def learn(
    rows: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    *,
    group: str | None = None,
    objective: str = "plain",
    epochs: int = 10,
    size: int = 192,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Classifier, dict[str, float]]:
    """Train on the rows of split ``train`` and score on those of ``test``: the classifier and its scores."""
    train = [row for row in rows if str(row.get("split") or "train") == "train"]
    test = [row for row in rows if row.get("split") == "test"]
    if not train or not test:
        raise DataError(
            f"the manifest has {len(train)} train and {len(test)} test rows; both are needed, see its column 'split'"
        )
    missing = [label for label in [*labels, *([group] if group else [])] if label not in train[0]]
    if missing:
        raise DataError(f"the manifest has no column {missing[0]!r}; it has {', '.join(train[0])}")
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        model = Classifier(labels, size=size)
    images, targets, groups = pixels(train, size), known_targets(train, labels), membership(train, labels[0], group)
    weight = np.ones(groups.max() + 1)
    for epoch in range(epochs):
        chance = None if objective == "plain" else (weight / np.bincount(groups, minlength=len(weight)).clip(1))[groups]
        # one cosine over all epochs would need the whole run in one call; a constant small rate serves the rounds
        settings = replace(FitSettings(seed=seed + epoch), epochs=1, rate=2e-3 * (1 - 0.9 * epoch / epochs))
        fit(model, images, targets, settings, chances=chance)
        if objective == "group-dro":
            weight = weight * np.exp(STEP * group_loss(model, images, targets, groups, len(weight)))
            weight /= weight.mean()
        if progress is not None:
            progress(epoch + 1, epochs)
    return model, scores(model, test, labels, group)


def pixels(rows: Sequence[Mapping[str, Any]], size: int) -> NDArray[np.uint8]:
    """Grey views (N, size, size), aspect kept."""
    from counterscan.imaging import fit as fit_square
    from counterscan.imaging import read

    out = np.empty((len(rows), size, size), np.uint8)
    for i, row in enumerate(rows):
        square, _ = fit_square(read(row["path"]).unit(), size)
        out[i] = ((square if square.ndim == 2 else square.mean(axis=2)) * 255).round()
    return out


def known_targets(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> NDArray[np.float32]:
    """(N, labels) of 1, 0 and NaN for what is not known."""
    values = [[known(row, label) for label in labels] for row in rows]
    return np.array([[np.nan if v is None else v for v in row] for row in values], np.float32)


def membership(rows: Sequence[Mapping[str, Any]], label: str, group: str | None) -> NDArray[np.int64]:
    """The number of each row's group: label (0, 1, unknown) by group (0, 1, unknown)."""

    def three(row: Mapping[str, Any], column: str) -> int:
        value = known(row, column)
        return 2 if value is None else value

    return np.array([three(row, label) + 3 * (three(row, group) if group else 0) for row in rows])


def group_loss(
    model: Classifier, images: NDArray[np.uint8], targets: NDArray[np.float32], groups: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Mean loss of the first label a group, over 400 images of each at most; 0 for empty groups."""
    out = np.zeros(count)
    for g in range(count):
        index = np.flatnonzero((groups == g) & ~np.isnan(targets[:, 0]))[:400]
        if len(index):
            p = model.probabilities(as_images(images[index]))[:, 0].numpy().clip(1e-4, 1 - 1e-4)
            y = targets[index, 0]
            out[g] = float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())
    return out


def scores(
    model: Classifier, rows: Sequence[Mapping[str, Any]], labels: Sequence[str], group: str | None
) -> dict[str, float]:
    """AUC a label, the worst AUC among values of the group column, and the calibration error of the first label."""
    p, y = model.probabilities(as_images(pixels(rows, model.size))).numpy(), known_targets(rows, labels)
    out = {}
    for k, label in enumerate(labels):
        if (value := _auc(p[:, k], y[:, k])) is not None:
            out[f"auc {label}"] = value
    if group:
        member = membership(rows, labels[0], group) // 3
        # the shortcut shows where positives WITHOUT the attribute meet negatives WITH it
        crossed = ((y[:, 0] == 1) & (member == 0)) | ((y[:, 0] == 0) & (member == 1))
        parts = [_auc(p[m, 0], y[m, 0]) for m in (member == 0, member == 1, crossed)]
        if known_parts := [v for v in parts if v is not None]:
            out["worst_group_auc"] = min(known_parts)
    valid = ~np.isnan(y[:, 0])
    out["calibration_error"] = calibration_error(p[valid, 0], y[valid, 0])
    return out


def _auc(p: NDArray[np.float32], y: NDArray[np.float32]) -> float | None:
    from sklearn.metrics import roc_auc_score

    valid = ~np.isnan(y)
    return float(roc_auc_score(y[valid], p[valid])) if len(np.unique(y[valid])) == 2 else None


def calibration_error(p: NDArray[np.float32], y: NDArray[np.float32], bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015) with equal-width bins."""
    which = np.minimum((p * bins).astype(int), bins - 1)
    gaps = [
        abs(p[which == b].mean() - y[which == b].mean()) * (which == b).mean()
        for b in range(bins)
        if (which == b).any()
    ]
    return float(sum(gaps))
