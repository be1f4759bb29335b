"""What a denoiser is asked and how its answer is scored: pure functions of drawn numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from counterscan.diffusion import PredictionType, column
from counterscan.training.config import Objective
from counterscan.types import Prediction


def quantiles(batch: int, step: int, seed: int) -> Tensor:
    """Numbers (batch,) in (0, 1), one an image, evenly spread over the batch and in random order.

    Spreading the times of a batch over the whole chain leaves the expected loss as it is and lowers its variance.
    """
    generator = torch.Generator().manual_seed(_mix(seed, step))
    places = torch.randperm(batch, generator=generator)
    return ((places + torch.rand(batch, generator=generator)) / batch).clamp(1e-6, 1 - 1e-6)


def times(quantile: Tensor, objective: Objective, steps: int) -> Tensor:
    """Timesteps int64 (B,) in [0, steps) at the quantiles (B,) of their distribution (Esser et al. 2024, section 3.1)."""
    u = quantile if objective.times == "uniform" else torch.special.ndtri(quantile.double()).sigmoid().float()
    u = objective.shift * u / (1 + (objective.shift - 1) * u)
    return (u * steps).long().clamp(0, steps - 1)


SEEN_TIMES = 0.1, 0.2  # of the chain: where images without noise are shown, around the passes of the method instruct
LEAST_NOISE = 0.35
LEAST_CHANGE = 0.25  # of a latent, whose variance is 1


def seen(quantile: Tensor, share: float) -> Tensor:
    """Which samples, bool (B,), a ``share`` of all, are shown without noise: drawn from the digits that times do not use."""
    return (quantile.double() * 1e4) % 1 < share


def seen_times(quantile: Tensor, steps: int) -> Tensor:
    """Timesteps int64 (B,) of what is shown without noise, in :data:`SEEN_TIMES`."""
    low, high = SEEN_TIMES
    return ((low + (high - low) * quantile) * steps).long()


def differing(change: Tensor) -> Tensor:
    """1 at the places of a ``change`` of latents (B, c, h, w) that can be told from noise, and next to them, (B, 1, h, w)."""
    differs = (change.abs().amax(1, keepdim=True) > LEAST_CHANGE).float()
    return torch.nn.functional.max_pool2d(differs, 3, stride=1, padding=1)


def where_changed(before: Tensor, after: Tensor, paired: Tensor, weight: float) -> Tensor:
    """``weight`` (B, 1, h, w) at the places where the latents of a pair differ, and next to them; 1 elsewhere."""
    near = differing(after - before)
    return 1 + (weight - 1) * near * column(paired.to(near), near)


def error_after(clean: Tensor, after: Tensor, level: Tensor, loss: str, weight: Tensor | float = 1.0) -> Tensor:
    """The error (B,) of the clean image where the network was shown another one without noise.

    In units of the noise ``level`` (B,) that belongs to the time, as the v-prediction error is; from an image to its twin the v
    that is asked for grows without bound as the level falls, so it counts as :data:`LEAST_NOISE` at least.
    """
    unit = column(level.clamp(min=LEAST_NOISE), clean)
    return error(clean / unit, after / unit, loss, weight)


def answer(prediction: Prediction, kind: PredictionType, signal: Tensor, level: Tensor) -> Tensor:
    """A prediction in the terms of ``kind``: the inverse of :func:`counterscan.diffusion.to_prediction`."""
    if kind == "epsilon":
        return prediction.noise
    if kind == "sample":
        return prediction.clean
    if kind == "velocity":
        return prediction.noise - prediction.clean
    return column(signal, prediction.noise) * prediction.noise - column(level, prediction.clean) * prediction.clean


def weights(kind: PredictionType, signal: Tensor, level: Tensor, gamma: float | None) -> Tensor:
    """Min-SNR weights (B,) of the squared error (Hang et al. 2023): min(snr, gamma) in terms of the clean image."""
    if gamma is None:
        return torch.ones_like(signal)
    snr = (signal / level.clamp(min=1e-8)) ** 2
    kept = snr.clamp(max=gamma)
    if kind == "epsilon":
        return (gamma / snr.clamp(min=1e-8)).clamp(max=1)
    return kept / (snr + 1) if kind == "v_prediction" else kept


def error(output: Tensor, target: Tensor, loss: str, weight: Tensor | float = 1.0) -> Tensor:
    """The mean error of each row (B,), places weighted: squared, absolute, or Huber's with a corner at 0.1."""
    if loss == "l1":
        each = (output - target).abs()
    elif loss == "huber":
        each = torch.nn.functional.huber_loss(output, target, reduction="none", delta=0.1)
    else:
        each = (output - target).square()
    return (each * weight).flatten(1).mean(1)


def structural(x: Tensor, y: Tensor) -> Tensor:
    """SSIM (B,) of images in [0, 1] (Wang et al. 2004), 7-pixel uniform windows; differentiable."""
    pool = lambda v: torch.nn.functional.avg_pool2d(v, 7, stride=1)  # noqa: E731
    mx, my = pool(x), pool(y)
    vx, vy, both = pool(x * x) - mx * mx, pool(y * y) - my * my, pool(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    map_ = (2 * mx * my + c1) * (2 * both + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return map_.flatten(1).mean(1)


def edges(residual: Tensor) -> Tensor:
    """The mean absolute difference of neighbours, across plus down, of each row (B,)."""
    across, down = residual.diff(dim=-1), residual.diff(dim=-2)
    return across.abs().flatten(1).mean(1) + down.abs().flatten(1).mean(1)


def _mix(seed: int, k: int) -> int:
    """One number for a generator from two; neighbours become unrelated (the finaliser of splitmix64)."""
    x = (seed * 0x9E3779B97F4A7C15 + k + 1) & (2**64 - 1)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = ((x ^ (x >> shift)) * factor) & (2**64 - 1)
    return (x ^ (x >> 31)) >> 1


def generator_of(seed: int, k: int) -> torch.Generator:
    """The generator of sample ``k``."""
    return torch.Generator().manual_seed(_mix(seed ^ 0xA5A5A5A5, k))
