"""Is an image a copy of another, though flipped, brightened, cropped or compressed?

Candidates come from a nearest-neighbour search; :func:`correlate` then lays the two over each other. Images are
grey float (H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Image = NDArray[np.floating[Any]]
SIDE = 128  # pixels a side at which two images are laid over each other
ZOOMS = (1.0, 0.975, 0.95, 0.925, 0.9)  # shares of the side that a crop may have kept
RESAVED = 0.99  # correlation that an image and its resaved copy exceed: JPEG of quality 60 reaches 0.997
PATCHES = 16  # pixels a side of the descriptor


def descriptor(image: Image) -> NDArray[np.float32]:
    """(256,) of mean 0 and norm 1: the image in 16 x 16 pixels, whatever its brightness and contrast."""
    small = _resize(image, PATCHES)
    small = small - small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-12), np.float32).ravel()


def mirrored(descriptors: NDArray[Any]) -> NDArray[Any]:
    """The descriptors (..., 256) of the mirror images."""
    square = descriptors.reshape(*descriptors.shape[:-1], PATCHES, PATCHES)
    return square[..., ::-1].reshape(descriptors.shape)


def detail(image: Image, side: int = SIDE) -> NDArray[np.float32]:
    """(side, side): what is left of the image without its coarse shading, of mean 0 and norm 1.

    Anatomy makes all radiographs alike when they are blurred; what tells two apart is finer. Contrast is made even, so that
    a brightened image is itself.
    """
    from scipy.ndimage import gaussian_filter

    small = _resize(image, side)
    band = gaussian_filter(small, 0.8) - gaussian_filter(small, side / 21)
    level = np.sqrt(gaussian_filter(band**2, side / 16))
    band = band / (level + 0.2 * level.mean() + 1e-8)
    band -= band.mean()
    return np.asarray(band / max(float(np.linalg.norm(band)), 1e-12), np.float32)


@dataclass(frozen=True)
class Views:
    """Spectra of an image's details: of the ``whole`` (S, S / 2 + 1), and of its middles and their mirror images, ``parts``."""

    whole: NDArray[np.complexfloating[Any, Any]]
    parts: NDArray[np.complexfloating[Any, Any]]


def views(image: Image) -> Views:
    """All that :func:`correlate` needs of an image: worth keeping where it is compared with several others."""
    middles = np.stack([detail(_middle(image, zoom)) for zoom in ZOOMS])
    parts = np.concatenate([middles, middles[..., ::-1]])
    return Views(np.fft.rfft2(middles[0]), np.conj(np.fft.rfft2(parts)))


def correlate(a: Views, b: Views) -> float:
    """The best correlation of two images' details, in [-1, 1], over mirror images, crops to 90 % of either and shifts by 10 %.

    About 1 for copies. Either may be a crop of the other: the middle of one is laid on the whole of the other, and the
    shift finds where it really was. Correlations over all shifts at once are products of Fourier transforms.
    """
    found = np.fft.irfft2(np.concatenate([a.whole * b.parts, b.whole * a.parts]), s=(SIDE, SIDE))
    return float(_near(found, round(SIDE * 0.1)).max())


def aligned_correlation(image: Image, other: Image) -> float:
    """:func:`correlate` of two images."""
    return correlate(views(image), views(other))


def copy_threshold(
    held_out: ArrayLike, rate: float = 0.01, patients: Sequence[Hashable] | None = None, confidence: float = 0.95
) -> float:
    """The similarity above which at most a share ``rate`` of honest images lie, from held-out real ones (N,), none a copy.

    Each was scored against the training images. Images of one patient are alike, so every patient counts once, and there are
    never enough to see so rare a tail: this is the larger of the quantile that was seen and the one-sided normal tolerance
    limit, which holds ``rate`` with ``confidence`` (Natrella 1963). Copies are far above both.

    Raises:
        ValueError: fewer than two patients, or a rate that is none.
    """
    from scipy.stats import nct, norm

    values = np.asarray(held_out, np.float64)
    names = list(range(len(values))) if patients is None else list(patients)
    places = {name: k for k, name in enumerate(dict.fromkeys(names))}
    n = len(places)
    if n < 2 or not 0 < rate < 1:
        raise ValueError(f"a threshold needs two held-out patients and a rate between 0 and 1, got {n} and {rate}")
    owner = np.array([places[name] for name in names])
    weights = 1 / np.bincount(owner)[owner] / n
    order = np.argsort(values)
    seen = values[order][np.searchsorted(weights[order].cumsum(), 1 - rate - 1e-9)]
    mean = float(weights @ values)
    deviation = float(np.sqrt(weights @ (values - mean) ** 2 * n / (n - 1)))
    reach = float(nct.ppf(confidence, n - 1, norm.ppf(1 - rate) * np.sqrt(n)) / np.sqrt(n))
    return max(float(seen), mean + reach * deviation)


def _near(correlations: NDArray[np.floating[Any]], reach: int) -> NDArray[np.floating[Any]]:
    """Those (N, 2 reach + 1, 2 reach + 1) of shifts by at most ``reach`` pixels either way; shifts go round."""
    rolled = np.roll(correlations, (reach, reach), (1, 2))
    return rolled[:, : 2 * reach + 1, : 2 * reach + 1]


def _middle(image: Image, share: float) -> Image:
    height, width = image.shape
    top, left = round(height * (1 - share) / 2), round(width * (1 - share) / 2)
    return image[top : height - top, left : width - left]


def _resize(image: Image, side: int) -> NDArray[np.float32]:
    from PIL import Image as pillow

    grey = pillow.fromarray(np.ascontiguousarray(image, np.float32))
    return np.asarray(grey.resize((side, side), pillow.Resampling.BOX if side < 64 else pillow.Resampling.BILINEAR))
