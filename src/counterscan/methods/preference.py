"""Which of two prompts a model itself finds in an image: a diffusion classifier (Li et al. 2023, "Your Diffusion Model is
Secretly a Zero-Shot Classifier").
"""

from __future__ import annotations

import torch
from torch import Tensor

from counterscan.backbones.base import Backbone
from counterscan.diffusion import add_noise, draw
from counterscan.methods.prompts import predict_each
from counterscan.types import Condition

DRAWS = 4  # evaluations a prompt


def preference(backbone: Backbone, z: Tensor, pair: Condition) -> Tensor:
    """How much better the model denoises ``z`` (B, c, h, w) under the second prompt than the first: (B,).

    A diffusion classifier (Li et al. 2023); every candidate and image meets the same few levels and noises.
    """
    generators = [torch.Generator().manual_seed(0) for _ in z]
    noises = draw(z.shape, generators, DRAWS, z.device)
    score = torch.zeros(len(z), device=z.device)
    for i, noise in enumerate(noises):
        t = (i + 1) * len(backbone.schedule) // (DRAWS + 1)
        pairs = predict_each(backbone, add_noise(z, noise, *backbone.schedule.coefficients(t)), t, pair)
        before, after = ((p.noise - noise).square().mean((1, 2, 3)) for p in pairs)
        score = score + before - after
    return score
