"""Train a classifier on a manifest, plainly or against its groups, and score it by its worst group.

``balanced`` draws all groups equally often; ``group-dro`` does so too and weighs them by their loss, as its paper does
(Sagawa et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from counterscan.data.contrasts import files_of, read
from counterscan.errors import DataError, WordsError
from counterscan.robustness.augment import known
from counterscan.robustness.classifier import Classifier
from counterscan.robustness.fit import FitSettings, as_images, fit

OBJECTIVES = ("plain", "balanced", "group-dro")


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
        raise WordsError(f"the manifest has no column {missing[0]!r}; it has {', '.join(train[0])}")
    for label in labels:
        values = {known(row, label) for row in train}
        if not {0, 1} <= values:
            raise DataError(
                f"column {label!r} cannot be learned: its train rows are not both 1 (present) and 0 (absent)"
            )
    images, targets, groups = (
        pixels(train, size, channels_of(train)),
        known_targets(train, labels),
        membership(train, labels[0], group),
    )
    model = trained(images, targets, groups, labels, objective=objective, epochs=epochs, seed=seed, progress=progress)
    return model, scores(model, test, labels, group)


def trained(
    images: NDArray[np.uint8],
    targets: NDArray[np.float32],
    groups: NDArray[np.int64],
    labels: Sequence[str],
    *,
    objective: str = "plain",
    epochs: int = 10,
    seed: int = 0,
    width: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Classifier:
    """A classifier from nothing: images (N, S, S) or in colour (N, S, S, 3), targets (N, labels) with NaN for unknown, groups
    (N,) of any numbers.
    """
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        model = Classifier(labels, channels=3 if images.ndim == 4 else 1, size=images.shape[1], width=width)
    _, member, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return fit(
        model,
        images,
        targets,
        FitSettings(epochs=epochs, seed=seed),
        chances=None if objective == "plain" else (1 / counts)[member],
        groups=member if objective == "group-dro" else None,
        log=None if progress is None else lambda told: progress(int(told["step"]), int(told["of"])),
    )


def channels_of(rows: Sequence[Mapping[str, Any]]) -> int:
    """3 where the first image is one file in colour, otherwise 1."""
    files = files_of(rows[0])
    return 3 if len(files) == 1 and read(files.values()).unit().shape[2:] == (3,) else 1


def pixels(rows: Sequence[Mapping[str, Any]], size: int, channels: int = 1) -> NDArray[np.uint8]:
    """Views, aspect kept: grey (N, size, size), of colours and contrasts the mean, or with 3 ``channels`` (N, size, size, 3)."""
    from counterscan.imaging import fit as fit_square

    out = np.empty((len(rows), size, size, channels), np.uint8)
    for i, row in enumerate(rows):
        square, _ = fit_square(read(files_of(row).values()).unit(), size)
        view = square if square.ndim == 3 else square[..., None]
        out[i] = ((view if view.shape[2] == channels else view.mean(axis=2, keepdims=True)) * 255).round()
    return out[..., 0] if channels == 1 else out


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


def scores(
    model: Classifier, rows: Sequence[Mapping[str, Any]], labels: Sequence[str], group: str | None
) -> dict[str, float]:
    """AUC a label, the worst AUC among values of the group column, and the calibration error of the first label."""
    p, y = model.probabilities(as_images(pixels(rows, model.size, model.channels))).numpy(), known_targets(rows, labels)
    out = {}
    for k, label in enumerate(labels):
        if (value := auc(p[:, k], y[:, k])) is not None:
            out[f"auc {label}"] = value
    if group:
        worst = worst_group_auc(p[:, 0], y[:, 0], membership(rows, labels[0], group) // 3)
        if worst is not None:
            out["worst_group_auc"] = worst
    valid = ~np.isnan(y[:, 0])
    out["calibration_error"] = calibration_error(p[valid, 0], y[valid, 0])
    return out


def worst_group_auc(p: NDArray[Any], y: NDArray[Any], attribute: NDArray[Any]) -> float | None:
    """The least AUC among the images without the attribute (0), those with it (1), and the crossed group.

    The crossed group holds the positives WITHOUT the attribute and the negatives WITH it: there a shortcut misleads.
    All are (N,); ``None`` where no group holds both classes.
    """
    crossed = ((y == 1) & (attribute == 0)) | ((y == 0) & (attribute == 1))
    found = [auc(p[m], y[m]) for m in (attribute == 0, attribute == 1, crossed)]
    return min((value for value in found if value is not None), default=None)


def auc(p: NDArray[Any], y: NDArray[Any]) -> float | None:
    """The chance that a positive (y = 1) has the larger p than a negative (0), ties by half; NaN labels are left out."""
    from scipy.stats import rankdata

    positive, negative = int((y == 1).sum()), int((y == 0).sum())
    if not positive or not negative:
        return None
    known = ~np.isnan(y)
    above = rankdata(p[known])[y[known] == 1].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))


def calibration_error(p: NDArray[np.float32], y: NDArray[np.float32], bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015) with equal-width bins."""
    which = np.minimum((p * bins).astype(int), bins - 1)
    gaps = [
        abs(p[which == b].mean() - y[which == b].mean()) * (which == b).mean()
        for b in range(bins)
        if (which == b).any()
    ]
    return float(sum(gaps))
