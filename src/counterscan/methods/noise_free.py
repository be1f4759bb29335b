"""Noise-free editing: a model that was trained on exact counterfactuals is asked about the image itself.

Training by pairs (InstructPix2Pix, Brooks et al. 2023; BiomedJourney, Gu et al. 2023) shows the network the image and asks
for its counterfactual. Here no second image goes into the network: it sees the image in the place of a noisy latent, scaled
as at timestep ``t`` but without the noise, and ``clean`` is what it takes the image under that prompt to be. What changes
``z`` is the difference of two such answers::

    e <- guidance (clean(signal (z + e), t, target) - clean(signal z, t, source)),   from e = 0

so what the network cannot hold cancels, and equal prompts change nothing. What is only taken away is seen, and mostly gone at
the first pass. What is added is not: where it would lie is a guess, and without noise the first answer is the faint mean of
all guesses. So an addition may begin with ``noisy_steps`` passes that show the image under noise, falling from
:data:`NOISY`'s upper to its lower share of the chain, the same noise for both prompts: noise makes up the network's mind
where, and the passes without it draw the details. All that is drawn at random is that noise and ``t``. A model's card may
give each finding its number of passes (benchmarks/passes.py).

A change that names a side keeps to it: to the half of the image where the patient's side lies, as radiographs and axial
slices are hung; up to the last pass also to the height of the zone it names. From the words alone the built-in chest models
drew the faint mean of all. At the last pass a device may cross over, as its leads do.

Such a model leaves alone what is not asked for, and the fewer words the better: findings to keep are left out of the prompts,
as naming them made more of them go.

For models that were trained so, as the built-in ones (``counterscan.training.denoiser``); others have never seen an image
without noise at that timestep.

Cost: 1 + steps + 2 noisy_steps evaluations, or 1 + removal_steps for an edit that only removes. A null edit is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from counterscan.backbones.base import Backbone
from counterscan.diffusion import add_noise, column, draw
from counterscan.language.vocabulary import DEVICES
from counterscan.methods import Progress
from counterscan.methods.prompts import Prompts, check_settings, ticker
from counterscan.types import Edit

NOISY = 0.8, 0.35
PLACES = {"upper": (0.1, 0.44), "middle": (0.33, 0.58), "lower": (0.46, 0.95)}  # of the height of a chest radiograph


@dataclass(frozen=True)
class NoiseFree:
    """``steps`` passes for what is added, after ``noisy_steps`` under noise; ``removal_steps`` where something is only removed:
    one number, or one of each finding (others: 3, 0 and 1). The timestep is drawn from a third below to a third above the
    share ``depth`` of the chain; ``guidance`` is the weight of the change.
    """

    steps: int | Mapping[str, int] = 3
    removal_steps: int | Mapping[str, int] = 1
    noisy_steps: int | Mapping[str, int] = 0
    depth: float = 0.15
    guidance: float = 1.0
    name: ClassVar[str] = "noise-free"

    def __post_init__(self) -> None:
        for asked, none in ((self.steps, 0), (self.removal_steps, 0), (self.noisy_steps, 1)):
            for steps in asked.values() if isinstance(asked, Mapping) else [asked]:
                check_settings(
                    self.name, steps or none, self.depth, self.guidance
                )  # no pass under noise is a number too

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
        only_removes = {change.direction for change in edit.changes} == {"remove"}
        passes = _most(self.removal_steps, edit, 1) if only_removes else _most(self.steps, edit, 3)
        noisy = 0 if only_removes else _most(self.noisy_steps, edit, 0)
        tick = ticker(progress, noisy + passes)
        source, target = edit.unkept or (edit.source, edit.target)
        prompts, z = Prompts.of(backbone, replace(edit, source=source, target=target)), backbone.encode(image)
        uniform = torch.special.ndtr(draw((len(z),), generator, 1, z.device)[0])
        last = len(backbone.schedule) - 1
        t = (self.depth * (2 + 2 * uniform) / 3 * last).clamp(max=last).long()
        signal = column(backbone.schedule.coefficients(t)[0], z)
        before = backbone.predict(signal * z, t, prompts.source).clean
        change = torch.zeros_like(z)
        begin, end = _where(edit, z)
        levels = (torch.linspace(*NOISY, noisy) * last).long().tolist()
        for level, noise in zip(levels, draw(z.shape, generator, noisy, z.device), strict=True):
            s, n = backbone.schedule.coefficients(level)
            x = add_noise(z, noise, s, n)
            unchanged = backbone.predict(x, level, prompts.source).clean
            change = self.guidance * (backbone.predict(x + s * change, level, prompts.target).clean - unchanged)
            change *= begin
            tick()
        for k in range(passes):
            change = self.guidance * (backbone.predict(signal * (z + change), t, prompts.target).clean - before)
            change *= end if k == passes - 1 else begin
            tick()
        return backbone.decode(z + change)


def _most(steps: int | Mapping[str, int], edit: Edit, usual: int) -> int:
    """The passes of the finding that needs most: of those added, where any is. An edit by prompts alone has the usual number."""
    if not isinstance(steps, Mapping):
        return steps
    asked = [change.finding for change in edit.changes if change.direction == "add"]
    return max((steps.get(finding, usual) for finding in asked or [c.finding for c in edit.changes]), default=usual)


def _where(edit: Edit, z: Tensor) -> tuple[Tensor, Tensor]:
    """1 where ``z`` (B, C, h, w) may change and 0 elsewhere, (1, 1, h, w): until the last pass, and at the last."""
    y, x = (torch.linspace(0, 1, n, device=z.device) for n in z.shape[-2:])
    side, place = (_shared({getattr(change, what) for change in edit.changes}) for what in ("side", "place"))
    top, bottom = PLACES.get(place, (0.0, 1.0))
    half = (x >= 0.5 if side == "left" else x < 0.5 if side == "right" else x >= 0).to(z).expand(1, 1, len(y), -1)
    band = ((y >= top) & (y <= bottom)).to(z).view(1, 1, -1, 1)
    crosses = {change.finding for change in edit.changes} & {*DEVICES}
    return half * band, torch.ones_like(half) if crosses else half


def _shared(values: set[str | None]) -> str:
    """What all changes say, or nothing."""
    return next(iter(values)) or "" if len(values) == 1 else ""
