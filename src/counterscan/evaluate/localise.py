"""Scores of maps against truths, image by image, from maps on disk; nothing grows with the number of images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.attribution.difference import regions
from counterscan.metrics.localisation import Curve, boxes_iou, curve, energy_inside, pointing_game

TOLERANCE = 0.03  # of the longer side: the 15 of about 500 pixels of the pointing game's paper
MEASURES = (
    "auprc", "auroc", "dice_validation", "dice_best", "dice_label_free", "boxes_iou", "pointing", "energy",
)  # fmt: skip


@dataclass(frozen=True)
class Located:
    """One image whose finding is known to be where ``truth`` is; ``maps`` is the file of its maps."""

    maps: Path
    truth: NDArray[np.bool_]
    boxes: Sequence[tuple[float, float, float, float]]


def load_map(path: Path, name: str) -> NDArray[np.float32]:
    """One map (H, W) of an image."""
    with np.load(path, allow_pickle=False) as file:
        return np.asarray(file[name], np.float32)


def pooled(images: Iterable[Located], name: str, scale: float) -> Curve | None:
    """The curve of all pixels of all images; ``None`` where there are none."""
    curves = (curve(load_map(image.maps, name), image.truth, scale) for image in images)
    first = next(curves, None)
    return None if first is None else reduce(add, curves, first)


def scores(image: Located, name: str, scale: float, chosen: float | None, best: float) -> dict[str, float]:
    """All measures of one image. ``chosen`` is the threshold that validation images gave, ``best`` the one of the test images."""
    heat = load_map(image.maps, name)
    one = curve(heat, image.truth, scale)
    longer = max(heat.shape)
    cut = best if chosen is None else chosen
    found = [(float(a), float(b), float(c), float(d)) for a, b, c, d in (r.box for r in regions(heat >= cut, heat))]
    return {
        "auprc": one.auprc(),
        "auroc": one.auroc(),
        "dice_validation": float("nan") if chosen is None else one.dice_at(chosen),
        "dice_best": one.dice_at(best),
        "dice_label_free": one.dice_at(one.otsu()),
        "boxes_iou": boxes_iou(found, image.boxes),
        "pointing": float(pointing_game(heat, image.truth, TOLERANCE * longer)),
        "energy": energy_inside(np.maximum(heat, 0), image.truth),
    }


def error_ranking(image: Located, name: str, cut: float) -> float:
    """The chance that the spread is larger at a pixel that the map has wrong than at a right one; NaN without both."""
    wrong = (load_map(image.maps, name) >= cut) != image.truth
    spread = load_map(image.maps, "spread")
    return curve(spread, wrong, max(float(spread.max()), 1e-12)).auroc()


def boxes_of(truth: NDArray[Any]) -> list[tuple[float, float, float, float]]:
    """The boxes of a mask's connected parts."""
    found = regions(truth, truth.astype(np.float32))
    return [(float(a), float(b), float(c), float(d)) for a, b, c, d in (region.box for region in found)]
