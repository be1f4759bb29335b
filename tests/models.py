"""Tiny randomly initialised models in the real format, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from counterscan.backbones import compact

WORDS = ("world chest radiograph", "no small left right pleural effusion", "pacemaker")


def tiny(folder: Path, **changes: Any) -> Path:
    """A pipeline of 32-pixel images, milliseconds an evaluation."""
    settings: dict[str, Any] = {
        "words": WORDS,
        "resolution": 32,
        "vae_blocks": (8, 16),
        "unet_blocks": (16, 32),
        "unet_heads": 2,
        "text_hidden": 16,
        "text_layers": 1,
        "text_heads": 2,
        "max_length": 24,
        "template": "world chest radiograph",
        "findings": ("pleural effusion", "pacemaker"),
    }
    return compact.build(folder, **(settings | changes))


def seeing(folder: Path, **changes: Any) -> Path:
    """The same as an InstructPix2Pix pipeline: its U-Net sees an image beside the latent, and heeds it."""
    import json

    import torch
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    from counterscan.training.denoiser import beside

    tiny(folder, **changes)
    unet = beside(UNet2DConditionModel.from_pretrained(folder / "unet"))
    half = unet.config.in_channels // 2
    with torch.no_grad():
        unet.conv_in.weight[:, half:] = unet.conv_in.weight[:, :half]
    unet.save_pretrained(folder / "unet")
    index = json.loads((folder / "model_index.json").read_text())
    index["_class_name"] = "StableDiffusionInstructPix2PixPipeline"
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
