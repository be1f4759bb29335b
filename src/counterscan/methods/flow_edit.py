"""FlowEdit (Kulikov et al. 2025, "FlowEdit: Inversion-Free Text-Based Editing Using Pre-Trained Flow Models").

No inversion: the image itself moves, by the difference of two velocities at every level of noise, asked for at points that
share their noise::

    x(s) = (1 - s) z + s ε,   ε fresh at every step;   y(s) = x(s) + (y - z)
    y   += (s- - s) (v(y(s), source + guidance (target - source)) - v(x(s), source)),   v = noise - clean

Only flow matching has a path on which that difference is the motion of the image: a model with another schedule is refused
with ``WordsError`` before any work. The paper's own guidance of the source (1.5 to 3.5 from "no prompt") is the source
prompt itself here, and its guidance of the target (5.5 to 13.5) starts there.

Cost with k = steps * depth: 3k evaluations (2k for a null edit, which is exact, and for guidance 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from counterscan.backbones.base import Backbone
from counterscan.diffusion import add_noise, draw
from counterscan.errors import WordsError
from counterscan.methods import Progress
from counterscan.methods.ddim import downwards
from counterscan.methods.prompts import Prompts, check_settings, ticker
from counterscan.types import Edit, Prediction


@dataclass(frozen=True)
class FlowEdit:
    """``steps`` of the full chain, of which the lowest ``depth`` are used; ``guidance`` weight of the target."""

    steps: int = 28
    depth: float = 0.85
    guidance: float = 4.0
    name: ClassVar[str] = "flow-edit"

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
        schedule = backbone.schedule
        if not schedule.is_flow:
            raise WordsError(
                f"{self.name} needs a flow-matching model, {backbone.card.name} is variance preserving; "
                "use edit-friendly, its counterpart there"
            )
        times = schedule.timesteps(self.steps, self.depth).tolist()
        tick = ticker(progress, len(times))
        prompts, z = Prompts.of(backbone, edit), backbone.encode(image)
        y = z
        for (t, below), noise in zip(downwards(times), draw(z.shape, generator, len(times), z.device), strict=True):
            x = add_noise(z, noise, *schedule.coefficients(t))
            before = backbone.predict(x, t, prompts.source)
            after = prompts.towards_target(backbone, x + (y - z), t, self.guidance)
            span = schedule.coefficients(below)[1] - schedule.coefficients(t)[1]
            y = y + span * (_velocity(after) - _velocity(before))
            tick()
        return backbone.decode(y)


def _velocity(prediction: Prediction) -> Tensor:
    return prediction.noise - prediction.clean
