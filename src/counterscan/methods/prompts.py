"""What the methods share: which prompts an edit needs, and guided prediction between two of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from counterscan.backbones.base import Backbone
from counterscan.diffusion import guide
from counterscan.errors import WordsError
from counterscan.methods import Progress
from counterscan.types import Condition, Edit, Prediction


@dataclass(frozen=True)
class Prompts:
    """The embedded prompts of an edit, one row each.

    Guidance leads away from ``negative``: the source prompt, which is "" where nothing is known about the image. So
    an edit whose target is its source is not guided at all.
    """

    source: Condition
    target: Condition
    same: bool

    @staticmethod
    def of(backbone: Backbone, edit: Edit) -> Prompts:
        """Embed an edit's prompts."""
        both = backbone.embed([edit.source, edit.target])
        return Prompts(both[0], both[1], edit.is_null)

    @property
    def negative(self) -> Condition:
        """What guidance leads away from."""
        return self.source

    def towards_target(self, backbone: Backbone, z: Tensor, t: Tensor | int, weight: float) -> Prediction:
        """``negative + weight * (target - negative)``: two evaluations an image, or one if that is enough."""
        if self.same or weight in (0, 1):
            return backbone.predict(z, t, self.target if weight == 1 else self.negative)
        away, towards = predict_each(backbone, z, t, Condition.cat([self.negative, self.target]))
        return guide(away, towards, weight)


def predict_each(backbone: Backbone, z: Tensor, t: Tensor | int, conditions: Condition) -> list[Prediction]:
    """The predictions at ``z`` (B, c, h, w) under every one of n prompts, in one call: n evaluations an image."""
    rows, n = z.shape[0], len(conditions)
    every = backbone.predict(torch.cat([z] * n), t, conditions.repeat(rows))
    return [Prediction(c, e) for c, e in zip(every.clean.split(rows), every.noise.split(rows), strict=True)]


def add_up(base: Prediction, terms: Sequence[tuple[float, Prediction, Prediction]]) -> Prediction:
    """``base + Σ weight * (after - before)`` over terms of (weight, before, after)."""
    for weight, before, after in terms:
        base = Prediction(
            base.clean + weight * (after.clean - before.clean), base.noise + weight * (after.noise - before.noise)
        )
    return base


def check_settings(method: str, steps: int, depth: float, guidance: float) -> None:
    """Raises ``WordsError`` for settings no method can work with."""
    if not (isinstance(steps, int) and 1 <= steps <= 1000):
        raise WordsError(f"{method}: steps must be a whole number from 1 to 1000, got {steps!r}")
    if not 0 < depth <= 1:
        raise WordsError(f"{method}: depth must be above 0 and at most 1, got {depth!r}")
    if not 0 <= guidance <= 100:
        raise WordsError(f"{method}: guidance must be between 0 and 100, got {guidance!r}")


def ticker(progress: Progress | None, total: int) -> Callable[[], None]:
    """A function to call after every one of ``total`` steps."""
    steps = count(1)
    return lambda: tell(progress, next(steps), total)


def tell(progress: Progress | None, done: int, total: int) -> None:
    """Report progress where somebody listens."""
    if progress is not None:
        progress(done, total)
