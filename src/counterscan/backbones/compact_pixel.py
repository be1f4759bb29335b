"""Small pixel-space models in the real format: a randomly initialised, class-conditional ``DDPMPipeline`` folder.

The recipe of Diff-SCM (Sanchez et al. 2022) in diffusers' own parts: a U-Net with attention at its coarse levels, whose
classes join the time embedding, the last class saying nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from counterscan.backbones.card import Card
from counterscan.backbones.compact import seeded
from counterscan.backbones.quiet import quiet


def build(
    folder: str | Path,
    *,
    classes: Sequence[str] = (),
    name: str | None = None,
    channels: int = 4,
    resolution: int = 64,
    blocks: Sequence[int] = (32, 64, 96),
    attention: Sequence[bool] | None = None,
    layers: int = 2,
    head_width: int = 16,
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon",
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear",
    template: str = "",
    findings: Sequence[str] = (),
    seed: int = 0,
) -> Path:
    """Write a randomly initialised pipeline folder and return its path.

    ``classes`` are the words of the classes, such as ("glioma", "no glioma", ""): "" is the null class; none at all makes
    an unconditional model. ``blocks`` are the channels of the levels, ``attention`` says which look at themselves
    (default: all but the finest). Same arguments, same weights; the global random state is left as it was.
    """
    from diffusers import __version__
    from diffusers.models.unets.unet_2d import UNet2DModel
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    folder = Path(folder)
    if resolution % 2 ** (len(blocks) - 1):
        raise ValueError(f"resolution {resolution} cannot be halved {len(blocks) - 1} times")
    looks = [level > 0 for level in range(len(blocks))] if attention is None else list(attention)
    if len(looks) != len(blocks):
        raise ValueError(f"attention has {len(looks)} levels, blocks {len(blocks)}")
    folder.mkdir(parents=True, exist_ok=True)
    with seeded(seed), quiet():
        UNet2DModel(
            sample_size=resolution,
            in_channels=channels,
            out_channels=channels,
            block_out_channels=tuple(blocks),
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in looks),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(looks)),
            layers_per_block=layers,
            attention_head_dim=head_width,
            norm_num_groups=_groups(blocks),
            resnet_time_scale_shift="scale_shift",
            num_class_embeds=len(classes) or None,
        ).save_pretrained(folder / "unet")
        DDPMScheduler(beta_schedule=beta_schedule, prediction_type=prediction_type, clip_sample=False).save_pretrained(
            folder / "scheduler"
        )
    index = {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": __version__,
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    card = Card(
        name or folder.name,
        "pixel",
        tuple(findings),
        template,
        channels,
        resolution,
        default_method="implicit-guidance",
        classes=tuple(classes),
    )
    card.write(folder)
    return folder


def _groups(blocks: Sequence[int]) -> int:
    """The groups of all group norms: at most 8, and at least 4 channels in each, where the channels allow it.

    A group of one or two channels cannot say how bright its channel is, and the class has little left to scale and shift.
    """
    return max(g for g in (8, 4, 2, 1) if not any(c % g for c in blocks) and (g == 1 or min(blocks) // g >= 4))
