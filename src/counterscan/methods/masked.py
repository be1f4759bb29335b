"""Editing with two masks, as RadEdit does (Pérez-García et al. 2024, "RadEdit: stress-testing biomedical vision models via
diffusion image editing").

``edit-friendly`` inversion; guidance acts inside the edit mask only, and after every step what the keep mask covers goes
back to the image's own noisy path::

    x̂0, ε̂ = source + edit_mask * guidance (target - source)
    y(t-)  = keep_mask * x(t-) + (1 - keep_mask) * (mean(y(t), t, x̂0, ε̂) + r(t))

The edit mask is the edit's own mask; the keep mask is everything further from it than ``band``. The band between the two is
neither pushed nor held, so that it can settle around the edit (RadEdit takes two free masks; this is its usual pair).
Without a mask the model's own is taken, as RadEdit tried too: where its noise estimates differ (see ``diffedit``).

Cost with k = steps * depth: k evaluations for the source, 2k for the target (k for a null edit, which is exact), 16 more to
find a mask where none is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from counterscan.backbones.base import Backbone
from counterscan.diffusion import guide
from counterscan.errors import WordsError
from counterscan.methods import Progress
from counterscan.methods.areas import differing_area, given_area, grown
from counterscan.methods.edit_friendly import noisy_path, predict_path, replay
from counterscan.methods.prompts import Prompts, check_settings, predict_each, ticker
from counterscan.types import Condition, Edit, Prediction

MAPS, THRESHOLD = 8, 1.5


@dataclass(frozen=True)
class Masked:
    """``steps``, ``depth``, ``guidance`` as in edit-friendly; ``band`` between the masks, a share of the side."""

    steps: int = 20
    depth: float = 0.9
    guidance: float = 7.5
    band: float = 0.06
    name: ClassVar[str] = "masked"

    def __post_init__(self) -> None:
        check_settings(self.name, self.steps, self.depth, self.guidance)
        if not 0 <= self.band <= 1:
            raise WordsError(f"{self.name}: band must be between 0 and 1, got {self.band!r}")

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
        tick = ticker(progress, 2 + len(times))
        prompts, z = Prompts.of(backbone, edit), backbone.encode(image)
        pair = Condition.cat([prompts.source, prompts.target])
        area = given_area(edit, z)
        if area is None and not prompts.same:
            area = differing_area(backbone, z, pair, generator, maps=MAPS, threshold=THRESHOLD)
        tick()
        path = noisy_path(backbone.schedule, z, times, generator)
        predictions = predict_path(backbone, path[:-1], times, prompts.source)
        tick()

        def towards(x: Tensor, t: int) -> Prediction:
            if area is None or prompts.same:
                return backbone.predict(x, t, prompts.source)
            before, after = predict_each(backbone, x, t, pair)
            inside = guide(before, after, self.guidance)
            return Prediction(
                torch.where(area, inside.clean, before.clean), torch.where(area, inside.noise, before.noise)
            )

        keep = None if area is None else ~grown(area, self.band)
        return backbone.decode(replay(backbone.schedule, path, times, predictions, towards, tick, keep=keep))
