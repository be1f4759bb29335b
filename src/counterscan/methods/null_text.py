"""Null-text optimisation (Mokady et al. 2023, "NULL-text Inversion for Editing Real Images using Guided Diffusion Models").

Abduction is that of DDIM. On the way down, guidance leads away from a "no prompt" whose embedding is fitted at every step by
Adam, from that of the step before, so that the guided step under the source prompt lands on the path that led up::

    null(t) = argmin |step(x(t), null + guidance (source - null)) - z(t-)|²,    x(t-) = that step
    y(t-)   = step(y(t), null(t) + guidance (target - null(t)))

Each step keeps the best of its embeddings, so more ``inner`` steps never fit worse. The paper stops early where the fit is
good; here every image costs the same. The learning rate falls from ``rate`` to half of it, as in the paper's code.

Cost with k = steps * depth: 1 evaluation to see that the model has gradients (``ModelError`` otherwise, before any work), k
up, k (2 + inner) to fit, of which k * inner are differentiated too (about 2 more each, not counted), 2k down (none for a
null edit, which is as close to the image as the fit). No random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from counterscan.backbones.base import Backbone
from counterscan.diffusion import ddim_step, guide
from counterscan.errors import ModelError, WordsError
from counterscan.methods import Progress
from counterscan.methods.ddim import downwards, invert
from counterscan.methods.prompts import check_settings, ticker
from counterscan.types import Condition, Edit, Prediction


@dataclass(frozen=True)
class NullText:
    """``inner`` steps of Adam with learning ``rate`` at every one of ``steps * depth`` steps; ``guidance`` weight."""

    steps: int = 50
    depth: float = 1.0
    guidance: float = 7.5
    inner: int = 10
    rate: float = 1e-2
    name: ClassVar[str] = "null-text"

    def __post_init__(self) -> None:
        check_settings(self.name, self.steps, self.depth, self.guidance)
        if not (isinstance(self.inner, int) and 0 <= self.inner <= 1000):
            raise WordsError(f"{self.name}: inner must be a whole number from 0 to 1000, got {self.inner!r}")
        if not 0 < self.rate <= 1:
            raise WordsError(f"{self.name}: rate must be above 0 and at most 1, got {self.rate!r}")

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
        z = backbone.encode(image)
        source, target = (backbone.embed([words]).repeat(len(z)) for words in (edit.source, edit.target))
        y, fitted = self.fit(backbone, z, times, source, tick)
        x = y
        for (t, below), step in zip(downwards(times), fitted, strict=True):
            null, x = step
            if not edit.is_null:
                away, towards = backbone.predict(y, t, null), backbone.predict(y, t, target)
                y = ddim_step(guide(away, towards, self.guidance), *backbone.schedule.coefficients(below))
            tick()
        return backbone.decode(x if edit.is_null else y)

    def fit(
        self, backbone: Backbone, z: Tensor, times: Sequence[int], source: Condition, tick: Callable[[], None]
    ) -> tuple[Tensor, Iterator[tuple[Condition, Tensor]]]:
        """The latent at the top, and for every step down: the fitted null prompt, and where the source's step lands.

        ``tick`` is called for every step up. ``ModelError`` before any work for a model without gradients.
        """
        null = backbone.embed([""]).repeat(len(z))
        _refuse_without_gradients(backbone, z, times[-1], null)
        path = invert(backbone, z, times, source, tick)

        def down(null: Condition, x: Tensor) -> Iterator[tuple[Condition, Tensor]]:
            for i, (t, below) in enumerate(downwards(times)):
                wanted = backbone.predict(x, t, source)
                rate, level = self.rate * (1 - i / (2 * len(times))), backbone.schedule.coefficients(below)
                null, x = self._fit(backbone, x, t, null, wanted, path[i + 1], level, rate)
                yield null, x

        return path[0], down(null, path[0])

    def _fit(
        self,
        backbone: Backbone,
        x: Tensor,
        t: int,
        null: Condition,
        wanted: Prediction,
        goal: Tensor,
        level: tuple[Tensor, Tensor],
        rate: float,
    ) -> tuple[Condition, Tensor]:
        """The best embedding (B, L, D) of the step from ``x`` to ``goal``, and where that step lands."""
        kind = torch.promote_types(null.tokens.dtype, torch.float32)  # half precision cannot hold such small steps
        leaf = null.tokens.detach().to(kind, copy=True).requires_grad_()
        adam = torch.optim.Adam([leaf], lr=rate)
        least, best, landed = torch.full(x.shape[:1], torch.inf, device=x.device), leaf.detach().clone(), x
        for left in range(self.inner, -1, -1):
            with torch.set_grad_enabled(left > 0):
                away = backbone.predict(x, t, replace(null, tokens=leaf))
                reached = ddim_step(guide(away, wanted, self.guidance), *level)
                loss = (reached - goal).square().mean((1, 2, 3))
                total = loss.sum()
            better = (loss.detach() < least).reshape(-1, 1, 1)
            least = torch.minimum(least, loss.detach())
            best = torch.where(better, leaf.detach(), best)
            landed = torch.where(better[..., None], reached.detach(), landed)
            if left:
                (leaf.grad,) = torch.autograd.grad(total, leaf)
                adam.step()
        return replace(null, tokens=best), landed


def _refuse_without_gradients(backbone: Backbone, z: Tensor, t: int, null: Condition) -> None:
    with torch.enable_grad():
        asked = replace(null, tokens=null.tokens.detach().clone().requires_grad_())
        if not backbone.predict(z, t, asked).noise.requires_grad:
            raise ModelError(f"{backbone.card.name}: null-text needs a model with gradients, and this one has none")
