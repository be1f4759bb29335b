"""The mathematics of diffusion, as pure functions. Every noisy latent is ``z = signal * clean + noise_level * noise``.

Two kinds of schedule fill in the coefficients: variance preserving (``signal² + noise_level² = 1``, the DDPM family)
and flow matching (``signal = 1 - s``, ``noise_level = s``). The formulas below hold for both unless a docstring says
otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from counterscan.types import Prediction

PredictionType = Literal["epsilon", "v_prediction", "sample", "velocity"]
CLEAN = -1  # the "timestep" of a finished latent: below every timestep a network is asked about


@dataclass(frozen=True)
class Schedule:
    """Timestep → (signal, noise) coefficients.

    ``signal`` and ``noise`` (T,) are tabulated at the T training timesteps; ``end`` is the pair that belongs to
    ``CLEAN``, the level at which sampling stops: (1, 0), or the coefficients of timestep 0 for Stable Diffusion.
    ``spacing`` and ``offset`` say which timesteps a shorter chain visits (the diffusers names).
    """

    signal: Tensor
    noise: Tensor
    end: tuple[float, float] = (1.0, 0.0)
    spacing: str = "leading"
    offset: int = 0

    def __len__(self) -> int:
        return self.signal.shape[0]

    @property
    def is_flow(self) -> bool:
        """True for flow matching (``signal + noise = 1``), False for variance-preserving schedules."""
        return torch.allclose(self.signal + self.noise, torch.ones_like(self.signal), atol=1e-4)

    def coefficients(self, t: Tensor | int | float) -> tuple[Tensor, Tensor]:
        """(signal, noise) at ``t``, float32, of its shape. Fractions are interpolated; below 0 is ``CLEAN``."""
        t = torch.as_tensor(t)
        position = t.to("cpu", torch.float32).clamp(0, len(self) - 1)
        low = position.floor().long()
        high = (low + 1).clamp(max=len(self) - 1)
        part = position - low
        clean = t.cpu() < 0

        def at(table: Tensor, end: float) -> Tensor:
            value = table[low] + part * (table[high] - table[low])
            return torch.where(clean, torch.full_like(value, end), value).to(t.device)

        return at(self.signal, self.end[0]), at(self.noise, self.end[1])

    def timesteps(self, n: int, depth: float = 1.0) -> Tensor:
        """The timesteps (int64, falling) of the lowest ``depth`` of a chain of ``n`` steps; at least one step.

        ``depth = 1`` starts from pure noise, ``depth = 0.6`` visits the 60 % of the steps nearest the clean image.
        """
        if not 1 <= n <= len(self):
            raise ValueError(f"steps must be between 1 and {len(self)}, got {n}")
        if not 0 < depth <= 1:
            raise ValueError(f"depth must be in (0, 1], got {depth}")
        total = len(self)
        if self.spacing == "trailing":
            chain = (total - torch.arange(n, dtype=torch.float64) * (total / n)).round().long() - 1
        elif self.spacing == "linspace":
            chain = torch.linspace(total - 1, 0, n, dtype=torch.float64).round().long()
        else:
            ratio = total // n
            offset = min(self.offset, total - 1 - (n - 1) * ratio)  # a full chain leaves no room for an offset
            chain = torch.arange(n - 1, -1, -1) * ratio + offset
        return chain[n - max(1, round(n * depth)) :]


def vp_schedule(
    alphas_cumprod: Tensor, *, end_at_one: bool = True, spacing: str = "leading", offset: int = 0
) -> Schedule:
    """A variance-preserving schedule from the cumulative products of ``1 - beta`` (T,)."""
    alphas = alphas_cumprod.double()
    signal, noise = alphas.sqrt().float(), (1 - alphas).sqrt().float()
    end = (1.0, 0.0) if end_at_one else (signal[0].item(), noise[0].item())
    return Schedule(signal, noise, end, spacing, offset)


def flow_schedule(steps: int = 1000, *, shift: float = 1.0, spacing: str = "trailing") -> Schedule:
    """A flow-matching schedule: ``s = (t + 1) / steps``, moved towards noise by ``shift`` as in Stable Diffusion 3."""
    s = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    s = shift * s / (1 + (shift - 1) * s)
    return Schedule((1 - s).float(), s.float(), (1.0, 0.0), spacing)


def schedule_from_config(config: Mapping[str, Any]) -> Schedule:
    """The schedule of a diffusers ``scheduler_config.json``. Raises ``ValueError`` for a beta schedule nobody knows."""
    steps = int(config.get("num_train_timesteps", 1000))
    if "FlowMatch" in str(config.get("_class_name", "")):
        return flow_schedule(steps, shift=float(config.get("shift", 1.0)))
    alphas = alphas_cumprod(
        steps,
        str(config.get("beta_schedule", "linear")),
        float(config.get("beta_start", 1e-4)),
        float(config.get("beta_end", 0.02)),
        config.get("trained_betas"),
    )
    if config.get("rescale_betas_zero_snr", False):
        alphas = zero_terminal_snr(alphas)
    return vp_schedule(
        alphas,
        end_at_one=bool(config.get("set_alpha_to_one", True)),
        spacing=str(config.get("timestep_spacing", "leading")),
        offset=int(config.get("steps_offset", 0)),
    )


def alphas_cumprod(
    steps: int, kind: str, start: float, end: float, trained_betas: Sequence[float] | None = None
) -> Tensor:
    """Cumulative products of ``1 - beta`` (T,), float64, for diffusers' named beta schedules."""
    if trained_betas is not None:
        betas = torch.as_tensor(trained_betas, dtype=torch.float64)
    elif kind == "linear":
        betas = torch.linspace(start, end, steps, dtype=torch.float64)
    elif kind == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    elif kind == "squaredcos_cap_v2":
        bar = lambda i: math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2  # noqa: E731
        betas = torch.tensor([min(1 - bar(i + 1) / bar(i), 0.999) for i in range(steps)], dtype=torch.float64)
    else:
        raise ValueError(f"unknown beta_schedule {kind!r}; known: linear, scaled_linear, squaredcos_cap_v2")
    return (1 - betas).cumprod(0)


