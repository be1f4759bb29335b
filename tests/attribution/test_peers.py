"""Grad-CAM and integrated gradients against closed forms and, where it is installed, against captum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from counterscan.attribution.peers import centre_prior, grad_cam, integrated_gradients
from counterscan.robustness.classifier import Classifier


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(3)
        return Classifier(["a", "b"], size=64, width=8).eval()


def images(n=2, channels=1, size=64):
    return torch.rand((n, channels, size, size), generator=torch.Generator().manual_seed(0))


def test_grad_cam_of_a_linear_model_is_its_weighted_maps():
    """Mean pooling and a linear layer: the gradient of every pixel of map k is w_k / (H W), so CAM = relu(sum w_k A_k) / HW."""
    features, head = nn.Conv2d(1, 3, 1), nn.Linear(3, 2)
    model = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    x = images(size=8) - 0.5
    expected = (head.weight[1].view(1, 3, 1, 1) * features(x)).sum(1).relu() / 64
    torch.testing.assert_close(grad_cam(model, features, x, 1), expected.detach())


def test_integrated_gradients_are_complete_and_exact_where_the_model_is_a_square():
    square = lambda x: (x**2).flatten(1).sum(1, keepdim=True)  # noqa: E731
    x = images(channels=3, size=8)
    torch.testing.assert_close(integrated_gradients(square, x, 0, steps=5), (x**2).sum(1))


def test_integrated_gradients_sum_to_the_change_of_the_logit(model):
    x = images()
    got = integrated_gradients(model, x, 1, steps=200).sum((1, 2))
    with torch.no_grad():
        torch.testing.assert_close(got, (model(x) - model(torch.zeros_like(x)))[:, 1], atol=2e-3, rtol=1e-2)


def test_they_equal_captum(model):
    attr = pytest.importorskip("captum.attr")
    x = images()
    cam = attr.LayerGradCam(model, model.blocks[-1]).attribute(x, target=1, relu_attributions=True)
    cam = attr.LayerAttribution.interpolate(cam, (64, 64), "bilinear")[:, 0]
    torch.testing.assert_close(grad_cam(model, model.blocks[-1], x, 1), cam.detach())
    theirs = attr.IntegratedGradients(model).attribute(x, target=1, n_steps=40, method="riemann_middle").sum(1)
    torch.testing.assert_close(integrated_gradients(model, x, 1, steps=40), theirs.float(), atol=1e-5, rtol=1e-3)


def test_the_centre_prior_is_highest_in_the_middle():
    heat = centre_prior((5, 9))
    assert np.unravel_index(heat.argmax(), heat.shape) == (2, 4)
    assert heat.max() == 1 and heat.min() > 0
