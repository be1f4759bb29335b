"""``generate``: whole images from a prompt, with DPM-Solver++ on the model's own noise schedule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from counterscan.diffusion import CLEAN, draw, guide, solver_step
from counterscan.errors import WordsError
from counterscan.types import Condition, Prediction

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from counterscan.backbones.base import Backbone
    from counterscan.imaging import Picture
    from counterscan.methods import Progress

BATCH = 4


def generate(
    prompt: str,
    *,
    n: int = 1,
    steps: int = 30,
    guidance: float = 2.0,
    model: str | Path | Backbone = "chest-nih",
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Picture]:
    """``n`` images (8 bits) of a prompt. Image ``i`` depends on ``seed + i`` alone, not on ``n``.

    ``guidance`` 1 is none; above it, the image leans away from the empty prompt. Costs ``2 * steps`` evaluations an
    image, ``steps`` with guidance 1.
    """
    import torch

    from counterscan.editing import as_backbone
    from counterscan.imaging import Picture

    if not (n >= 1 and 1 <= steps <= 1000 and 0 <= guidance <= 100):
        raise WordsError(f"generate needs n >= 1, steps 1 to 1000, guidance 0 to 100; got {n}, {steps}, {guidance}")
    backbone = as_backbone(model)
    pictures: list[Picture] = []
    for start in range(0, n, BATCH):
        seeds = range(seed + start, seed + min(start + BATCH, n))
        generators = [torch.Generator().manual_seed(s) for s in seeds]

        def report(done: int, total: int, start: int = start, size: int = len(seeds)) -> None:
            if progress is not None:
                progress(start * total + done * size, n * total)

        for image in sample(backbone, prompt, generators, steps=steps, guidance=guidance, progress=report):
            pixels = (image.cpu().numpy() * 255).round().astype(np.uint8)
            pictures.append(Picture(pixels[0] if pixels.shape[0] == 1 else np.moveaxis(pixels, 0, 2)))
    return pictures


def sample(
    backbone: Backbone,
    prompt: str | Sequence[str],
    generators: Sequence[torch.Generator],
    *,
    steps: int,
    guidance: float,
    progress: Progress | None = None,
) -> Tensor:
    """Images (B, C, H, W) float32 in [0, 1], one a generator, of one prompt for all or one a generator."""
    import torch

    with torch.no_grad():
        times = [*backbone.schedule.timesteps(steps).tolist(), CLEAN]
        levels = [backbone.schedule.coefficients(t) for t in times]
        negative, positive = backbone.embed([""]), backbone.embed([prompt] if isinstance(prompt, str) else prompt)
        z = draw((len(generators), *backbone.latent_shape), generators, 1, backbone.device)[0]
        older = None
        for i in range(steps):
            clean = _guided(backbone, z, times[i], negative, positive, guidance)
            # the last step is of first order: the solver's extrapolation is unstable towards no noise
            z = solver_step(z, clean, older if i < steps - 1 else None, (levels[i - 1], levels[i], levels[i + 1]))
            older = clean
            if progress is not None:
                progress(i + 1, steps)
        return backbone.decode(z)


def _guided(backbone: Backbone, z: Tensor, t: int, negative: Condition, positive: Condition, weight: float) -> Tensor:
    import torch

    if weight == 1:
        return backbone.predict(z, t, positive).clean
    rows = z.shape[0]
    positive = positive.repeat(rows // len(positive))
    both = backbone.predict(torch.cat([z, z]), t, Condition.cat([negative.repeat(rows), positive]))
    low, high = Prediction(both.clean[:rows], both.noise[:rows]), Prediction(both.clean[rows:], both.noise[rows:])
    return guide(low, high, weight).clean
