"""FlowEdit (Kulikov et al. 2025, "FlowEdit: Inversion-Free Text-Based Editing Using Pre-Trained Flow Models").

No inversion: what moves is the change ``e`` of the image ``z``, by the difference of two predictions at every level of noise,
asked for at points that share their noise::

    x  = signal z + noise ε,   ε fresh at every step
    d  = clean(x + e, source + guidance (target - source)) - clean(x, source)
    e <- e + (1 - s-/s) (d - e),   s = noise

which is the paper's step ``e += (s- - s) (velocity of the one - velocity of the other)``, for ``velocity = (x - clean) / s``.

The paper has flow matching only. The step needs no more than coordinates in which noise is added to the image at full
strength, and a variance-preserving model has them: in ``x / signal``, with ``s = noise / signal``, sampling is the motion
``(x - clean) / s`` too (Karras et al. 2022). So there ``s`` is that, and the model is asked at ``x + signal e``.

The paper's own guidance of the source (1.5 to 3.5 from "no prompt") is the source prompt itself here, and its guidance of
the target (5.5 to 13.5) starts there. Models that were taught edits, as the built-in ones, want guidance 1.

Cost with k = steps * depth: 3k evaluations (2k for a null edit, which is exact, and for guidance 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from counterscan.backbones.base import Backbone
from counterscan.diffusion import Schedule, add_noise, draw
from counterscan.methods import Progress
from counterscan.methods.ddim import downwards
from counterscan.methods.prompts import Prompts, check_settings, ticker
from counterscan.types import Edit


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
        prompts = Prompts.of(backbone, edit)

        def difference(x: Tensor, moved: Tensor, t: int) -> Tensor:
            before = backbone.predict(x, t, prompts.source).clean
            return prompts.towards_target(backbone, moved, t, self.guidance).clean - before

        return self._followed(backbone, image, difference, generator, progress)

    def _followed(
        self,
        backbone: Backbone,
        image: Tensor,
        difference: Callable[[Tensor, Tensor, int], Tensor],
        generator: torch.Generator | Sequence[torch.Generator],
        progress: Progress | None,
    ) -> Tensor:
        """The image changed as ``difference`` has it, which is asked at every level: of the noisy image, of the same moved by the
        change so far, both (B, c, h, w), and of the timestep.
        """
        schedule, z = backbone.schedule, backbone.encode(image)
        times = schedule.timesteps(self.steps, self.depth).tolist()
        tick = ticker(progress, len(times))
        change = torch.zeros_like(z)
        for (t, below), noise in zip(downwards(times), draw(z.shape, generator, len(times), z.device), strict=True):
            x = add_noise(z, noise, *schedule.coefficients(t))
            scale, level = _scale_and_level(schedule, t)
            share = 1 - _scale_and_level(schedule, below)[1] / level
            change = change + share * (difference(x, x + scale * change, t) - change)
            tick()
        return backbone.decode(z + change)


def _scale_and_level(schedule: Schedule, t: int) -> tuple[Tensor, Tensor]:
    """What the image is multiplied by at ``t``, and how much noise there is for an image that is not."""
    signal, noise = schedule.coefficients(t)
    return (torch.ones_like(signal), noise) if schedule.is_flow else (signal, noise / signal)
