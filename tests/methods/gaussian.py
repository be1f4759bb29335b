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
        mean = self.mean(condition)
        clean = mean + s * SPREAD**2 / (s**2 * SPREAD**2 + n**2) * (z - s * mean)
        return Prediction(clean, (z - s * clean) / n.clamp(min=1e-6))

    def mean(self, condition: Condition) -> Tensor:
        return condition.tokens.reshape(-1, 1, 1, 1)


class PerPixel(Gaussian):
    """The same with a token a pixel, so that an embedding can say any image."""

    def embed(self, prompts: Sequence[str]) -> Condition:
        return Condition(super().embed(prompts).tokens.expand(-1, 1, 64))

    def mean(self, condition: Condition) -> Tensor:
        return condition.tokens.reshape(-1, 1, 8, 8)


class Halves(Gaussian):
    """Two findings, one in each half: ``cardiomegaly`` on the left, ``pacemaker`` on the right; each 0.2 or 0.8.

    What a prompt does not name is there or not with equal chance. ``tied`` moves the right half with the left: the
    confounded model of a data set where pacemakers come with large hearts.
    """

    def __init__(self, tied: float = 0.0) -> None:
        super().__init__()
        self.tied = tied

    def embed(self, prompts: Sequence[str]) -> Condition:
        def chance(prompt: str, finding: str) -> float:
            return 0.0 if f"no {finding}" in prompt else float(finding in prompt) if finding in prompt else 0.5

        rows = [(chance(p, "cardiomegaly"), chance(p, "pacemaker")) for p in prompts]
        rows = [(left, (1 - self.tied) * right + self.tied * left if left == 0 else right) for left, right in rows]
        return Condition(torch.tensor(rows).reshape(-1, 1, 2))

    def predict(
        self, z: Tensor, t: Tensor | int, condition: Condition, *, level: Tensor | int | None = None
    ) -> Prediction:
        self.evaluations += z.shape[0]
        s, n = (c.reshape(-1, 1, 1, 1) for c in self.schedule.coefficients(t if level is None else level))
        chance = condition.tokens.reshape(-1, 1, 1, 2).repeat_interleave(4, -1)
        variance = s**2 * SPREAD**2 + n**2
        odds = torch.logit(chance, 1e-6) + ((z - s * 0.2) ** 2 - (z - s * 0.8) ** 2) / (2 * variance)
        there = odds.sigmoid()
        mean = 0.2 + 0.6 * there
        clean = mean + s * SPREAD**2 / variance * (z - s * mean)
        return Prediction(clean, (z - s * clean) / n.clamp(min=1e-6))
