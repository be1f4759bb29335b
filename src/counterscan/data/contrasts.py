"""The files of an image of several contrasts, columns ``path`` and ``path_NAME`` of a manifest, as one picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from counterscan.data.manifest import CONTRAST
from counterscan.errors import ImageError

if TYPE_CHECKING:
    from counterscan.backbones.card import Card
    from counterscan.imaging import Picture


def files_of(row: Mapping[str, Any], folder: Path = Path()) -> dict[str, Path]:
    """The files of a row by column, ``path`` first; relative ones lie under ``folder``."""
    columns = ["path", *(name for name in row if name.startswith(CONTRAST) and row[name])]
    return {name: folder / row[name] for name in columns}


def seen_by(card: Card, files: Mapping[str, Path]) -> dict[str, Path]:
    """Of an image's files those that a model sees, in the order of its channels: all where it has as many, else ``path``.

    Where the card does not name its contrasts ``path`` is the first, as in training; else it is the one without a column.

    Raises:
        ImageError: the columns are called otherwise than the model's contrasts.
    """
    if len(files) == 1 or len(files) != card.channels:
        return {"path": files["path"]}
    if not card.contrasts:
        return dict(files)
    columns = [CONTRAST + name for name in card.contrasts]
    if len(files.keys() - set(columns)) > 1:
        named = ", ".join(name for name in files if name != "path")
        raise ImageError(f"{files['path'].name}: its contrasts are {named}; the model's {', '.join(card.contrasts)}")
    return {name if name in files else "path": files.get(name, files["path"]) for name in columns}


def read(files: Iterable[Path]) -> Picture:
    """The picture of one file as it is; of several (H, W, C), in their order, in 16 bits, colours by their mean.

    Raises:
        ImageError: one of them cannot be read, or their sizes differ.
    """
    from counterscan import imaging

    pictures = [imaging.read(path) for path in files]
    if len(pictures) == 1:
        return pictures[0]
    units = [picture.unit() for picture in pictures]
    planes = [unit if unit.ndim == 2 else unit.mean(2) for unit in units]
    for picture, plane in zip(pictures, planes, strict=True):
        if plane.shape != planes[0].shape:
            sizes = " and ".join(f"{p.shape[1]}x{p.shape[0]}" for p in (plane, planes[0]))
            raise ImageError(
                f"{picture.name}: it and {pictures[0].name} are {sizes}; contrasts of a slice have one size"
            )
    return imaging.from_array(np.stack(planes, -1))
