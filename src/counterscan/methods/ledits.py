"""Several concepts at once, each where it belongs (Brack et al. 2024, "LEDITS++: Limitless Image Editing using Text-to-Image
Models"), on ``edit-friendly`` inversion.

Every change of the edit is a concept with a direction and an implicit mask of its own, the places where that direction is
strongest, found anew at every step::

    d(i)  = network(y, after(i)) - network(y, before(i))     "pacemaker" and "no pacemaker", in the order of the change
    m(i)  = |d(i)| summed over channels, at or above its own quantile
    x̂0, ε̂ = network(y, source) + guidance Σ m(i) d(i)
    y(t-) = mean(y(t), t, x̂0, ε̂) + r(t)

The paper's directions start at "no prompt" and its masks also ask the attention; here each starts at the opposite finding,
and the noise estimates alone say where, so that every family of models can do it. An edit of two prompts without named
changes is one concept. No concept (a null edit) is exact.

Cost with k = steps * depth and c concepts: k evaluations for the source, k (1 + 2c) for the target, less where prompts
repeat: one concept costs 2k with two prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from counterscan.backbones.base import Backbone
from counterscan.errors import WordsError
from counterscan.language.phrase import phrase, prompt
from counterscan.methods import Progress
from counterscan.methods.areas import strongest
from counterscan.methods.edit_friendly import noisy_path, predict_path, replay
from counterscan.methods.prompts import add_up, check_settings, predict_each, ticker
from counterscan.types import Change, Edit, Prediction


@dataclass(frozen=True)
class Ledits:
    """``steps``, ``depth``, ``guidance`` as in edit-friendly; ``quantile`` of the image that every concept leaves."""

    steps: int = 20
    depth: float = 0.9
    guidance: float = 4.0
    quantile: float = 0.7
    name: ClassVar[str] = "ledits"

    def __post_init__(self) -> None:
        check_settings(self.name, self.steps, self.depth, self.guidance)
        if not 0 <= self.quantile < 1:
            raise WordsError(f"{self.name}: quantile must be at least 0 and below 1, got {self.quantile!r}")

    @torch.no_grad()
    def __call__(
        self,
        backbone: Backbone,
        image: Tensor,
        edit: Edit,
        *,
        generator: torch.Generator | Sequence[torch.Generator],
        progress: Progress | None = None,
    ) -> Tensor:
        """See ``counterscan.methods.Method``."""
        times = backbone.schedule.timesteps(self.steps, self.depth).tolist()
        tick = ticker(progress, 1 + len(times))
        pairs = concepts(edit, backbone.card.template)
        words = list(dict.fromkeys([edit.source, *(word for pair in pairs for word in pair)]))
        conditions = backbone.embed(words)
        path = noisy_path(backbone.schedule, backbone.encode(image), times, generator)
        predictions = predict_path(backbone, path[:-1], times, conditions[0])
        tick()

        def towards(x: Tensor, t: int) -> Prediction:
            said = dict(zip(words, predict_each(backbone, x, t, conditions), strict=True))
            terms = [(self.guidance, *self._local(said[before], said[after])) for before, after in pairs]
            return add_up(said[edit.source], terms)

        return backbone.decode(replay(backbone.schedule, path, times, predictions, towards, tick))

    def _local(self, before: Prediction, after: Prediction) -> tuple[Prediction, Prediction]:
        """The pair with its difference outside the implicit mask taken away."""
        area = strongest(after.noise - before.noise, self.quantile)
        clean = torch.where(area, after.clean, before.clean)
        return before, Prediction(clean, torch.where(area, after.noise, before.noise))


def concepts(edit: Edit, template: str) -> list[tuple[str, str]]:
    """(prompt before, prompt after) of every change of an edit; its own two prompts where it names no changes."""
    if not edit.changes:
        return [] if edit.is_null else [(edit.source, edit.target)]
    return [_pair(change, template) for change in edit.changes]


def _pair(change: Change, template: str) -> tuple[str, str]:
    there = phrase(change.finding, side=change.side, place=change.place, severity=change.severity)
    with_it, without = (prompt([p], template=template) for p in (there, phrase(change.finding, absent=True)))
    return (with_it, without) if change.direction == "remove" else (without, with_it)
