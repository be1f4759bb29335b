"""Features of many images on disk: computed once, gone on with after a kill, read as a memory map."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import DataError, ImageError
from counterscan.evaluate import rows
from counterscan.evaluate.sources import Item, identity, items
from counterscan.evaluate.spaces import Space


@dataclass(frozen=True)
class Store:
    """Rows of float32 in a file, appended and read as a memory map."""

    path: Path
    dimensions: int

    def keep(self, count: int) -> None:
        """Cut off all but the first ``count`` rows."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab"):
            os.truncate(self.path, count * self.dimensions * 4)

    def append(self, values: NDArray[Any]) -> None:
        """Add rows (N, dimensions); they are on disk when this returns."""
        with self.path.open("ab") as file:
            file.write(np.ascontiguousarray(values, np.float32).tobytes())
            file.flush()
            os.fsync(file.fileno())

    def values(self, count: int) -> NDArray[np.float32]:
        """The first ``count`` > 0 rows."""
        return np.memmap(str(self.path), np.float32, "r", shape=(count, self.dimensions))


@dataclass(frozen=True)
class Extracted:
    """``values`` (N, D) float32 is a memory map. ``index`` holds a row an image, with ``error`` where it has no features."""

    values: NDArray[np.float32]
    index: Path
    patients: list[str]
    failed: list[str]


def extract(
    source: Path, space: Space, folder: Path, *, split: str | None = None, progress: rows.Progress | None = None
) -> Extracted:
    """The features of every image of a manifest or folder that can be read; bad ones are listed in ``failed``.

    Raises:
        DataError: no image can be read.
    """
    total, key = identity(source, split)
    name = f"{space.name.replace('/', '-')}-{space.key}-{key}"
    index, store = folder / f"{name}.jsonl", Store(folder / f"{name}.f32", space.dimensions)

    def begin(done: int) -> None:
        store.keep(good_rows(index, done))

    def work(group: Sequence[Item]) -> list[rows.Row]:
        found = [_image(item, space) for item in group]
        good = [image for image, _ in found if image is not None]
        if good:
            import torch

            store.append(space(torch.stack(good)).numpy())
        return [
            {"name": item.name, "path": str(item.path), "patient": item.patient, "caption": item.caption}
            | {"files": [str(path) for path in item.files.values()]}
            | ({"error": error} if error else {})
            for item, (_, error) in zip(group, found, strict=True)
        ]

    rows.fill(index, items(source, split), work, total=total, progress=progress, begin=begin)
    patients: list[str] = []
    failed: list[str] = []
    for row in rows.read(index):
        if "error" in row:
            failed.append(row["error"])
        else:
            patients.append(row["patient"])
    if not patients:
        raise DataError(f"{source}: none of {total} images can be read; the first: {failed[0]}")
    return Extracted(store.values(len(patients)), index, patients, failed)


def good_rows(index: Path, done: int) -> int:
    """How many of the first ``done`` rows are of images that could be used."""
    return sum("error" not in row for row in islice(rows.read(index), done)) if done else 0


def square(picture: Any, space: Space) -> Any:
    """A picture as the space takes it: (channels, size, size), padded to a square."""
    from counterscan.robustness.study import shown

    return shown(picture, space.size, space.channels)


def _image(item: Item, space: Space) -> tuple[Any, str]:
    from counterscan.data.contrasts import read

    try:
        return square(read(item.files.values()), space), ""
    except ImageError as error:
        return None, f"{item.name}: {str(error).removeprefix(f'{item.path.name}: ')}"