def zero_terminal_snr(alphas: Tensor) -> Tensor:
    """Rescaled so that the last timestep is pure noise (Lin et al. 2024, algorithm 1); cumulative products (T,)."""
    root = alphas.sqrt()
    first, last = root[0].clone(), root[-1].clone()
    return ((root - last) * first / (first - last)) ** 2


def column(value: Tensor, like: Tensor) -> Tensor:
    """A (B,) or scalar coefficient shaped to multiply ``like`` (B, ...)."""
    value = value.to(like.device, like.dtype)
    return value.reshape(-1, *[1] * (like.ndim - 1)) if value.ndim else value


def to_prediction(output: Tensor, z: Tensor, kind: PredictionType, signal: Tensor, noise: Tensor) -> Prediction:
    """What a network put out at ``z``, as (clean, noise), whatever it was trained to predict.

    ``epsilon`` and ``sample`` hold for every schedule; ``v_prediction`` (``signal * noise - noise_level * clean``) for
    variance-preserving ones; ``velocity`` (``noise - clean``) for flow matching.
    """
    s, n = column(signal, z), column(noise, z)
    if kind == "epsilon":
        return Prediction((z - n * output) / s.clamp(min=1e-8), output)
    if kind == "v_prediction":
        return Prediction(s * z - n * output, s * output + n * z)
    if kind == "sample":
        return Prediction(output, (z - s * output) / n.clamp(min=1e-8))
    if kind == "velocity":
        return Prediction(z - n * output, z + s * output)
    raise ValueError(f"unknown prediction type {kind!r}; known: epsilon, v_prediction, sample, velocity")


def training_target(clean: Tensor, noise: Tensor, kind: PredictionType, signal: Tensor, level: Tensor) -> Tensor:
    """What a network of this kind should put out for ``add_noise(clean, noise, signal, level)``."""
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return column(signal, clean) * noise - column(level, clean) * clean
    if kind == "sample":
        return clean
    if kind == "velocity":
        return noise - clean
    raise ValueError(f"unknown prediction type {kind!r}; known: epsilon, v_prediction, sample, velocity")


