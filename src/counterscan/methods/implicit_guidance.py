"""Healthy counterfactuals by implicit guidance (Sanchez et al. 2022, "What is Healthy? Generative Counterfactual Diffusion
for Lesion Localization"; Diff-SCM).

Abduction knows nothing about the image: DDIM upwards without a prompt, to the share ``depth`` of the chain (the paper's
progression ratio). Action leads from "no prompt" to the target, and every estimate of the clean image is brought back into
range, channel by channel::

    up    x(t+) = s(t+) x̂0 + n(t+) ε̂,        x̂0, ε̂ = network(x(t), t+, "")
    down  x̂0, ε̂ = "" + guidance (target - "")
          x̂0 ← clip(x̂0, ±q) f / q,           q = max(f, quantile of |x̂0| over space),  ε̂ = (x - s x̂0) / n

``f`` is 1, as in the paper, or the largest value of the image's own latent in that channel where that is more. With a
``classifier(x, t)`` that gives the log-probability (B,) of the target at a noisy latent, its gradient joins in, weighted by
``classifier_scale``: ``x̂0 += scale n² / s ∇ log p``, which is ``ε̂ -= scale n ∇ log p``. With ``guidance`` 0 it is the classifier
alone that knows the target, so that unconditional models work too.

Cost with k = steps * depth: k evaluations up, 2k down (k for a null edit or guidance 0). No random numbers; the null edit
is close to the image and not exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from counterscan.backbones.base import Backbone
from counterscan.diffusion import column, ddim_step, guide, into_range
from counterscan.errors import WordsError
from counterscan.methods import Progress
from counterscan.methods.ddim import downwards, invert
from counterscan.methods.prompts import check_settings, predict_each, ticker
from counterscan.types import Condition, Edit, Prediction

Classifier = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class ImplicitGuidance:
    """``depth`` is the progression ratio, ``quantile`` that of the dynamic normalisation (1 only clips nothing)."""

    steps: int = 50
    depth: float = 0.75
    guidance: float = 3.0
    quantile: float = 0.99
    classifier_scale: float = 0.0
    classifier: InitVar[Classifier | None] = None  # no field: a network is not a setting that could be written down
    name: ClassVar[str] = "implicit-guidance"

    def __post_init__(self, classifier: Classifier | None) -> None:
        check_settings(self.name, self.steps, self.depth, self.guidance)
        if not 0 < self.quantile <= 1:
            raise WordsError(f"{self.name}: quantile must be above 0 and at most 1, got {self.quantile!r}")
        if self.classifier_scale and classifier is None:
            raise WordsError(f"{self.name}: classifier_scale without a classifier; give classifier=, or leave it 0")
        object.__setattr__(self, "classifier", classifier)

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
        """See ``counterscan.methods.Method``. ``generator`` is not used: the method is deterministic."""
        times = backbone.schedule.timesteps(self.steps, self.depth).tolist()
        tick = ticker(progress, 2 * len(times))
        pair, z = backbone.embed(["", edit.target] if self.guidance else [""]), backbone.encode(image)
        reach = z.abs().amax((2, 3)).clamp(min=1)
        x = invert(backbone, z, times, pair[0], tick)[0]
        for t, below in downwards(times):
            prediction = self._towards(backbone, x, t, pair, edit.is_null)
            signal, noise = backbone.schedule.coefficients(t)
            clean = into_range(prediction.clean, self.quantile, reach)
            prediction = Prediction(clean, (x - signal * clean) / noise.clamp(min=1e-8))
            x = ddim_step(prediction, *backbone.schedule.coefficients(below))
            tick()
        return backbone.decode(x)

    def _towards(self, backbone: Backbone, x: Tensor, t: int, pair: Condition, null: bool) -> Prediction:
        if null:
            return backbone.predict(x, t, pair[0])
        away, *towards = predict_each(backbone, x, t, pair)
        prediction = guide(away, towards[0], self.guidance) if towards else away
        if not self.classifier_scale:
            return prediction
        signal, noise = (column(c, x) for c in backbone.schedule.coefficients(t))
        push = self.classifier_scale * noise * _gradient(vars(self)["classifier"], x, t)
        return Prediction(prediction.clean + noise / signal.clamp(min=1e-8) * push, prediction.noise - push)


def _gradient(classifier: Classifier, x: Tensor, t: int) -> Tensor:
    """The gradient of the log-probabilities (B,) of a classifier at ``x``."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(classifier(leaf, t).sum(), leaf)
    return gradient
