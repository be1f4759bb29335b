"""Is an image a copy of another, though flipped, brightened, cropped or compressed?

Candidates come from a nearest-neighbour search; :func:`correlate` then lays the two over each other. Images are
grey float (H, W) in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.floating[Any]]
SIDE = 128  # pixels a side at which two images are laid over each other
ZOOMS = (1.0, 0.975, 0.95, 0.925, 0.9)  # shares of the side that a crop may have kept
PATCHES = 16  # pixels a side of the descriptor


def descriptor(image: Image) -> NDArray[np.float32]:
    """(256,) of mean 0 and norm 1: the image in 16 x 16 pixels, whatever its brightness and contrast."""
    small = _resize(image, PATCHES)
    small = small - small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-12), np.float32).ravel()


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


def copy_threshold(held_out: NDArray[np.floating[Any]], rate: float = 0.01) -> float:
    """The similarity above which at most a share ``rate`` of held-out real images lie, each scored against the training images.

    No held-out image is a copy, so this is the rate at which honest images are flagged. With fewer than ``1 / rate`` of
    them it is the largest of all, and the rate is known no better than one in their number.
    """
    ordered = np.sort(np.asarray(held_out, np.float64))
    allowed = int(np.floor(rate * len(ordered)))
    return float(ordered[len(ordered) - 1 - allowed])


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
