"""A small segmenter: where something outlined is, in grey images. Learned from masks; a judge that guides no edit.

Four pixels are four channels of one place (Shi et al. 2016), so that convolutions run at half the size.
"""

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
    """A U-Net without attention."""
    return UNet2DModel(
        sample_size=SIDE // 2, in_channels=4, out_channels=4, block_out_channels=(16, 32, 64), layers_per_block=1,
        norm_num_groups=8, down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3, add_attention=False,
    )  # fmt: skip


def logits(model: Any, images: torch.Tensor) -> torch.Tensor:
    """(N, 1, SIDE, SIDE) of images of that shape in [0, 1]."""
    halves = torch.nn.functional.pixel_unshuffle(2 * images - 1, 2)
    return torch.nn.functional.pixel_shuffle(model(halves, 0).sample, 2)


def squares(images: Sequence[Path]) -> torch.Tensor:
    """Grey images (N, 1, SIDE, SIDE) in [0, 1]."""
    views = (read(path).unit() for path in images)
    return torch.stack([square(view) for view in views])


def square(view: NDArray[Any], side: int = SIDE) -> torch.Tensor:
    """One grey image (1, side, side) of one (H, W) or in colours."""
    grey = view if view.ndim == 2 else view.mean(2)
    return torch.from_numpy(np.ascontiguousarray(fit(grey, side)[0])).float()[None]


def outlines(masks: Sequence[Path], images: Sequence[Path]) -> torch.Tensor:
    """Masks (N, 1, SIDE, SIDE) in [0, 1] of images of their sizes."""
    pairs = zip(masks, images, strict=True)
    return torch.stack([square(mask_of(mask, read(path).unit().shape[:2]).astype(np.float32)) for mask, path in pairs])


def loss(answer: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus 1 - Dice (Milletari et al. 2016)."""
    p = answer.sigmoid()
    dice = (2 * (p * truth).sum((1, 2, 3)) + 1) / (p.sum((1, 2, 3)) + truth.sum((1, 2, 3)) + 1)
    return torch.nn.functional.binary_cross_entropy_with_logits(answer, truth) + 1 - dice.mean()


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
        value = loss(logits(model, x * light), y)
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
    parts = [logits(model, part) > 0 for part in images.split(BATCH)]
    return torch.cat(parts)[:, 0].numpy()
