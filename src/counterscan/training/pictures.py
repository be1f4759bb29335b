"""Images as a model takes them: read, fitted into its square with the aspect kept, and changed a little at random."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from counterscan.errors import CounterscanError, DataError
from counterscan.training.config import Augment

ARRAYS = (".npy", ".npz")


def square(path: Path, channels: int, size: int) -> Tensor:
    """The image in a file as float32 (C, size, size) in [0, 1]: PNG, JPEG, DICOM, NIfTI, or an array (H, W[, C]).

    Colour becomes grey by its mean, and grey is repeated for colour. Raises ``ImageError`` or ``DataError``.
    """
    from counterscan import imaging

    unit = _array(path) if path.suffix in ARRAYS else imaging.read(path).unit()
    fitted = imaging.fit(unit, size)[0]
    image = torch.from_numpy(fitted if fitted.ndim == 3 else fitted[..., None]).permute(2, 0, 1)
    if image.shape[0] == channels:
        return image.contiguous()
    if channels == 1:
        return image.mean(0, keepdim=True)
    if image.shape[0] == 1:
        return image.expand(channels, -1, -1).contiguous()
    raise DataError(f"{path}: has {image.shape[0]} channels, the model takes {channels}")


def _array(path: Path) -> np.ndarray:
    """A float array in [0, 1], (H, W) or (H, W, C); of an ``.npz`` the first array. Integers are scaled by their range."""
    try:
        loaded = np.load(path, allow_pickle=False)
        array = loaded[loaded.files[0]] if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{path}: not a readable array ({error})") from error
    if array.ndim not in (2, 3):
        raise DataError(f"{path}: an array of shape {array.shape}; (H, W) or (H, W, C) needed")
    if np.issubdtype(array.dtype, np.integer):
        return array.astype(np.float32) / np.iinfo(array.dtype).max
    if not (np.isfinite(array).all() and 0 <= array.min() and array.max() <= 1):
        raise DataError(f"{path}: values outside [0, 1]")
    return array.astype(np.float32)


def read_row(paths: Sequence[Path], where: str, channels: int, size: int) -> Tensor:
    """The image of a row (C, size, size): its contrasts, if there are as many as channels, else its first file.

    Every fault is a ``DataError`` that names the manifest's row.
    """
    if len(paths) == channels > 1:
        return torch.cat([_named(path, where, 1, size) for path in paths])
    return _named(paths[0], where, channels, size)


def _named(path: Path, where: str, channels: int, size: int) -> Tensor:
    try:
        return square(path, channels, size)
    except CounterscanError as error:
        text = str(error)
        if str(path) not in text:  # images are named without their folder
            text = f"{path}: {text.partition(': ')[2] or text}"
        raise DataError(f"{where}: {text}") from error
    except OSError as error:
        raise DataError(f"{where}: {path}: {error.strerror or error}") from error


def mirrored(augment: Augment, dropped: bool, rng: np.random.Generator) -> bool:
    """Whether this image is flipped. One number is drawn in any case, so that settings do not shift later draws."""
    flip = rng.random() < 0.5
    allowed = augment.flip in ("words", "free") or (augment.flip == "dropped" and dropped)
    return flip and allowed


def vary(image: Tensor, augment: Augment, rng: np.random.Generator) -> Tensor:
    """A random rotation, zoom, shift and change of light of an image (C, H, W); black comes in from outside."""
    turn, zoom, right, down, bright, contrast = rng.uniform(-1, 1, 6)
    if augment.rotate or augment.zoom or augment.shift:
        angle, scale = np.deg2rad(turn * augment.rotate), 1 / (1 + zoom * augment.zoom)
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        move = 2 * augment.shift
        matrix = torch.tensor([[cos, -sin, right * move], [sin, cos, down * move]], dtype=torch.float32)
        grid = torch.nn.functional.affine_grid(matrix[None], [1, *image.shape], align_corners=False)
        image = torch.nn.functional.grid_sample(image[None], grid, align_corners=False)[0]
    if augment.light:
        image = (image * (1 + contrast * augment.light) + bright * augment.light / 2).clamp(0, 1)
    return image
