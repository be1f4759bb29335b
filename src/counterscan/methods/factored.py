"""Factored guidance (Xia et al. 2025, "Decoupled Classifier-Free Guidance for Counterfactual Diffusion Models"): what
changes and what must stay each have a weight of their own.

One weight for a whole prompt amplifies all it says, and what a model saw together leaves together: the pacemaker goes with
the enlarged heart. Here the findings of ``edit.keep`` are asked for in a prompt of their own, beside those of the edit, on
``edit-friendly`` inversion::

    kept(x) = keep_guidance (network(x, "pacemaker") - network(x, ""))
    source  = network(x, source) + kept(x)
    target  = network(x, source) + guidance (network(x, target) - network(x, source)) + kept(x)

``kept`` is the gradient of log p(pacemaker | x): next to nothing where the finding is plain to see, strong where it is
fading. The residues are measured with it as well, so it leaves alone what the edit does not touch, pulls back what the edit
takes away, and the null edit is exact. Without findings to keep this is ``edit-friendly``.

Cost with k = steps * depth: 3k evaluations for the source, 4k for the target (3k for a null edit); k and 2k without ``keep``.
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
from counterscan.methods.edit_friendly import noisy_path, replay
from counterscan.methods.prompts import add_up, check_settings, predict_each, ticker
from counterscan.types import Edit, Prediction


@dataclass(frozen=True)
class Factored:
    """``steps``, ``depth``, ``guidance`` as in edit-friendly; ``keep_guidance`` weight of the findings to keep."""

    steps: int = 20
    depth: float = 0.9
    guidance: float = 4.0
    keep_guidance: float = 2.0
    name: ClassVar[str] = "factored"

    def __post_init__(self) -> None:
        check_settings(self.name, self.steps, self.depth, self.guidance)
        if not 0 <= self.keep_guidance <= 100:
            raise WordsError(f"{self.name}: keep_guidance must be between 0 and 100, got {self.keep_guidance!r}")

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
        tick = ticker(progress, 2 * len(times))
        path = noisy_path(backbone.schedule, backbone.encode(image), times, generator)
        template, keep = backbone.card.template, edit.keep
        kept = ["", prompt([phrase(finding) for finding in keep], template=template)] if keep else []
        plain = backbone.embed([edit.source, *kept])
        both = plain if edit.is_null else backbone.embed([edit.source, edit.target, *kept])

        def before(x: Tensor, t: int) -> Prediction:
            base, *pair = predict_each(backbone, x, t, plain)
            return add_up(base, [(self.keep_guidance, pair[0], pair[1])] if pair else [])

        def after(x: Tensor, t: int) -> Prediction:
            if edit.is_null:
                return before(x, t)
            base, target, *pair = predict_each(backbone, x, t, both)
            changed = add_up(base, [(self.guidance, base, target)])
            return add_up(changed, [(self.keep_guidance, pair[0], pair[1])] if pair else [])

        predictions = []
        for x, t in zip(path[:-1], times, strict=True):
            predictions.append(before(x, t))
            tick()
        return backbone.decode(replay(backbone.schedule, path, times, predictions, after, tick))
