"""Train the conditional denoiser (U-Net and text encoder together) from latents that were encoded once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from counterscan.training.autoencoder import cosine
from counterscan.training.captions import CaptionSettings, Row, caption


@dataclass(frozen=True)
class DenoiserSettings:
    """``steps`` of ``batch`` latents; cosine decay from ``rate`` (times ``text_rate`` for the text encoder); exponential
    moving average of the weights.

    ``shift`` moves the drawn times towards noise, ``u -> shift u / (1 + (shift - 1) u)`` (Esser et al., 2024): large
    latents keep their layout until very late, and it is there that the prompt decides. The v-prediction error is not
    weighted further: min-SNR weights vanish with the signal-to-noise ratio, and measured here the prompt was then
    still ignored after 12 000 images. ``compile`` fuses the U-Net with torch.compile.
    """

    steps: int = 3000
    batch: int = 32
    rate: float = 6e-4
    warmup: int = 100
    ema: float = 0.998
    shift: float = 2.5
    text_rate: float = 2.0
    seed: int = 0
    compile: bool = False
    captions: CaptionSettings = field(default_factory=CaptionSettings)


@dataclass(frozen=True)
class Corpus:
    """Latents (N, C, h, w) float16, already scaled, with what is known of each image and its sampling weight."""

    latents: NDArray[np.float16]
    rows: Sequence[Row]
    weights: NDArray[np.float64]


def train(
    unet: Any,
    text_encoder: Any,
    tokenizer: Any,
    alphas_cumprod: Tensor,
    corpus: Corpus,
    settings: DenoiserSettings,
    *,
    log: Callable[[dict[str, float]], None],
    save: Callable[[nn.Module, nn.Module], None],
    every: int = 250,
    first_step: int = 0,
) -> None:
    """Minimise the v-prediction error; ``save(unet, text_encoder)`` receives the averaged weights."""
    rng, generator = (
        np.random.default_rng([settings.seed, first_step]),
        torch.Generator().manual_seed(settings.seed + first_step),
    )
    parts = nn.ModuleList([unet, text_encoder]).train()
    average = {name: p.detach().clone() for name, p in parts.named_parameters()}
    groups = [
        {"params": unet.parameters(), "scale": 1.0},
        {"params": text_encoder.parameters(), "scale": settings.text_rate},
    ]
    optimiser = torch.optim.AdamW(groups, lr=settings.rate, weight_decay=1e-2, betas=(0.9, 0.98))
    forward = torch.compile(unet) if settings.compile else unet
    chance = corpus.weights / corpus.weights.sum()
    start, running = time.monotonic(), 0.0
    for step in range(first_step, settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = group["scale"] * settings.rate * cosine(step, settings.steps, settings.warmup)
        pick = rng.choice(len(chance), settings.batch, p=chance)
        words = [caption(corpus.rows[i], rng, settings.captions) for i in pick]
        tokens = tokenizer(
            words, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
        )
        z = torch.from_numpy(corpus.latents[pick].astype(np.float32))
        noise = torch.randn(z.shape, generator=generator)
        # stratified times: every batch covers the whole chain, which lowers the variance of the loss
        t = (torch.arange(settings.batch) + torch.rand(settings.batch, generator=generator)) / settings.batch
        t = settings.shift * t / (1 + (settings.shift - 1) * t)
        t = (t * len(alphas_cumprod)).long().clamp(max=len(alphas_cumprod) - 1)
        a = alphas_cumprod[t].view(-1, 1, 1, 1)
        noisy, target = a.sqrt() * z + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * z
        with torch.autocast("cpu", torch.bfloat16):
            context = text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
            predicted = forward(noisy, t, encoder_hidden_states=context, return_dict=False)[0]
        value = (predicted.float() - target).square().mean()
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimiser.step()
        decay = min(settings.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), [p.detach() for p in parts.parameters()], 1 - decay)
        running = 0.98 * running + 0.02 * value.item() if step > first_step else value.item()
        if (step + 1) % 25 == 0:
            pace = settings.batch * (step + 1 - first_step) / (time.monotonic() - start)
            log({"step": step + 1, "loss": running, "images_per_second": pace})
        if (step + 1) % every == 0 or step + 1 == settings.steps:
            _with_average(parts, average, lambda: save(unet, text_encoder))


def _with_average(parts: nn.Module, average: dict[str, Tensor], action: Callable[[], None]) -> None:
    """Run ``action`` while the modules hold the averaged weights, then put the trained ones back."""
    trained = {name: p.detach().clone() for name, p in parts.named_parameters()}
    with torch.no_grad():
        for name, p in parts.named_parameters():
            p.copy_(average[name])
        action()
        for name, p in parts.named_parameters():
            p.copy_(trained[name])
