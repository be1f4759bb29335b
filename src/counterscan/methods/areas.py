"""Where a method may change the latent: areas (B or 1, 1, h, w), bool, from a mask or from the model itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from counterscan.backbones.base import Backbone
from counterscan.diffusion import add_noise, draw
from counterscan.methods.prompts import predict_each
from counterscan.types import Condition, Edit

NOISED = 0.5  # the level of the chain at which DiffEdit compares two prompts


def given_area(edit: Edit, z: Tensor) -> Tensor | None:
    """The edit's mask (H, W) on the latents ``z``, placed as images are: centred, aspect kept. (1, 1, h, w) or ``None``.

    A latent that the mask touches at all belongs to it; the compositing draws the fine border.
    """
    if edit.mask is None:
        return None
    height, width = edit.mask.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = functional.pad(
        edit.mask.to(z.device, torch.float32), (left, side - width - left, top, side - height - top)
    )
    size = (int(z.shape[-2]), int(z.shape[-1]))
    return functional.adaptive_avg_pool2d(square[None, None], size) > 0


def differing_area(
    backbone: Backbone,
    z: Tensor,
    pair: Condition,
    generator: torch.Generator | Sequence[torch.Generator],
    *,
    maps: int,
    threshold: float,
) -> Tensor:
    """Where the noise estimates under two prompts differ, from ``2 * maps`` evaluations an image: DiffEdit's mask.

    The absolute difference is averaged over channels and ``maps`` draws of noise; what exceeds ``threshold`` times its
    mean belongs to the area. diffusers clips at 3 times the mean and cuts at half of that: a threshold of 1.5.
    """
    t = int(NOISED * (len(backbone.schedule) - 1))
    level = backbone.schedule.coefficients(t)
    difference = torch.zeros_like(z[:, :1])
    for noise in draw(z.shape, generator, maps, z.device):
        before, after = predict_each(backbone, add_noise(z, noise, *level), t, pair)
        difference += (after.noise - before.noise).abs().mean(1, keepdim=True)
    return difference > threshold * difference.mean((1, 2, 3), keepdim=True)


def grown(area: Tensor, distance: float) -> Tensor:
    """An area with a margin of ``distance`` (a share of the side) on every side, at least one latent if above 0."""
    if distance == 0:
        return area
    radius = max(1, round(distance * area.shape[-1]))
    return functional.max_pool2d(area.float(), 2 * radius + 1, stride=1, padding=radius) > 0


def strongest(difference: Tensor, quantile: float) -> Tensor:
    """Where the absolute difference (B, c, h, w), summed over channels, is at or above its own quantile over space."""
    size = difference.abs().sum(1, keepdim=True)
    return size >= size.flatten(1).quantile(quantile, dim=1).reshape(-1, 1, 1, 1)
