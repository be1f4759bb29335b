"""Train a classifier from images in memory: binary labels, each of which may be unknown."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from counterscan.robustness.classifier import Classifier


@dataclass(frozen=True)
class FitSettings:
    """``epochs`` over the data in batches; one-cycle rate up to ``rate``; images are moved by up to ``shift`` of their
    side, turned by up to ``turn`` radians, zoomed by up to ``zoom``, and change contrast and brightness by ``light``.
    Never flipped: left and right are labels.
    """

    epochs: int = 6
    batch: int = 32
    rate: float = 3e-3
    decay: float = 1e-2
    shift: float = 0.03
    turn: float = 0.05
    zoom: float = 0.04
    light: float = 0.1
    seed: int = 0


def fit(
    model: Classifier,
    images: NDArray[np.uint8],
    targets: NDArray[np.float32],
    settings: FitSettings,
    *,
    chances: NDArray[np.float64] | None = None,
    log: Callable[[dict[str, float]], None] | None = None,
) -> Classifier:
    """Minimise the binary cross entropy of the known labels, in place.

    Args:
        model: what to train.
        images: (N, H, W) or (N, H, W, C) uint8.
        targets: (N, labels), 1 present, 0 absent, NaN unknown.
        settings: see there.
        chances: how often each image is drawn, relative to the others; equally by default.
        log: called every 50 steps with step and loss.
    """
    rng = np.random.default_rng(settings.seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.rate, weight_decay=settings.decay)
    steps = max(settings.epochs * len(images) // settings.batch, 1)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.rate, total_steps=steps + 1, pct_start=0.2)
    p = None if chances is None else chances / chances.sum()
    model.train()
    running = math.nan
    for step in range(steps):
        pick = rng.choice(len(images), settings.batch, p=p)
        x = moved(as_images(images[np.sort(pick)]), settings, rng)
        y = torch.from_numpy(targets[np.sort(pick)])
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x)
        value = known_loss(logits.float(), y)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        cycle.step()
        running = value.item() if math.isnan(running) else 0.98 * running + 0.02 * value.item()
        if log and (step + 1) % 50 == 0:
            log({"step": step + 1, "of": steps, "loss": running})
    return model.eval()


def known_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross entropy over the labels that are known; both (B, labels)."""
    known = ~targets.isnan()
    each = nn.functional.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)


def as_images(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 (B, H, W[, C]) -> float32 (B, C, H, W) in [0, 1]."""
    x = torch.from_numpy(pixels.astype(np.float32) / 255)
    return x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)


def moved(x: Tensor, settings: FitSettings, rng: np.random.Generator) -> Tensor:
    """The images (B, C, H, W) moved, turned, zoomed and relit at random."""
    n = len(x)
    angle = torch.from_numpy(rng.uniform(-settings.turn, settings.turn, n))
    scale = torch.from_numpy(1 + rng.uniform(-settings.zoom, settings.zoom, n))
    shift = torch.from_numpy(rng.uniform(-2 * settings.shift, 2 * settings.shift, (n, 2)))
    c, s = scale * angle.cos(), scale * angle.sin()
    theta = torch.stack([torch.stack([c, -s, shift[:, 0]], 1), torch.stack([s, c, shift[:, 1]], 1)], 1).float()
    grid = nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
    x = nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    gain = torch.from_numpy(1 + rng.uniform(-settings.light, settings.light, (n, 1, 1, 1))).float()
    lift = torch.from_numpy(rng.uniform(-settings.light, settings.light, (n, 1, 1, 1))).float() / 2
    return (x * gain + lift).clamp(0, 1)
