"""Save a finding's map: the signed heat map, the mask and the overlay, as PNG files marked synthetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from counterscan.drawing import difference_scale, overlay, signed_map


def save_map(
    factual: NDArray[np.float32], difference: NDArray[np.float32], mask: NDArray[np.bool_], folder: Path, stem: str
) -> dict[str, str]:
    """Write ``<stem>.map.png``, ``<stem>.mask.png`` and ``<stem>.overlay.png``; returns their names by kind."""
    from counterscan.imaging.raster import write_png

    folder.mkdir(parents=True, exist_ok=True)
    scale = difference_scale(difference)
    shown = np.where(mask, difference, 0).astype(np.float32)
    images = {
        "map": signed_map(difference, scale),
        "mask": mask.astype(np.float32),
        "overlay": overlay(factual, shown, scale),
    }
    names = {}
    for kind, image in images.items():
        pixels = image if image.dtype == np.uint8 else (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
        names[kind] = write_png(pixels, folder / f"{stem}.{kind}.png", {"kind": kind}).name
    return names
