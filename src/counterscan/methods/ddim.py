"""DDIM abduction and action (Song et al. 2021, "Denoising Diffusion Implicit Models"; the counterfactual reading is
that of Sanchez and Tsaftaris 2022, "Diffusion Causal Models").

Abduction runs the deterministic ODE upwards under the source prompt, without guidance, from the latent ``z`` to the
level ``depth`` of the chain; action runs it down under the target prompt with guidance::

    up    x(t+) = s(t+) x̂0 + n(t+) ε̂,   x̂0, ε̂ = network(x(t), t+, source)
    down  x(t-) = s(t-) x̂0 + n(t-) ε̂,   x̂0, ε̂ = source + guidance (target - source)

Cost with k = steps * depth: k evaluations up, 2k down (k for a null edit or guidance 1). No random numbers. The null
edit is close to the image and not exact: the two directions ask the network at slightly different points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from counterscan.backbones.base import Backbone
from counterscan.diffusion import CLEAN, Schedule, ddim_step
from counterscan.methods import Progress
from counterscan.methods.prompts import Prompts, check_settings, ticker
from counterscan.types import Condition, Edit


@dataclass(frozen=True)
class Ddim:
    """``steps`` of the full chain, of which the lowest ``depth`` are used; ``guidance`` weight of the way down."""

    steps: int = 20
    depth: float = 0.6
    guidance: float = 2.0
    name: ClassVar[str] = "ddim"

    def __post_init__(self) -> None:
        check_settings(self.name, self.steps, self.depth, self.guidance)

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
        x = invert(backbone, backbone.encode(image), times, prompts.source, tick)[0]
        for t, below in downwards(times):
            prediction = prompts.towards_target(backbone, x, t, self.guidance)
            x = ddim_step(prediction, *backbone.schedule.coefficients(below))
            tick()
        return backbone.decode(x)


def invert(
    backbone: Backbone, z: Tensor, times: Sequence[int], condition: Condition, tick: Callable[[], None]
) -> list[Tensor]:
    """The latents (B, c, h, w) of abduction at the falling ``times``, and last ``z`` itself: k + 1 for k evaluations."""
    path, level = [z], CLEAN
    for t in reversed(times):
        path.insert(0, step_up(backbone, path[0], level, t, condition))
        level = t
        tick()
    return path


def step_up(backbone: Backbone, x: Tensor, level: int, t: int, condition: Condition) -> Tensor:
    """One inversion step from ``level`` up to ``t``; the network is asked about ``t``, as diffusers does."""
    prediction = backbone.predict(x, t, condition, level=level)
    schedule: Schedule = backbone.schedule
    return ddim_step(prediction, *schedule.coefficients(t))


def downwards(times: Sequence[int]) -> list[tuple[int, int]]:
    """(timestep, the level below it) for falling timesteps; the last level is ``CLEAN``."""
    return list(zip(times, [*times[1:], CLEAN], strict=True))
