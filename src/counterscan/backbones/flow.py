"""What the flow-matching transformers share: noise levels whose shift may depend on the image's size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from counterscan.diffusion import Schedule, schedule_from_config


def shifted_schedule(config: Mapping[str, Any], patches: int) -> Schedule:
    """The schedule of a ``scheduler_config.json`` for an image of so many patches.

    With ``use_dynamic_shifting`` larger images get more noise (Esser et al. 2024): the logarithm of the shift, or the shift
    itself (``time_shift_type`` "linear"), is a line through two sizes.
    """
    if not config.get("use_dynamic_shifting", False):
        return schedule_from_config(config)
    small, large = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    mu = low + (high - low) * (patches - small) / (large - small)
    linear = config.get("time_shift_type", "exponential") == "linear"
    return schedule_from_config({**config, "shift": mu if linear else math.exp(mu)})
