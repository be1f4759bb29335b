"""Edit-friendly DDPM inversion (Huberman-Spiegelglas, Kulikov and Michaeli 2024, "An Edit Friendly DDPM Noise Space").

Every noisy latent is drawn from the image with its OWN noise, all at once; what the network's step under the source
prompt misses of the next one is kept and added to the steps under the target prompt::

    x(t)  = s(t) z + n(t) ε(t),  ε(t) independent            for all t
    r(t)  = x(t-) - mean(x(t), t, source)                    one batched call: no step waits for another
    y(t-) = mean(y(t), t, source + guidance (target - source)) + r(t)

``mean`` is the mean of the DDPM posterior (``eta = 1``). The paper keeps ``r / deviation`` and multiplies it back,
which is the same thing except where the deviation is 0; keeping ``r`` is exact at the last step too. With target =
source the latent comes back up to rounding, at any guidance.

Cost with k = steps * depth: k evaluations for the source, 2k for the target (k for a null edit or guidance 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from counterscan.backbones.base import Backbone
from counterscan.diffusion import Schedule, add_noise, ddim_step, draw, posterior_deviation
from counterscan.errors import WordsError
from counterscan.methods import Progress
from counterscan.methods.ddim import downwards
from counterscan.methods.prompts import Prompts, check_settings, ticker
from counterscan.types import Condition, Edit, Prediction

LARGEST_BATCH = 32


@dataclass(frozen=True)
class EditFriendly:
    """``steps`` of the full chain, of which the lowest ``depth`` are used; ``guidance`` weight; ``eta`` 1 is DDPM."""

    steps: int = 20
    depth: float = 0.9
    guidance: float = 4.0
    eta: float = 1.0
    name: ClassVar[str] = "edit-friendly"

    def __post_init__(self) -> None:
        check_settings(self.name, self.steps, self.depth, self.guidance)
        if not 0 <= self.eta <= 1:
            raise WordsError(f"{self.name}: eta must be between 0 and 1, got {self.eta!r}")

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
        tick = ticker(progress, 1 + len(times))
        prompts = Prompts.of(backbone, edit)
        path = noisy_path(backbone.schedule, backbone.encode(image), times, generator)
        predictions = predict_path(backbone, path[:-1], times, prompts.source)
        tick()
        towards = lambda x, t: prompts.towards_target(backbone, x, t, self.guidance)  # noqa: E731
        return backbone.decode(replay(backbone.schedule, path, times, predictions, towards, tick, eta=self.eta))


def noisy_path(
    schedule: Schedule, z: Tensor, times: Sequence[int], generator: torch.Generator | Sequence[torch.Generator]
) -> list[Tensor]:
    """The latent at every timestep, each with noise of its own, and last the latent itself: k + 1 of (B, c, h, w)."""
    noise = draw(z.shape, generator, len(times), z.device)
    return [add_noise(z, e, *schedule.coefficients(t)) for t, e in zip(times, noise, strict=True)] + [z]


def predict_path(
    backbone: Backbone, path: Sequence[Tensor], times: Sequence[int], condition: Condition
) -> list[Prediction]:
    """The predictions at every latent of a path, in as few network calls as ``LARGEST_BATCH`` rows allow."""
    rows = torch.cat(list(path))
    batch = path[0].shape[0]
    t = torch.tensor(times).repeat_interleave(batch)
    parts = [
        backbone.predict(z, step.to(z.device), condition)
        for z, step in zip(rows.split(LARGEST_BATCH), t.split(LARGEST_BATCH), strict=True)
    ]
    clean, noise = torch.cat([p.clean for p in parts]), torch.cat([p.noise for p in parts])
    return [Prediction(c, n) for c, n in zip(clean.split(batch), noise.split(batch), strict=True)]


def replay(
    schedule: Schedule,
    path: Sequence[Tensor],
    times: Sequence[int],
    predictions: Sequence[Prediction],
    edited: Callable[[Tensor, int], Prediction],
    tick: Callable[[], None],
    *,
    eta: float = 1.0,
    keep: Tensor | None = None,
) -> Tensor:
    """Down a path once more, with ``edited(x, t)`` in the place of the source's ``predictions``; returns the latent.

    What the source's own steps miss of ``path`` (k + 1 latents (B, c, h, w), noisiest first) is added to every step, so
    that ``edited`` equal to the source gives ``path[-1]``. ``keep`` (B or 1, 1, h, w), bool: True stays on the path.
    """
    x = path[0]
    for i, (t, below) in enumerate(downwards(times)):
        here, there = schedule.coefficients(t), schedule.coefficients(below)
        levels = (*there, posterior_deviation(*here, *there, eta))
        residue = path[i + 1] - ddim_step(predictions[i], *levels)
        x = ddim_step(edited(x, t), *levels) + residue
        x = x if keep is None else torch.where(keep, path[i + 1], x)
        tick()
    return x
