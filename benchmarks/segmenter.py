"""A small segmenter: where something outlined is, in grey images. Learned from masks; a judge that guides no edit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from numpy.typing import NDArray

from counterscan.imaging import fit, read
from counterscan.imaging.masks import mask_of

SIDE, BATCH, RATE = 128, 16, 2e-3


def network() -> Any:
    """A U-Net of 0.6 million parameters, without attention."""
    widths = (16, 32, 48, 64)
    return UNet2DModel(
        sample_size=SIDE, in_channels=1, out_channels=1, block_out_channels=widths, layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D",) * 4, up_block_types=("UpBlock2D",) * 4, add_attention=False,
    )  # fmt: skip


def squares(images: Sequence[Path]) -> torch.Tensor:
    """Grey images (N, 1, SIDE, SIDE) in [0, 1]."""
    views = (read(path).unit() for path in images)
    return torch.stack([square(view) for view in views])


def square(view: NDArray[Any]) -> torch.Tensor:
    """One grey image (1, SIDE, SIDE) of one (H, W) or in colours."""
    grey = view if view.ndim == 2 else view.mean(2)
    return torch.from_numpy(np.ascontiguousarray(fit(grey, SIDE)[0])).float()[None]


def outlines(masks: Sequence[Path], images: Sequence[Path]) -> torch.Tensor:
    """Masks (N, 1, SIDE, SIDE) in [0, 1] of images of their sizes."""
    pairs = zip(masks, images, strict=True)
    return torch.stack([square(mask_of(mask, read(path).unit().shape[:2]).astype(np.float32)) for mask, path in pairs])


def loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus 1 - Dice (Milletari et al. 2016)."""
    p = logits.sigmoid()
    dice = (2 * (p * truth).sum((1, 2, 3)) + 1) / (p.sum((1, 2, 3)) + truth.sum((1, 2, 3)) + 1)
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, truth) + 1 - dice.mean()


def learned(images: torch.Tensor, masks: torch.Tensor, epochs: int, seed: int = 0) -> Any:
    """A segmenter of images and masks (N, 1, SIDE, SIDE); mirrored, brightened and darkened at random."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        model = network()
    draw = torch.Generator().manual_seed(seed)
    steps = epochs * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    order = torch.cat([torch.randperm(len(images), generator=draw) for _ in range(epochs + 1)])
    for step in range(steps):
        at = order[step * BATCH : (step + 1) * BATCH]
        light = 0.8 + 0.4 * torch.rand(BATCH, 1, 1, 1, generator=draw)
        flip = torch.rand(BATCH, 1, 1, 1, generator=draw) < 0.5
        x, y = (torch.where(flip, some[at].flip(3), some[at]) for some in (images, masks))
        value = loss(model(2 * x * light - 1, 0).sample, y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"segmenter: {step} of {steps}, loss {value.item():.3f}", flush=True)
    return model.eval()


@torch.no_grad()
def found(model: Any, images: torch.Tensor) -> NDArray[np.bool_]:
    """Where it sees something, (N, SIDE, SIDE), in images (N, 1, SIDE, SIDE)."""
    parts = [model(2 * part - 1, 0).sample > 0 for part in images.split(BATCH)]
    return torch.cat(parts)[:, 0].numpy()
