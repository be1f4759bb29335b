"""Train the compact autoencoder: a norm-free convolutional net, so random crops stand for whole images.

Loss: L1 of intensities and of their gradients (thin lines weigh as much as large areas), with a little noise on the
latents so that the decoder is smooth between them. Latents are bounded by tanh in the decoder (AutoencoderTiny).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from counterscan.training.objective import edges


@dataclass(frozen=True)
class AutoencoderSettings:
    """``steps`` of ``batch`` square crops of ``crop`` pixels; cosine decay from ``rate`` after ``warmup`` steps."""

    steps: int = 2500
    batch: int = 16
    crop: int = 128
    rate: float = 2e-3
    warmup: int = 100
    latent_noise: float = 0.05
    seed: int = 0


def loss(reconstruction: Tensor, image: Tensor) -> Tensor:
    """L1 of intensities plus L1 of horizontal and vertical differences, both (B, C, H, W) -> scalar."""
    residual = reconstruction - image
    return residual.abs().mean() + edges(residual).mean() + 2 * residual.square().mean()


def crops(images: list[NDArray[np.uint8]], settings: AutoencoderSettings, rng: np.random.Generator) -> Tensor:
    """A batch of random crops, drawn first by source and then by image, float32 (B, 1, crop, crop) in [-1, 1]."""
    out = np.empty((settings.batch, 1, settings.crop, settings.crop), np.float32)
    for i in range(settings.batch):
        source = images[int(rng.integers(len(images)))]
        picture = source[int(rng.integers(len(source)))]
        y, x = (int(rng.integers(n - settings.crop + 1)) for n in picture.shape)
        out[i, 0] = picture[y : y + settings.crop, x : x + settings.crop]
    return torch.from_numpy(out / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def train(
    vae: Any,
    images: list[NDArray[np.uint8]],
    settings: AutoencoderSettings,
    *,
    log: Callable[[dict[str, float]], None],
    save: Callable[[Any], None],
    every: int = 250,
) -> Any:
    """Train in place and return ``vae``; ``save`` is called every ``every`` steps and at the end."""
    rng, generator = np.random.default_rng(settings.seed), torch.Generator().manual_seed(settings.seed)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=settings.rate, weight_decay=1e-4)
    vae.train().to(memory_format=torch.channels_last)
    start = time.monotonic()
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * cosine(step, settings.steps, settings.warmup)
        image = crops(images, settings, rng)
        z = vae.encode(image).latents
        noise = torch.randn(z.shape, generator=generator) * settings.latent_noise
        value = loss(vae.decode(z + noise).sample, image) + 1e-3 * torch.relu(z.abs() - 2.5).mean()
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % 25 == 0:
            log(
                {
                    "step": step + 1,
                    "loss": value.item(),
                    "images_per_second": settings.batch * (step + 1) / (time.monotonic() - start),
                }
            )
        if (step + 1) % every == 0 or step + 1 == settings.steps:
            save(vae)
    return vae.eval()


def cosine(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then half a cosine down to 2 % of the rate."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
