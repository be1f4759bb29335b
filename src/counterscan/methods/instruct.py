"""InstructPix2Pix: what is added is drawn from noise with the image in sight.

The network takes the image's latent beside the noisy one (Brooks et al. 2023; for radiographs BiomedJourney, Gu et al. 2023), so
what it draws is one of all the ways the change could look, where a single answer is the faint mean of them. The image is drawn
as well from the same noise, under the source prompt, and what the network misses of it is taken off the answer::

    y = s(t) z + n(t) noise;   x = y at the top of the chain
    clean = z + target(x) - source(y) + (guidance - 1) (target(x) - source(x)),   the image beside x and y
    x(t-) = solver(x(t), clean);   e = x(0) - z

``solver`` is DPM-Solver++ 2M (Lu et al. 2022). At the end ``passes`` of the method ``noise-free`` go on from ``z + e`` and finish
what is still faint; an edit that only REMOVES, where all is seen, is made of such passes alone.

An added change that names a side or a zone keeps to it but for the last pass; findings to keep are left out of the prompts (see
``noise-free``).

Needs a model that sees the image (``StableDiffusionInstructPix2PixPipeline``, as the built-in `chest-world`); others are refused
before any work.

Cost: 3k + 1 + passes evaluations (k = steps * depth; 2 a step with guidance 1); for an edit that only removes, one for each of
``removal_at`` and one for each level among them. A null edit is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, ClassVar

import torch
from torch import Tensor

from counterscan.backbones.base import Backbone, sees_image
from counterscan.diffusion import CLEAN, add_noise, draw, solver_step
from counterscan.errors import WordsError
from counterscan.methods import Progress
from counterscan.methods.noise_free import most, only_removes, passes, places, seen
from counterscan.methods.prompts import check_settings, ticker
from counterscan.types import Condition, Edit

SHARE = 0.15  # of the chain: the timestep at which a pass without noise is usually made
Shares = float | Sequence[float]


@dataclass(frozen=True)
class Instruct:
    """For what is added the lowest ``depth`` of a chain of ``steps``, with ``guidance``, then ``passes`` without noise, which go
    on from the share ``gain`` of what was drawn; with 0 steps nothing is drawn, which suits what can lie in one place only, and
    with 0 passes what was drawn is the answer.
    Below the share ``guided`` of the chain the guidance is 1: early it decides what is drawn and where, late it makes what is
    large too bright (guidance in an interval, Kynkäänniemi et al. 2024). Where something is only removed, a pass is made at
    each of the shares ``removal_at`` of the chain in turn: a higher one takes away more, and more than was asked. All these but
    ``depth`` are one value, or one of each finding (others: 6, 2, 1, 0, 1 and 0.15). Of the change that comes of it the share
    ``strength`` is made.
    """

    steps: int | Mapping[str, int] = 6
    depth: float = 1.0
    guidance: float | Mapping[str, float] = 2.0
    passes: int | Mapping[str, int] = 1
    strength: float = 1.0
    guided: float | Mapping[str, float] = 0.0
    gain: float | Mapping[str, float] = 1.0
    removal_at: Shares | Mapping[str, Shares] = 0.15
    name: ClassVar[str] = "instruct"

    def __post_init__(self) -> None:
        for steps in (*_each(self.steps), *_each(self.passes)):
            for weight in _each(self.guidance):
                check_settings(self.name, steps or 1, self.depth, weight)  # 0 is none
        if not 0 <= self.strength <= 100:
            raise WordsError(f"{self.name}: strength is a factor, 0 to 100, got {self.strength}")
        if not all(0 <= share <= 1 for share in _each(self.guided)):
            raise WordsError(f"{self.name}: guided is a share of the chain, 0 to 1, got {self.guided}")
        if not all(0 <= gain <= 10 for gain in _each(self.gain)):
            raise WordsError(f"{self.name}: gain is a factor, 0 to 10, got {self.gain}")
        rows = [_row(given) for given in _each(self.removal_at)]
        if not all(row and all(isinstance(at, int | float) and 0 < at <= 1 for at in row) for row in rows):
            raise WordsError(f"{self.name}: removal_at holds shares of the chain above 0, to 1, got {self.removal_at}")

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
        """See ``counterscan.methods.Method``. ``WordsError`` where the model sees no image."""
        if not sees_image(backbone):
            raise WordsError(
                f"instruct needs a model that sees the image, and {backbone.card.name} does not; use flow-edit"
            )
        removes = only_removes(edit)
        steps = 0 if removes or edit.is_null else most(self.steps, edit, 6)
        shares = self._removal(edit) if removes else [SHARE] * most(self.passes, edit, 1)
        times = backbone.schedule.timesteps(steps, self.depth).tolist() if steps else []
        tick = ticker(progress, len(shares) + len(times))
        z = backbone.encode(image)
        source, target = seen(backbone, z, edit)
        begin, end = places(edit, z, backbone.card.sides)
        change = torch.zeros_like(z)
        if times:
            noise = draw(z.shape, generator, 1, z.device)[0]
            guidance = float(most(self.guidance, edit, 2.0))
            least = most(self.guided, edit, 0.0) * (len(backbone.schedule) - 1)
            weights = [guidance if t >= least else 1.0 for t in times]
            answer = drawn(backbone, z, noise, source, target, weights, times, begin, tick)
            change = most(self.gain, edit, 1.0) * (answer - z)
        masks = [*[begin] * (len(shares) - 1), end][: len(shares)]
        for share, together in groupby(zip(shares, masks, strict=True), key=itemgetter(0)):
            change = passes(backbone, z, change, source, target, share, [mask for _, mask in together], 1.0, tick)
        return backbone.decode(z + self.strength * change)

    def _removal(self, edit: Edit) -> Sequence[float]:
        """The passes of the finding that needs most of them."""
        if not isinstance(self.removal_at, Mapping):
            return _row(self.removal_at)
        asked = [_row(self.removal_at.get(change.finding, SHARE)) for change in edit.changes]
        return max(asked, key=lambda shares: (len(shares), max(shares)), default=[SHARE])


def _each(given: Any) -> list[Any]:
    return [*given.values()] if isinstance(given, Mapping) else [given]


def _row(given: Shares) -> Sequence[float]:
    return given if isinstance(given, Sequence) else [given]


def drawn(
    backbone: Backbone,
    z: Tensor,
    noise: Tensor,
    source: Condition,
    target: Condition,
    guidance: Sequence[float],
    times: Sequence[int],
    where: Tensor,
    tick: Callable[[], None],
) -> Tensor:
    """What ``z`` (B, c, h, w) becomes, drawn from ``noise`` under ``target``; the mask ``where`` is 0 where it stays."""
    levels = [backbone.schedule.coefficients(t) for t in (*times, CLEAN)]
    x, older = add_noise(z, noise, *levels[0]), None
    for i, (t, weight) in enumerate(zip(times, guidance, strict=True)):
        rows = [source, target] if weight == 1 else [source, target, source]
        y = add_noise(z, noise, *levels[i])
        found = backbone.predict(torch.cat([y, x, x][: len(rows)]), t, Condition.cat(rows)).clean.chunk(len(rows))
        clean = z + where * (found[1] - found[0] + (weight - 1) * (found[1] - found[-1]))
        # the last step is of first order: the solver's extrapolation is unstable towards no noise
        x = solver_step(x, clean, older if i < len(times) - 1 else None, (levels[i - 1], levels[i], levels[i + 1]))
        older = clean
        tick()
    return x
