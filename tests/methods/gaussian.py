"""A model whose answers are known exactly: for every prompt the latents are Gaussian around a mean of that prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from counterscan.backbones.card import Card
from counterscan.diffusion import Schedule, alphas_cumprod, vp_schedule
from counterscan.types import Condition, Prediction

SPREAD = 0.1
MEANS = {"": 0.5, "low": 0.4, "high": 0.6}


class Gaussian:
    """Pixel space, no network: ``predict`` is the exact posterior mean. Latent = image."""

    family = "gaussian"
    card = Card("gaussian", family="gaussian", channels=1, resolution=8)
    device, dtype, resolution, channels, latent_shape = torch.device("cpu"), torch.float32, 8, 1, (1, 8, 8)
    fingerprint = "0" * 16

    def __init__(self) -> None:
        self.evaluations = 0
        self.schedule: Schedule = vp_schedule(alphas_cumprod(1000, "linear", 1e-4, 0.02))

    def encode(self, image: Tensor) -> Tensor:
        return image.clone()

    def decode(self, z: Tensor) -> Tensor:
        return z.clamp(0, 1)

    def embed(self, prompts: Sequence[str]) -> Condition:
        return Condition(torch.tensor([MEANS[p] for p in prompts]).reshape(-1, 1, 1))

    def predict(
        self, z: Tensor, t: Tensor | int, condition: Condition, *, level: Tensor | int | None = None
    ) -> Prediction:
        self.evaluations += z.shape[0]
        s, n = (c.reshape(-1, 1, 1, 1) for c in self.schedule.coefficients(t if level is None else level))
        mean = condition.tokens.reshape(-1, 1, 1, 1)
        clean = mean + s * SPREAD**2 / (s**2 * SPREAD**2 + n**2) * (z - s * mean)
        return Prediction(clean, (z - s * clean) / n.clamp(min=1e-6))
