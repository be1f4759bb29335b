"""SDEdit (Meng et al. 2022, "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations"), which
diffusers calls image-to-image and VALD (Siddiqui et al. 2025) uses for medical counterfactuals.

No inversion: noise hides the image up to the level ``depth``, and the target prompt draws what is under it again::

    x(t)  = s(t) z + n(t) ε,            ε random
    x(t-) = s(t-) x̂0 + n(t-) ε̂,         x̂0, ε̂ = source + guidance (target - source)

Cost with k = steps * depth: 2k evaluations (k for a null edit or guidance 1). What the noise hid is invented, so the null
edit is another image, the further away the greater ``depth``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from counterscan.backbones.base import Backbone
from counterscan.diffusion import add_noise, ddim_step, draw
from counterscan.methods import Progress
from counterscan.methods.ddim import downwards
from counterscan.methods.prompts import Prompts, check_settings, ticker
from counterscan.types import Edit


@dataclass(frozen=True)
class SdEdit:
    """``steps`` of the full chain, of which the lowest ``depth`` are used (the "strength"); ``guidance`` weight."""

    steps: int = 20
    depth: float = 0.5
    guidance: float = 4.0
    name: ClassVar[str] = "sdedit"

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
        """See ``counterscan.methods.Method``."""
        times = backbone.schedule.timesteps(self.steps, self.depth).tolist()
        tick = ticker(progress, len(times))
        prompts, z = Prompts.of(backbone, edit), backbone.encode(image)
        x = add_noise(z, draw(z.shape, generator, 1, z.device)[0], *backbone.schedule.coefficients(times[0]))
        for t, below in downwards(times):
            prediction = prompts.towards_target(backbone, x, t, self.guidance)
            x = ddim_step(prediction, *backbone.schedule.coefficients(below))
            tick()
        return backbone.decode(x)
