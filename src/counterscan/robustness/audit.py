"""Is an edited image still its patient, and a copy of nobody else? Judged beside the training images of other patients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from counterscan.data.contrasts import files_of, read, seen_by
from counterscan.errors import DataError, ImageError
from counterscan.metrics.copies import Views, copy_threshold, correlate, descriptor, mirrored, views
from counterscan.metrics.counterfactual import identity_kept
from counterscan.metrics.neighbours import nearest
from counterscan.robustness.study import patients

if TYPE_CHECKING:
    from counterscan.backbones.card import Card

SIZE = 256  # pixels a side in which images are compared
NEAREST = 4  # candidates each of the image and of its mirror image
SAMPLE = 100  # training images that tell how alike two patients are
KEPT = 64  # training images whose spectra are kept
LIMITS = 0.7, 0.95  # images that are less alike are no copies and those that are more are, whatever the others are like

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Gallery:
    """The training images that can be read: the files of each of N, whose they are, and descriptors (N, 256).

    Two images that are more alike than ``limit`` are copies.
    """

    files: list[tuple[Path, ...]]
    owners: NDArray[np.str_]
    descriptors: NDArray[np.float32]
    limit: float = LIMITS[1]


def open_gallery(rows: Sequence[Mapping[str, Any]], rate: float, card: Card) -> Gallery:
    """The images of a manifest's rows as the model of the card sees them.

    At most a share ``rate`` of them is more alike to another patient's than the limit.

    Raises:
        DataError: none can be read.
    """
    found = []
    for row, owner in zip(rows, patients(rows), strict=True):
        try:
            every = files_of(row)
            files = tuple(every[column] for column in every if column in seen_by(card, every))  # ``path`` first
            found.append((files, owner, descriptor(read_grey(files))))
        except ImageError:
            continue  # what cannot be read can be neither edited nor copied
    if not found:
        raise DataError(f"none of {len(rows)} images can be read")
    groups, owners, descriptors = zip(*found, strict=True)
    gallery = Gallery(list(groups), np.array(owners), np.stack(descriptors))
    return replace(gallery, limit=_honest(gallery, rate))


def identity(factual: Image, edited: Image, owner: str, gallery: Gallery) -> float | None:
    """The share of other patients' images, in [0, 1], that are farther from the factual than its edit is; 1 is perfect.

    Images are those of :func:`grey`. ``None`` where there is no other patient.
    """
    strangers = gallery.descriptors[gallery.owners != owner]
    if not len(strangers):
        return None
    before, after, others = (np.asarray(x, np.float64) for x in (descriptor(factual), descriptor(edited), strangers))
    return float(identity_kept(before[None], after[None], others)[0])


def twin(image: Image, owner: str, gallery: Gallery) -> tuple[float | None, str]:
    """The largest correlation of details, in [-1, 1], with an image of another patient, and the path of that image.

    About 1 for copies, also mirrored or cropped ones (:func:`counterscan.metrics.copies.correlate`). ``None`` where there is
    no other patient.
    """
    others = np.flatnonzero(gallery.owners != owner)
    if not len(others):
        return None, ""
    own = descriptor(image)
    both = np.stack([own, mirrored(own)])
    places = {int(others[i]) for i in nearest(both, gallery.descriptors[others], NEAREST)[1].ravel()}
    seen = views(image)
    alike = {i: correlate(seen, _views(gallery.files[i])) for i in sorted(places)}
    best = max(alike, key=alike.__getitem__)
    return alike[best], str(gallery.files[best][0])


def grey(picture: Any) -> Image:
    """A picture as it is compared: the mean of its colours or contrasts, padded to a square of ``SIZE`` pixels."""
    from counterscan.imaging import fit

    square = fit(picture.unit(), SIZE)[0]
    return np.asarray(square if square.ndim == 2 else square.mean(2), np.float32)


def read_grey(files: Iterable[Path]) -> Image:
    """The picture of an image's files as it is compared."""
    return grey(read(files))


@lru_cache(maxsize=KEPT)
def _views(files: tuple[Path, ...]) -> Views:
    return views(read_grey(files))


def _honest(gallery: Gallery, rate: float) -> float:
    """The limit, from ``SAMPLE`` training images, within ``LIMITS``."""
    some = np.random.default_rng(0).permutation(len(gallery.files))[:SAMPLE]
    owners = [str(gallery.owners[i]) for i in some]
    if len(set(owners)) < 2:
        return LIMITS[1]
    alike = [twin(read_grey(gallery.files[i]), owner, gallery)[0] for i, owner in zip(some, owners, strict=True)]
    return float(np.clip(copy_threshold(np.array(alike, np.float64), rate, owners), *LIMITS))
