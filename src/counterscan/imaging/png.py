"""PNG with 16-bit colour, which Pillow would round to 8 bits: read and written without loss."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

DEEP = {"RGB;16B": 3, "RGBA;16B": 4, "LA;16B": 2}
"""How Pillow names the layouts of which it would keep only the high bytes; samples a pixel."""


def layout(image: Image.Image) -> str | None:
    """The name in ``DEEP`` of an opened, not yet loaded PNG; ``None`` for all that Pillow reads exactly."""
    name = image.tile[0].args if isinstance(image, PngImagePlugin.PngImageFile) and image.tile else None
    return name if isinstance(name, str) and name in DEEP else None


def read_deep(path: Path, name: str) -> NDArray[np.uint16]:
    """uint16 (H, W) or (H, W, 3); alpha is dropped. Pillow undoes the filters; only which bytes it hands out differs."""
    if name == "LA;16B":  # four bytes a pixel: taken as they are, grey's high and low byte come first
        raw = _bytes(path, "RGBA")
        return _join(raw[..., 0], raw[..., 1])
    low_bytes = name.replace("16B", "16L")  # read as little-endian, the "high" byte of each sample is its low one
    return _join(_bytes(path, name)[..., :3], _bytes(path, low_bytes)[..., :3])


def _join(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint16]:
    joined: NDArray[np.uint16] = high.astype(np.uint16) * np.uint16(256)
    joined += low
    return joined


def _bytes(path: Path, name: str) -> NDArray[np.uint8]:
    with PngImagePlugin.PngImageFile(path) as image:
        image.tile = [tile._replace(args=name) for tile in image.tile]
        return np.asarray(image)


def write_deep(pixels: NDArray[np.uint16], path: Path, info: PngImagePlugin.PngInfo) -> None:
    """Write uint16 (H, W, 3) with the text chunks of ``info``, each row as its difference to the row above."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels, ">u2").view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2  # the filter "up"
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])  # modulo 256, as PNG wants
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)))
        for kind, data, *_ in info.chunks:
            file.write(_chunk(kind, data))
        file.write(_chunk(b"IDAT", zlib.compress(filtered.data, 4)))
        file.write(_chunk(b"IEND", b""))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
