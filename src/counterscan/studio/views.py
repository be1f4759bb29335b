"""What the browser is sent to look at: plain little-endian 16-bit numbers, so that it can window at full depth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

THUMBNAIL = 128  # pixels, at most, of the longest side


def shrink(image: NDArray[Any], side: int) -> NDArray[Any]:
    """An image (H, W[, 3]) with its longest side at most ``side``, each pixel the mean of a block."""
    step = -(-max(image.shape[:2]) // side)
    if step == 1:
        return image
    height, width = (n - n % step for n in image.shape[:2])
    blocks = image[:height, :width].reshape(height // step, step, width // step, step, *image.shape[2:])
    return blocks.mean(axis=(1, 3))


def write_view(image: NDArray[Any], path: Path, side: int) -> dict[str, int]:
    """Write an image in [0, 1] as uint16 (h, w[, 3]) row by row; returns its width, height and channels.

    Of more than three contrasts the last three are shown, as red, green and blue.
    """
    image = image if image.ndim == 2 else image[..., -3:]
    small = np.round(np.clip(shrink(image, side), 0, 1) * 65535).astype("<u2")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(small.tobytes())
    os.replace(draft, path)
    return {"width": small.shape[1], "height": small.shape[0], "channels": 1 if small.ndim == 2 else 3}


def write_thumbnail(view: Path, size: dict[str, int], path: Path) -> None:
    """Write what :func:`write_view` wrote as an 8-bit PNG."""
    from PIL import Image

    shape = (size["height"], size["width"], 3)[: 2 if size["channels"] == 1 else 3]
    pixels = np.frombuffer(view.read_bytes(), "<u2").reshape(shape)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    Image.fromarray((pixels >> 8).astype(np.uint8)).save(draft, "PNG")
    os.replace(draft, path)
