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

GROUP_STEP = 0.01  # of the exponentiated gradient on the weights of groups, as in the paper's experiments


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
    groups: NDArray[np.int64] | None = None,
    log: Callable[[dict[str, float]], None] | None = None,
) -> Classifier:
    """Minimise the binary cross entropy of the known labels, in place; with ``groups``, that of the worst of them.

    Args:
        model: what to train.
        images: (N, H, W) or (N, H, W, C) uint8.
        targets: (N, labels), 1 present, 0 absent, NaN unknown.
        settings: see there.
        chances: how often each image is drawn, relative to the others; equally by default.
        groups: the number of each image's group, 0 to G - 1: trains by group-DRO (Sagawa et al. 2020, algorithm 1), in
            which a group weighs the more, the larger its loss has been.
        log: called every 50 steps and after the last with step and loss.
    """
    rng = np.random.default_rng(settings.seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.rate, weight_decay=settings.decay)
    weights = None if groups is None else torch.full((int(groups.max()) + 1,), 1 / (int(groups.max()) + 1))
    steps = max(settings.epochs * len(images) // settings.batch, 1)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.rate, total_steps=steps + 1, pct_start=0.2)
    p = None if chances is None else chances / chances.sum()
    fast = torch.backends.cpu.get_cpu_capability() == "AVX512"  # without, bfloat16 is emulated, ten times slower
    model.train()
    running = math.nan
    for step in range(steps):
        pick = np.sort(rng.choice(len(images), settings.batch, p=p))
        x = moved(as_images(images[pick]), settings, rng)
        y = torch.from_numpy(targets[pick])
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            logits = model(x)
        if groups is None or weights is None:
            value = known_loss(logits.float(), y)
        else:
            value = robust_loss(logits.float(), y, torch.from_numpy(groups[pick]), weights)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        cycle.step()
        running = value.item() if math.isnan(running) else 0.98 * running + 0.02 * value.item()
        if log and ((step + 1) % 50 == 0 or step + 1 == steps):
            log({"step": step + 1, "of": steps, "loss": running})
    return model.eval()


def known_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross entropy over the labels that are known; both (B, labels)."""
    known = ~targets.isnan()
    each = nn.functional.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)


def robust_loss(logits: Tensor, targets: Tensor, groups: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of the groups' losses, after each group's weight (G,) has grown, in place, with its loss."""
    present = groups.unique()
    losses = torch.stack([known_loss(logits[groups == g], targets[groups == g]) for g in present])
    weights[present] *= torch.exp(GROUP_STEP * losses.detach())
    weights /= weights.sum()
    return (weights[present] * losses).sum()


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
