"""Recipes of papers, as data: a method and its settings. ``counterscan.methods.get`` finds them by name.

Where a paper leaves a number open, or guides from another prompt than we do, docs/methods.md says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A method's name, its settings, and the paper whose recipe they are."""

    method: str
    paper: str
    settings: Mapping[str, Any] = field(default_factory=dict)


PRESETS: dict[str, Preset] = {
    "diff-scm": Preset(
        "implicit-guidance",
        "Sanchez et al. 2022, What is Healthy? Generative Counterfactual Diffusion for Lesion Localization",
        {"steps": 100, "depth": 0.75, "guidance": 3.0, "quantile": 0.99},
    ),
    "prism": Preset(
        "prompt-to-prompt",
        "Kumar et al. 2025, PRISM: High-Resolution & Precise Counterfactual Medical Image Generation using Language-guided "
        "Stable Diffusion",
        {
            "steps": 50,
            "depth": 1.0,
            "guidance": 7.5,
            "inversion": "null-text",
            "inner": 10,
            "cross_replace": 0.8,
            "self_replace": (0.4, 0.5, 0.6, 0.7, 0.8),
            "reweight": 2.0,
            "blend": 0.3,
        },
    ),
    "radedit": Preset(
        "masked",
        "Pérez-García et al. 2024, RadEdit: stress-testing biomedical vision models via diffusion image editing",
        {"steps": 100, "depth": 0.64, "guidance": 15.0},
    ),
    "vald": Preset(
        "sdedit",
        "Siddiqui et al. 2025, A latent diffusion approach to visual attribution in medical imaging",
        {"steps": 50, "depth": 0.5, "guidance": 7.5},
    ),
}
