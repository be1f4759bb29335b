"""How well a model denoises each image: the losses that membership inference compares."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from counterscan.errors import ImageError
from counterscan.evaluate import rows
from counterscan.evaluate.sources import Item, identity, items

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone

DEPTHS = (0.1, 0.25, 0.4, 0.6)  # shares of the noise schedule


def losses(
    backbone: Backbone, source: Path, folder: Path, *, split: str | None, most: int, progress: rows.Progress | None
) -> list[float]:
    """Mean squared error of the predicted noise, one an image, under its caption and the same noise for all.

    The first ``most`` images are asked; unreadable ones are left out.
    """
    count, key = identity(source, split)
    index = folder / f"losses-{backbone.fingerprint}-{key}-{most}.jsonl"

    def work(some: Sequence[Item]) -> list[rows.Row]:
        return [{"loss": _loss(backbone, item)} for item in some]

    rows.fill(index, islice(items(source, split), most), work, total=min(count, most), progress=progress)
    return [row["loss"] for row in rows.read(index) if not np.isnan(row["loss"])]


def _loss(backbone: Backbone, item: Item) -> float:
    import torch

    from counterscan.data.contrasts import read, seen_by
    from counterscan.diffusion import draw
    from counterscan.editing import to_tensor
    from counterscan.imaging import fit

    try:
        square, _ = fit(read(seen_by(backbone.card, item.files).values()).unit(), backbone.resolution)
    except ImageError:
        return float("nan")
    last = int(backbone.schedule.timesteps(1000).max())
    with torch.no_grad():
        z = backbone.encode(to_tensor(square, backbone.channels)[None].to(backbone.device))
        condition = backbone.embed([item.caption or backbone.card.template])
        noise = draw(tuple(z.shape), [torch.Generator().manual_seed(0)], 1, backbone.device)[0]
        total = 0.0
        for depth in DEPTHS:
            signal, sigma = backbone.schedule.coefficients(round(depth * last))
            told = backbone.predict(signal * z + sigma * noise, round(depth * last), condition)
            total += float((told.noise - noise).square().mean())
    return total / len(DEPTHS)
