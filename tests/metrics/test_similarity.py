"""Similarity equals torchmetrics, and closed forms where they exist."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from counterscan.errors import ModelError
from counterscan.metrics import similarity
from counterscan.metrics.similarity import lpips, mae, ms_ssim, ms_ssim_diversity, psnr, ssim


def pair(*shape: int, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(len(shape))
    smooth = np.kron(rng.random((shape[0] // 8, shape[1] // 8, *shape[2:])), np.ones((8, 8, *[1] * (len(shape) - 2))))
    return smooth, np.clip(smooth + noise * rng.standard_normal(smooth.shape), 0, 1)


def tensor(x: np.ndarray) -> torch.Tensor:
    x = x[..., None] if x.ndim == 2 else x
    return torch.from_numpy(x).permute(2, 0, 1)[None]


@pytest.mark.parametrize("shape", [(176, 200), (176, 192, 3)])
def test_equals_torchmetrics(shape):
    a, b = pair(*shape)
    x, y = tensor(a), tensor(b)
    _, everywhere = structural_similarity_index_measure(x, y, data_range=1.0, return_full_image=True)
    assert ssim(a, b) == pytest.approx(float(everywhere[..., 5:-5, 5:-5].mean()), abs=1e-4)  # theirs counts padding too
    assert psnr(a, b) == pytest.approx(float(peak_signal_noise_ratio(x, y, data_range=1.0)), abs=1e-4)
    assert mae(a, b) == pytest.approx(float((x - y).abs().mean()))


def test_multiscale_equals_torchmetrics():
    a, b = pair(400, 400)  # large: theirs averages the coarsest scale over its padding, ours over the image alone
    theirs = float(multiscale_structural_similarity_index_measure(tensor(a), tensor(b), data_range=1.0))
    assert ms_ssim(a, b) == pytest.approx(theirs, abs=0.01)


def test_multiscale_is_the_product_of_its_scales():
    a, b = pair(400, 400)
    expected, x, y = 1.0, tensor(a), tensor(b)
    for k, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        _, contrast = structural_similarity_index_measure(x, y, data_range=1.0, return_contrast_sensitivity=True)
        _, whole = structural_similarity_index_measure(x, y, data_range=1.0, return_full_image=True)
        expected *= float(whole[..., 5:-5, 5:-5].mean() if k == 4 else contrast) ** weight
        x, y = (torch.nn.functional.avg_pool2d(image, 2) for image in (x, y))
    assert ms_ssim(a, b) == pytest.approx(expected, abs=1e-4)


def test_an_image_is_itself_and_its_negative_is_not():
    a, _ = pair(176, 176)
    assert (mae(a, a), psnr(a, a)) == (0, float("inf"))
    assert ssim(a, a) == pytest.approx(1) and ms_ssim(a, a) == pytest.approx(1)
    assert ms_ssim(a, 1 - a) == 0  # negative terms count as 0


def test_diversity_is_the_mean_over_pairs_and_falls_with_variety():
    a, b = pair(176, 176)
    c = pair(176, 176, noise=0.4)[1]
    assert ms_ssim_diversity([a, b, c]) == pytest.approx((ms_ssim(a, b) + ms_ssim(a, c) + ms_ssim(b, c)) / 3)
    assert ms_ssim_diversity([a, b]) > ms_ssim_diversity([a, c])


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="160"):
        ms_ssim(np.zeros((160, 400)), np.zeros((160, 400)))
    with pytest.raises(ValueError, match="11"):
        ssim(np.zeros((10, 400)), np.zeros((10, 400)))
    with pytest.raises(ValueError, match="shapes"):
        ssim(np.zeros((20, 20)), np.zeros((20, 21)))
    with pytest.raises(ValueError, match="two"):
        ms_ssim_diversity([np.zeros((200, 200))])


@pytest.fixture
def fresh():
    similarity._perceptual.cache_clear()
    yield
    similarity._perceptual.cache_clear()


def test_lpips_says_what_it_needs(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ModelError, match=r"^LPIPS needs the package lpips: pip install 'counterscan\[metrics\]'$"):
        lpips(np.zeros((64, 64)), np.zeros((64, 64)))


def test_lpips_asks_the_package_once_and_as_it_wants(fresh, monkeypatch):
    made = []

    class Network(torch.nn.Module):
        def __init__(self, net, verbose):
            super().__init__()
            made.append(net)

        def forward(self, x, y):
            assert x.shape == y.shape == (1, 3, 40, 64) and x.dtype == torch.float32 and x.min() == -1
            return (x - y).abs().mean().view(1, 1, 1, 1)

    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=Network))
    black, grey, colour = np.zeros((40, 64)), np.full((40, 64), 0.5), np.zeros((40, 64, 3))
    assert lpips(black, grey) == 1 and lpips(colour, colour) == 0 and made == ["alex"]

    def absent(**_):
        raise URLError("no network")

    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=absent))
    with pytest.raises(ModelError, match="cannot fetch the weights of vgg.*no network"):
        lpips(black, black, "vgg")
