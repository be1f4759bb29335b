"""The training image that each image is most like, found by nearest neighbours and laid over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from counterscan.evaluate import rows
from counterscan.evaluate.features import Extracted
from counterscan.evaluate.spaces import Space
from counterscan.metrics.copies import PATCHES, Views, correlate, descriptor, mirrored, views
from counterscan.metrics.neighbours import nearest
from counterscan.robustness.audit import KEPT, NEAREST, SIZE, read_grey

if TYPE_CHECKING:
    from torch import Tensor


def pixel_space() -> Space:
    """Small grey pictures as a feature space, whatever their brightness and contrast."""

    def call(images: Tensor) -> Tensor:
        import torch

        return torch.from_numpy(np.stack([descriptor(image[0].numpy()) for image in images]))

    return Space("pixels", SIZE, 1, PATCHES**2, call)


@dataclass(frozen=True)
class Gallery:
    """The training images: their descriptors, their features in another space, and the files of each, ``path`` first."""

    pixels: Extracted
    features: Extracted
    files: list[tuple[Path, ...]]


def find_twins(
    index: Path, pixels: Extracted, features: Extracted, gallery: Gallery, progress: rows.Progress | None
) -> list[rows.Row]:
    """For every image its ``twin`` in the gallery, their ``similarity``, and the distance to the nearest features.

    Rows go to ``index``; a killed run goes on.
    """
    images = [row for row in rows.read(pixels.index) if "error" not in row]
    close = _candidates(pixels, features, gallery)
    rows.fill(index, _asked(images, *close), _comparer(gallery), total=len(images), progress=progress)
    return list(rows.read(index))


def _candidates(
    pixels: Extracted, features: Extracted, gallery: Gallery
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Positions (N, K) of likely twins, and the distance and position of the nearest features."""
    both = pixels.values, mirrored(np.asarray(pixels.values))
    straight, turned = (nearest(x, gallery.pixels.values, NEAREST)[1] for x in both)
    far, near = nearest(features.values, gallery.features.values, NEAREST)
    return np.concatenate([straight, turned, near], 1), far[:, 0], near[:, 0]


def _asked(
    images: Sequence[rows.Row], candidates: NDArray[np.int64], far: NDArray[np.float64], near: NDArray[np.int64]
) -> Iterator[tuple[rows.Row, list[int], float, int]]:
    for row, some, distance, place in zip(images, candidates, far, near, strict=True):
        yield row, list(dict.fromkeys(int(i) for i in some)), float(distance), int(place)


def _comparer(gallery: Gallery) -> Any:
    """Work for :func:`rows.fill` on what :func:`_asked` yields."""

    @lru_cache(maxsize=KEPT)
    def seen(place: int) -> Views:
        return views(read_grey(gallery.files[place]))

    def work(some: Sequence[tuple[rows.Row, list[int], float, int]]) -> list[rows.Row]:
        out = []
        for row, places, distance, near in some:
            own = views(read_grey(map(Path, row["files"])))
            alike = [correlate(own, seen(place)) for place in places]
            best = int(np.argmax(alike))
            twin = {"similarity": alike[best], "twin": str(gallery.files[places[best]][0])}
            out.append(row | twin | {"distance": distance, "nearest": str(gallery.files[near][0])})
        return out

    return work
