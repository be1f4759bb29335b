"""Which of two prompts a model itself finds in an image: a diffusion classifier (Li et al. 2023, "Your Diffusion Model is
Secretly a Zero-Shot Classifier").

Good to order images of one patient, not to say what one image shows: what the two prompts differ in everywhere else is
the same for all of them, and cancels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from counterscan.backbones.base import Backbone
from counterscan.diffusion import add_noise, draw
from counterscan.methods.prompts import predict_each
from counterscan.types import Condition

# Shares of the chain. Below, the image itself says all and the prompt hardly matters; above, little of it is left.
LEVELS = (0.5, 0.6, 0.7, 0.8)


def preference(backbone: Backbone, z: Tensor, pair: Condition) -> Tensor:
    """How much better the model denoises ``z`` (B, c, h, w) under the second prompt than the first: (B,).

    The error is that of the velocity, which weighs the levels alike. Every candidate and image meets the same levels and
    noises. Costs 8 evaluations an image.
    """
    generators = [torch.Generator().manual_seed(0) for _ in z]
    score = torch.zeros(len(z), device=z.device)
    for share, noise in zip(LEVELS, draw(z.shape, generators, len(LEVELS), z.device), strict=True):
        t = int(share * (len(backbone.schedule) - 1))
        signal, level = backbone.schedule.coefficients(t)
        pairs = predict_each(backbone, add_noise(z, noise, signal, level), t, pair)
        before, after = ((p.noise - noise).square().mean((1, 2, 3)) for p in pairs)
        score = score + ((before - after) / signal**2).to(score)
    return score
