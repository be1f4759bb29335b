"""How alike two images are. Images are float (H, W) or (H, W, C) in [0, 1]; colour channels count alike."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import ModelError

Image = NDArray[np.floating[Any]]
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2  # for intensities from 0 to 1
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def mae(a: Image, b: Image) -> float:
    """Mean absolute difference, in [0, 1]; 0 for equal images."""
    return float(np.abs(np.subtract(a, b, dtype=np.float64)).mean())


def psnr(a: Image, b: Image) -> float:
    """Peak signal-to-noise ratio in dB, ``-10 log10 MSE`` with peak 1; infinite for equal images."""
    mse = float(np.square(np.subtract(a, b, dtype=np.float64)).mean())
    return -10 * float(np.log10(mse)) if mse else float("inf")


def ssim(a: Image, b: Image) -> float:
    """Structural similarity (Wang et al., IEEE TIP 2004) in [-1, 1]; 1 for equal images.

    Gaussian window of 11 pixels and sigma 1.5, K1 = 0.01, K2 = 0.03, averaged where the window lies inside the image.

    Raises:
        ValueError: a side below 11 pixels, or two shapes.
    """
    return float(_ssim_maps(a, b)[0].mean())


def ms_ssim(a: Image, b: Image) -> float:
    """Multi-scale structural similarity (Wang et al., Asilomar 2003) in [0, 1]; 1 for equal images.

    Five scales, each the 2 x 2 mean of the one before, with the paper's weights; negative terms count as 0.

    Raises:
        ValueError: a side of at most 160 pixels (the coarsest scale would be smaller than the window), or two shapes.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if min(a.shape[:2]) <= (WINDOW - 1) * 2 ** (len(SCALES) - 1):
        raise ValueError(f"MS-SSIM needs images of more than 160 pixels a side, got {a.shape[1]}x{a.shape[0]}")
    product = 1.0
    for k, weight in enumerate(SCALES):
        whole, structure = _ssim_maps(a, b)
        term = (whole if k == len(SCALES) - 1 else structure).mean()
        product *= max(float(term), 0.0) ** weight
        a, b = _half(a), _half(b)
    return product


def ms_ssim_diversity(images: Sequence[Image]) -> float:
    """Mean MS-SSIM over all pairs of images of ONE prompt, in [0, 1]: LOWER is more diverse.

    As RoentGen (Chambon et al. 2022) reports it: the opposite reading of ``ms_ssim``, which compares an edit with its
    original.

    Raises:
        ValueError: fewer than two images.
    """
    if len(images) < 2:
        raise ValueError("diversity needs at least two images of a prompt")
    return float(np.mean([ms_ssim(a, b) for a, b in combinations(images, 2)]))


def lpips(a: Image, b: Image, net: str = "alex") -> float:
    """Learned perceptual distance (Zhang et al., CVPR 2018), 0 for equal images; by the package ``lpips``, where installed.

    The package fetches the weights of ``net``, such as "alex" or "vgg", when it is first asked.

    Raises:
        ModelError: the package is not installed, or the weights cannot be fetched.
    """
    import torch

    def tensor(x: Image) -> Any:
        colour = np.repeat(x[..., None], 3, axis=2) if x.ndim == 2 else x
        return torch.from_numpy(np.ascontiguousarray(colour, np.float32)).permute(2, 0, 1)[None] * 2 - 1

    with torch.no_grad():
        return float(_perceptual(net)(tensor(a), tensor(b)))


@lru_cache(maxsize=1)
def _perceptual(net: str) -> Any:
    """The network of ``lpips``."""
    try:
        import lpips as package

        return package.LPIPS(net=net, verbose=False).eval()
    except ImportError:
        raise ModelError("LPIPS needs the package lpips: pip install 'counterscan[metrics]'") from None
    except OSError as error:
        raise ModelError(f"LPIPS cannot fetch the weights of {net}: {' '.join(str(error).split())}") from None


def _ssim_maps(a: Image, b: Image) -> tuple[Image, Image]:
    """The SSIM of every window, and its contrast-structure part."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"images of shapes {a.shape} and {b.shape} cannot be compared")
    if min(a.shape[:2]) < WINDOW:
        raise ValueError(f"SSIM needs images of at least {WINDOW} pixels a side, got {a.shape[1]}x{a.shape[0]}")
    mean_a, mean_b = _window(a), _window(b)
    var_a, var_b = _window(a * a) - mean_a**2, _window(b * b) - mean_b**2
    both = _window(a * b) - mean_a * mean_b
    structure = (2 * both + C2) / (np.maximum(var_a, 0) + np.maximum(var_b, 0) + C2)
    return (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1) * structure, structure


def _window(x: Image) -> Image:
    """Gaussian means of all windows inside the image."""
    from scipy.ndimage import correlate1d

    reach = WINDOW // 2
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / SIGMA) ** 2)
    weights /= weights.sum()
    smooth = correlate1d(correlate1d(x, weights, axis=0), weights, axis=1)
    return smooth[reach:-reach, reach:-reach]


def _half(x: Image) -> Image:
    height, width = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
    x = x[:height, :width]
    return (x[0::2, 0::2] + x[1::2, 0::2] + x[0::2, 1::2] + x[1::2, 1::2]) / 4
