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
