"""A finding removed more than once: by every method, with every seed, and seen from a slightly moved frame.

A method that draws no random numbers gives the same answer for every seed, and says nothing of where it errs. So each look after
the first is at the image moved by a few pixels, whose change is moved back: what hangs on where the network's grid falls differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from counterscan.attribution.difference import Array, signed
from counterscan.errors import WordsError

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone
    from counterscan.imaging import Picture
    from counterscan.methods import Method, Progress
    from counterscan.result import Counterfactual

REACH = 1 / 48  # of the longer side: how far the image is moved
TURN = pi * (3 - 5**0.5)  # the golden angle, so that any number of looks is spread evenly


@dataclass(frozen=True)
class Look:
    """One removal: its signed ``map`` (H, W) in the image's own frame, and the ``result`` in the frame it was made in."""

    map: Array
    result: Counterfactual


def looks(
    pictures: Sequence[Picture],
    finding: str,
    methods: Sequence[str | Method | None],
    repeats: int,
    model: Backbone,
    seed: int,
    part: Callable[[int], Progress | None] = lambda k: None,
) -> list[list[Look]]:
    """For every picture its removals: every method with the seeds ``seed``, ``seed + 1``, …; ``part(k)`` hears of the k-th.

    Raises ``WordsError`` for fewer than one repeat.
    """
    from counterscan.editing import edit

    if repeats < 1:
        raise WordsError(f"repeats must be at least 1, got {repeats}")
    out: list[list[Look]] = [[] for _ in pictures]
    for number, (method, k) in enumerate((method, k) for method in methods for k in range(repeats)):
        shifts = [offset(k, picture.pixels.shape[:2]) for picture in pictures]
        frames = [picture.with_pixels(moved(picture.pixels, *at)) for picture, at in zip(pictures, shifts, strict=True)]
        asked: dict[str, Any] = {"method": method, "model": model, "seed": seed + k, "progress": part(number)}
        results = edit(frames, remove=[finding], **asked)
        for mine, result, (down, across) in zip(out, results, shifts, strict=True):
            mine.append(Look(moved(signed(result), -down, -across), result))
    return out


def offset(k: int, size: tuple[int, ...]) -> tuple[int, int]:
    """How far down and across look ``k`` of an image (H, W) is moved, in pixels; the first is not."""
    reach = REACH * max(size) if k else 0.0
    return round(reach * sin(k * TURN)), round(reach * cos(k * TURN))


def moved(image: NDArray[Any], down: int, across: int) -> NDArray[Any]:
    """``image`` (H, W[, C]) moved by whole pixels; what comes in repeats the border."""
    rows, columns = (np.arange(n) - by for n, by in zip(image.shape[:2], (down, across), strict=True))
    return image[rows.clip(0, image.shape[0] - 1)][:, columns.clip(0, image.shape[1] - 1)]
