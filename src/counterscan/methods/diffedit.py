"""DiffEdit (Couairon et al. 2023, "DiffEdit: Diffusion-based Semantic Image Editing with Mask Guidance").

The model itself says where the edit is, before it is made: where its noise estimates under the two prompts differ. Then
DDIM abduction and action, and at every step everything outside the mask goes back to the path of abduction::

    mask  = mean over draws |ε̂(target) - ε̂(source)|  >  threshold * its mean,       at half of the chain
    y(t-) = mask * step(y(t), source + guidance (target - source)) + (1 - mask) * z(t-)

The edit's own mask, where it has one, limits this one. Abduction is under the source prompt (the paper: no prompt).

Cost with k = steps * depth: 2 * maps evaluations for the mask, k up, 2k down (k with guidance 1). The mask of a null edit is
empty and costs nothing, so that the null edit is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from counterscan.backbones.base import Backbone
from counterscan.diffusion import ddim_step
from counterscan.errors import WordsError
from counterscan.methods import Progress
from counterscan.methods.areas import differing_area, given_area
from counterscan.methods.ddim import downwards, invert
from counterscan.methods.prompts import Prompts, check_settings, ticker
from counterscan.types import Condition, Edit


@dataclass(frozen=True)
class DiffEdit:
    """``steps``, ``depth``, ``guidance`` as in DDIM; the mask from ``maps`` draws and a ``threshold`` in means."""

    steps: int = 20
    depth: float = 0.6
    guidance: float = 2.0
    maps: int = 8
    threshold: float = 1.5
    name: ClassVar[str] = "diffedit"

    def __post_init__(self) -> None:
        check_settings(self.name, self.steps, self.depth, self.guidance)
        if not 1 <= self.maps <= 1000:
            raise WordsError(f"{self.name}: maps must be between 1 and 1000, got {self.maps!r}")
        if not self.threshold >= 0:
            raise WordsError(f"{self.name}: threshold must be 0 or more, got {self.threshold!r}")

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
        tick = ticker(progress, 1 + 2 * len(times))
        prompts, z = Prompts.of(backbone, edit), backbone.encode(image)
        area = self._area(backbone, z, prompts, edit, generator)
        tick()
        path = invert(backbone, z, times, prompts.source, tick)
        x = path[0]
        for i, (t, below) in enumerate(downwards(times)):
            prediction = prompts.towards_target(backbone, x, t, self.guidance)
            x = torch.where(area, ddim_step(prediction, *backbone.schedule.coefficients(below)), path[i + 1])
            tick()
        return backbone.decode(x)

    def _area(
        self,
        backbone: Backbone,
        z: Tensor,
        prompts: Prompts,
        edit: Edit,
        generator: torch.Generator | Sequence[torch.Generator],
    ) -> Tensor:
        if prompts.same:
            return torch.zeros_like(z[:, :1], dtype=torch.bool)
        pair = Condition.cat([prompts.source, prompts.target])
        area = differing_area(backbone, z, pair, generator, maps=self.maps, threshold=self.threshold)
        given = given_area(edit, z)
        return area if given is None else area & given
