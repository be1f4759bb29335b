"""The optimizer and its learning rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from counterscan.errors import ModelError, WordsError
from counterscan.training.config import Optimizer


def optimizer_of(parameters: dict[str, nn.Parameter], settings: Optimizer) -> torch.optim.Optimizer:
    """AdamW with one group for the text encoder and one for the rest."""
    if not parameters:
        raise ModelError("nothing is trained: no parameter of the chosen parts learns")
    text = [p for n, p in parameters.items() if ".text_encoder" in n]
    rest = [p for n, p in parameters.items() if ".text_encoder" not in n]
    groups = [{"params": g, "share": s} for g, s in ((rest, 1.0), (text, settings.text_rate)) if g]
    options: dict[str, Any] = {"lr": settings.rate, "betas": settings.betas, "weight_decay": settings.weight_decay}
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, **options)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise WordsError("optimizer.name: adamw8bit needs the package bitsandbytes; install it, or use adamw") from None
    optimizer: torch.optim.Optimizer = AdamW8bit(groups, **options)
    return optimizer


def schedule(settings: Optimizer, step: int, steps: int) -> float:
    """The share of the learning rate at ``step``, counted from 0: warm-up, then constant, or down to 0 at the end."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    part = (step - settings.warmup) / max(steps - settings.warmup, 1)
    if settings.schedule == "linear":
        return 1 - part
    return 0.5 * (1 + math.cos(math.pi * part)) if settings.schedule == "cosine" else 1.0