def add_noise(clean: Tensor, noise: Tensor, signal: Tensor, level: Tensor) -> Tensor:
    """The latent at a level: ``signal * clean + level * noise``."""
    return column(signal, clean) * clean + column(level, clean) * noise


def guide(negative: Prediction, positive: Prediction, weight: float) -> Prediction:
    """Classifier-free guidance ``negative + weight * (positive - negative)``: 0 is all negative, 1 all positive."""
    return Prediction(
        negative.clean + weight * (positive.clean - negative.clean),
        negative.noise + weight * (positive.noise - negative.noise),
    )


def into_range(clean: Tensor, quantile: float, reach: Tensor) -> Tensor:
    """Dynamic normalisation (Sanchez et al. 2022): clipped to a spatial quantile, and scaled back to ``reach`` (B, c).

    The quantile of the absolute values is taken image by image and channel by channel of ``clean`` (B, c, h, w); where
    it is at most ``reach``, values beyond ``reach`` are only clipped.
    """
    limit = torch.maximum(clean.abs().flatten(2).quantile(quantile, dim=2), reach)[..., None, None]
    return clean.clamp(-limit, limit) * (reach[..., None, None] / limit)


def posterior_deviation(signal: Tensor, noise: Tensor, signal_to: Tensor, noise_to: Tensor, eta: float = 1.0) -> Tensor:
    """Standard deviation of fresh noise in a step down to a cleaner level; ``eta`` 0 is DDIM, 1 is DDPM.

    ``eta * (n'/n) * sqrt(n² - (s n'/s')²)``, which is the DDPM posterior for variance-preserving schedules and
    holds for flow matching as well.
    """
    kept = signal / signal_to.clamp(min=1e-8) * noise_to
    return eta * noise_to / noise.clamp(min=1e-8) * (noise**2 - kept**2).clamp(min=0).sqrt()


def ddim_step(prediction: Prediction, signal_to: Tensor, noise_to: Tensor, deviation: Tensor | float = 0.0) -> Tensor:
    """The mean of the latent at another level (cleaner or noisier); add ``deviation * fresh noise`` if there is any."""
    left = (noise_to**2 - torch.as_tensor(deviation) ** 2).clamp(min=0).sqrt()
    return column(signal_to, prediction.clean) * prediction.clean + column(left, prediction.noise) * prediction.noise


def solver_step(z: Tensor, clean: Tensor, older: Tensor | None, levels: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """One step of DPM-Solver++ 2M (Lu et al. 2022) on predictions of the clean latent.

    ``levels`` are the (signal, noise) of the step before, of ``z`` and of the goal; ``older`` is the clean prediction
    of the step before, or ``None`` for a first-order step: the first, the last, and any to a level without noise.
    """
    before, here, there = levels
    if older is not None:
        span, last = _log_snr(there) - _log_snr(here), _log_snr(here) - _log_snr(before)
        clean = clean + (clean - older) * (span / (2 * last))
    shrink = there[1] / here[1]
    return shrink * z + (there[0] - shrink * here[0]) * clean


def _log_snr(level: tuple[Tensor, Tensor]) -> Tensor:
    return level[0].log() - level[1].log()


def draw(
    shape: Sequence[int], generator: torch.Generator | Sequence[torch.Generator], count: int, device: torch.device | str
) -> Tensor:
    """Standard normal noise (count, B, ...) for ``shape`` (B, ...), made on the CPU, one image after the other.

    With a list, image ``i`` uses its own generator ``i``, so that a batch equals its images one by one.
    """
    items = [torch.randn((count, *shape[1:]), generator=g) for g in one_each(generator, shape[0])]
    return torch.stack(items, dim=1).to(device)


def one_each(generator: torch.Generator | Sequence[torch.Generator], images: int) -> list[torch.Generator]:
    """A generator an image: its own, or the one of all. ``ValueError`` for a list of another length."""
    generators = [generator] * images if isinstance(generator, torch.Generator) else list(generator)
    if len(generators) != images:
        raise ValueError(f"{len(generators)} generators for {images} images; give one, or one an image")
    return generators
