"""Noise-free editing: a model that was trained on exact counterfactuals is asked about the image itself.

Training by pairs (InstructPix2Pix, Brooks et al. 2023; BiomedJourney, Gu et al. 2023) shows the network the image and asks
for its counterfactual. Here the network sees the image in the place of a noisy latent, scaled as at timestep ``t`` but without
the noise, and ``clean`` is what it takes the image under that prompt to be. What changes ``z`` is the difference of two such
answers::

    e <- guidance (clean(signal (z + e), t, target) - clean(signal z, t, source)),   from e = 0

so what the network cannot hold cancels, and equal prompts change nothing. All that is drawn at random is ``t``. What is only
taken away is seen, and mostly gone at the first pass; a second finishes what the first left faint. What is added is not
seen: the answer is the faint mean of all guesses where it would lie, so the method ``instruct`` draws it instead. A model's
card may give each finding its number of passes.

A change that names a side keeps to it: to the half of the image where the patient's side lies, as radiographs and axial
slices are hung; up to the last pass also to the height of the zone it names. At the last pass a device may cross over, as its
leads do.

Such a model leaves alone what is not asked for, and the fewer words the better: findings to keep are left out of the prompts,
as naming them made more of them go.

For models that were trained so, as the built-in ones (``counterscan.training.denoiser``); others have never seen an image
without noise at that timestep. A model that sees an image beside the latent sees this one there too.

Cost: 1 + steps evaluations, or 1 + removal_steps for an edit that only removes. A null edit is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from counterscan.backbones.base import Backbone, sees_image
from counterscan.diffusion import column, draw
from counterscan.language.vocabulary import DEVICES
from counterscan.methods import Progress
from counterscan.methods.prompts import Prompts, check_settings, ticker
from counterscan.types import Condition, Edit, Sides

ZONES = {"upper": (0.1, 0.41), "middle": (0.38, 0.54), "lower": (0.52, 0.95)}  # of the height of a chest radiograph
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class NoiseFree:
    """``steps`` passes for what is added; ``removal_steps`` where something is only removed: one number, or one of each finding
    (others: 3 and 1). The timestep is drawn from a third below to a third above the share ``depth`` of the chain; ``guidance``
    is the weight of the change.
    """

    steps: int | Mapping[str, int] = 3
    removal_steps: int | Mapping[str, int] = 1
    depth: float = 0.15
    guidance: float = 1.0
    name: ClassVar[str] = "noise-free"

    def __post_init__(self) -> None:
        for asked in (self.steps, self.removal_steps):
            for steps in asked.values() if isinstance(asked, Mapping) else [asked]:
                check_settings(self.name, steps, self.depth, self.guidance)

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
        count = most(self.removal_steps, edit, 1) if only_removes(edit) else most(self.steps, edit, 3)
        z = backbone.encode(image)
        source, target = seen(backbone, z, edit)
        t = (self.depth * (2 + 2 * torch.special.ndtr(draw((len(z),), generator, 1, z.device)[0])) / 3).clamp(max=1)
        begin, end = places(edit, z, backbone.card.sides)
        change = passes(
            backbone, z, torch.zeros_like(z), source, target, t, [begin] * (count - 1) + [end], self.guidance,
            ticker(progress, count),
        )  # fmt: skip
        return backbone.decode(z + change)


def passes(
    backbone: Backbone,
    z: Tensor,
    change: Tensor,
    source: Condition,
    target: Condition,
    share: Tensor | float,
    where: Sequence[Tensor],
    guidance: float,
    tick: Callable[[], None],
) -> Tensor:
    """``change`` of the latent ``z`` (B, c, h, w) after a pass for each of ``where`` it may be, masks that go with ``z``, at the
    ``share`` (B,) of the chain.
    """
    t = (torch.as_tensor(share) * (len(backbone.schedule) - 1)).long().expand(len(z))
    signal = column(backbone.schedule.coefficients(t)[0], z)
    before = backbone.predict(signal * z, t, source).clean
    for mask in where:
        change = guidance * (backbone.predict(signal * (z + change), t, target).clean - before) * mask
        tick()
    return change


def seen(backbone: Backbone, z: Tensor, edit: Edit) -> tuple[Condition, Condition]:
    """The source and the target prompt without the words for what is kept, with the image beside where the model sees it."""
    source, target = edit.unkept or (edit.source, edit.target)
    prompts = Prompts.of(backbone, replace(edit, source=source, target=target))
    if sees_image(backbone):
        return prompts.source.beside(z), prompts.target.beside(z)
    return prompts.source, prompts.target


def only_removes(edit: Edit) -> bool:
    """Whether findings are removed and none is added; an edit by prompts alone may add."""
    return {change.direction for change in edit.changes} == {"remove"}


def most(given: Number | Mapping[str, Number], edit: Edit, usual: Number) -> Number:
    """What the finding that needs most has: of those added, where any is. An edit by prompts alone has what is ``usual``."""
    if not isinstance(given, Mapping):
        return given
    asked = [change.finding for change in edit.changes if change.direction == "add"]
    return max((given.get(finding, usual) for finding in asked or [c.finding for c in edit.changes]), default=usual)


def places(edit: Edit, z: Tensor, sides: Sides) -> tuple[Tensor, Tensor]:
    """1 where ``z`` (B, c, h, w) may change and 0 elsewhere, (1, 1, h, w): until the last pass, and at the last.

    ``sides`` are the card's: the patient's left is on the right of the image.
    """
    y, x = (torch.linspace(0, 1, n, device=z.device) for n in z.shape[-2:])
    side, place = (_shared({getattr(change, what) for change in edit.changes}) for what in ("side", "place"))
    top, bottom = ZONES.get(place, (0.0, 1.0))
    far = "left" if sides == "patient" else "right"  # the side on the right of the image
    half = (x >= 0 if not side else x >= 0.5 if side == far else x < 0.5).to(z).expand(1, 1, len(y), -1)
    band = ((y >= top) & (y <= bottom)).to(z).view(1, 1, -1, 1)
    crosses = {change.finding for change in edit.changes} & {*DEVICES}
    return half * band, torch.ones_like(half) if crosses else half


def _shared(values: set[str | None]) -> str:
    """What all changes say, or nothing."""
    return next(iter(values)) or "" if len(values) == 1 else ""
