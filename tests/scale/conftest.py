"""A tiny model and a manifest of images of several kinds and sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.models import tiny


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    return str(tiny(tmp_path_factory.mktemp("model") / "tiny"))


def write_images(folder: Path, count: int) -> Path:
    """``count`` images, grey and coloured, 8 and 16 bits, wide and tall, and a manifest of them."""
    rng = np.random.default_rng(0)
    lines = ["path,age"]
    for i in range(count):
        height, width = ((50, 40), (36, 64), (48, 48))[i % 3]
        shape = (height, width, 3) if i % 5 == 4 else (height, width)
        kind = np.uint16 if i % 2 and len(shape) == 2 else np.uint8
        pixels = rng.integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)
        name = f"images/{i % 7}/scan {i:03d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
        lines.append(f"{name},{20 + i}")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest
