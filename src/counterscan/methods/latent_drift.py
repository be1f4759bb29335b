"""Latent drift (Yeganeh et al. 2025, "Latent Drifting in Diffusion Models for Counterfactual Medical Image Synthesis").

A model trained on other images has its latents elsewhere than the medical ones; a constant ``drift`` added to the mean of
every step down moves them over. Abduction undoes it, so that the drift changes where the network is asked, and what is not
edited comes back::

    up    x(t+) = step(x(t) - drift, t+, source)
    down  x(t-) = step(x(t), t-, source + guidance (target - source)) + drift

With ``drift`` 0 this is ``ddim``. The paper also trains with the drift and searches it in [-0.2, 0.2] (best: 0.05 to 0.1);
it edits with other methods, the drift being all it adds.

Cost with k = steps * depth: k evaluations up, 2k down (k for a null edit or guidance 1). No random numbers; the null edit is
close to the image and not exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from counterscan.backbones.base import Backbone
from counterscan.diffusion import CLEAN, ddim_step
from counterscan.errors import WordsError
from counterscan.methods import Progress
from counterscan.methods.ddim import downwards, step_up
from counterscan.methods.prompts import Prompts, check_settings, ticker
from counterscan.types import Edit


@dataclass(frozen=True)
class LatentDrift:
    """``steps``, ``depth``, ``guidance`` as in DDIM; ``drift`` in units of the latent."""

    steps: int = 20
    depth: float = 0.6
    guidance: float = 2.0
    drift: float = 0.05
    name: ClassVar[str] = "latent-drift"

    def __post_init__(self) -> None:
        check_settings(self.name, self.steps, self.depth, self.guidance)
        if not -1 <= self.drift <= 1:
            raise WordsError(f"{self.name}: drift must be between -1 and 1, got {self.drift!r}")

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
        prompts = Prompts.of(backbone, edit)
        x, level = backbone.encode(image), CLEAN
        for t in reversed(times):
            x, level = step_up(backbone, x - self.drift, level, t, prompts.source), t
            tick()
        for t, below in downwards(times):
            prediction = prompts.towards_target(backbone, x, t, self.guidance)
            x = ddim_step(prediction, *backbone.schedule.coefficients(below)) + self.drift
            tick()
        return backbone.decode(x)
