"""The public checker: what every method promises, tried on a model. Run it on your own method as well."""

from __future__ import annotations

import torch
from torch import Tensor

from counterscan import load
from counterscan.backbones.base import Backbone
from counterscan.backbones.check import random_state
from counterscan.methods import Method
from counterscan.types import Edit


def check_method(
    method: Method,
    backbone: Backbone | None = None,
    *,
    edit: Edit | None = None,
    image: Tensor | None = None,
    tolerance: float = 1e-5,
    null_tolerance: float = 0.05,
) -> None:
    """Raises ``AssertionError`` naming the first promise that ``method`` breaks on ``backbone``.

    The promises: the image's shape, float32, finite, in [0, 1]; the same seed gives the same image; no global random
    state is touched and the input is left alone; a batch with one generator an image equals its images one by one (to
    ``tolerance``); evaluations are counted and the same every time; progress rises to its total; the null edit stays
    within ``null_tolerance`` (mean absolute difference) of the image encoded and decoded.
    ``backbone`` defaults to the built-in chest world's model in double precision, where rounding does not part a batch from
    its images. ``image`` (B, C, H, W) with B > 1; default: two images of smooth noise.
    """
    backbone = load("chest-world", dtype=torch.float64) if backbone is None else backbone
    edit = edit or Edit("chest radiograph.", "chest radiograph: small left pleural effusion.")
    image = _smooth_noise(backbone) if image is None else image
    assert image.shape[0] > 1, "give check_method at least two images"
    before, state = image.clone(), random_state()
    told: list[tuple[int, int]] = []

    def run(images: Tensor, seeds: list[int], edit: Edit = edit) -> tuple[Tensor, int]:
        start = backbone.evaluations
        generators = [torch.Generator().manual_seed(s) for s in seeds]
        result = method(backbone, images, edit, generator=generators, progress=lambda *at: told.append(at))
        return result, backbone.evaluations - start

    seeds = list(range(image.shape[0]))
    result, spent = run(image, seeds)
    assert result.shape == image.shape, f"shape {tuple(result.shape)}, the image has {tuple(image.shape)}"
    assert result.dtype == torch.float32, f"dtype {result.dtype}, wanted float32"
    assert torch.isfinite(result).all(), "the result is not finite"
    assert result.equal(result.clamp(0, 1)), "the result leaves [0, 1]"
    assert torch.equal(image, before), "the input image was changed in place"
    assert spent in range(image.shape[0], 10**9, image.shape[0]), (
        f"{spent} evaluations counted for {image.shape[0]} images"
    )
    assert [d == total for d, total in told[-1:]] == [True], f"progress ended at {told[-1:]}"
    assert [d for d, _ in told] == sorted({d for d, _ in told}), "progress does not rise"

    again, spent_again = run(image, seeds)
    assert torch.equal(result, again), "the same seeds gave another image"
    assert spent == spent_again, f"{spent} evaluations, then {spent_again}"
    for i, seed in enumerate(seeds):
        alone, spent_alone = run(image[i : i + 1], [seed])
        gap = (alone - result[i : i + 1]).abs().max().item()
        assert gap <= tolerance, f"image {i} alone differs from the batch by {gap:.2g}"
        assert spent_alone * len(seeds) == spent, f"{spent_alone} evaluations alone, {spent} for {len(seeds)}"
    null, _ = run(image, seeds, edit.null())
    gap = (null - backbone.decode(backbone.encode(image))).abs().mean().item()
    assert gap <= null_tolerance, f"the null edit changes the image by {gap:.2g} on average"
    assert state == random_state(), "a global random state was used"


def _smooth_noise(backbone: Backbone) -> Tensor:
    side, generator = backbone.resolution, torch.Generator().manual_seed(7)
    coarse = torch.rand(2, backbone.channels, 8, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").to(backbone.device)
