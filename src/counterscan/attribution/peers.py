"""Maps that a classifier gives of itself, which counterfactual maps are compared with: Grad-CAM and integrated gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn


def grad_cam(model: nn.Module, layer: nn.Module, images: Tensor, label: int) -> Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017): (B, H, W) >= 0 of images (B, C, H, W), from the maps of ``layer``.

    The maps are weighted by the mean gradient of the label's logit, summed, cut at 0 and enlarged bilinearly.
    """
    import torch

    kept: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        with torch.enable_grad():
            logits = model(images.detach().requires_grad_())[:, label]
            (gradient,) = torch.autograd.grad(logits.sum(), kept[0])
    finally:
        hook.remove()
    heat = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True).relu().detach()
    return torch.nn.functional.interpolate(heat, size=images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def integrated_gradients(model: nn.Module, images: Tensor, label: int, *, steps: int = 32, batch: int = 8) -> Tensor:
    """Integrated gradients (Sundararajan et al., ICML 2017) from a black image: (B, H, W), signed, channels summed.

    The midpoint rule over ``steps``. A map's sum is the logit of the image less that of the black one, but for its error.
    """
    import torch

    total = torch.zeros_like(images)
    for start in range(0, steps, batch):
        shares = (torch.arange(start, min(start + batch, steps)) + 0.5) / steps
        path = (images[None] * shares.view(-1, 1, 1, 1, 1)).flatten(0, 1).detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(model(path)[:, label].sum(), path)
        total += gradient.unflatten(0, (len(shares), len(images))).sum(0)
    return (images * total / steps).sum(1).detach()


def centre_prior(shape: tuple[int, int]) -> NDArray[np.float32]:
    """A map (H, W) in (0, 1] that knows nothing of the image: a Gaussian on its middle, a quarter of its sides wide."""
    rows, columns = (np.linspace(-1, 1, n) / 0.5 for n in shape)
    return np.exp(-0.5 * (rows[:, None] ** 2 + columns**2)).astype(np.float32)
