"""Direct inversion (Ju et al. 2024, "PnP Inversion: Boosting Diffusion-based Editing with 3 Lines of Code").

Abduction is that of DDIM. Its error, what the source's own step down misses of the path that led up, is measured at every
step and added to the step under the target prompt::

    r(t)  = z(t-) - step(z(t), source)
    y(t-) = step(y(t), source + guidance (target - source)) + r(t)

The paper adds ``r`` to a source branch only, whose attention the target branch copies. Without attention control that
branch would have no say, and the edit would be plain DDIM; here the target takes ``r`` too, which makes the null edit exact
at any guidance. It is the twin of ``edit-friendly`` without random numbers.

Cost with k = steps * depth: k evaluations up, k at the path (batched), 2k down (k for a null edit or guidance 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from counterscan.backbones.base import Backbone
from counterscan.methods import Progress
from counterscan.methods.ddim import invert
from counterscan.methods.edit_friendly import predict_path, replay
from counterscan.methods.prompts import Prompts, check_settings, ticker
from counterscan.types import Edit


@dataclass(frozen=True)
class Direct:
    """``steps`` of the full chain, of which the lowest ``depth`` are used; ``guidance`` weight of the way down."""

    steps: int = 20
    depth: float = 0.6
    guidance: float = 2.0
    name: ClassVar[str] = "direct"

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
        path = invert(backbone, backbone.encode(image), times, prompts.source, tick)
        predictions = predict_path(backbone, path[:-1], times, prompts.source)
        towards = lambda x, t: prompts.towards_target(backbone, x, t, self.guidance)  # noqa: E731
        return backbone.decode(replay(backbone.schedule, path, times, predictions, towards, tick, eta=0.0))
