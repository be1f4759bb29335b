"""The model's own view orders images by how much of a prompt is in them."""

from __future__ import annotations

import torch
from tests.methods.gaussian import SPREAD, Gaussian

from counterscan.methods.preference import LEVELS, preference


def test_it_is_the_difference_of_log_likelihoods_up_to_a_factor_for_gaussians() -> None:
    model = Gaussian()
    z = torch.full((5, 1, 8, 8), 0.0) + torch.linspace(0.3, 0.7, 5).reshape(-1, 1, 1, 1)
    score = preference(model, z, model.embed(["low", "high"]))
    assert model.evaluations == 5 * 2 * len(LEVELS)
    wanted = ((z - 0.4) ** 2 - (z - 0.6) ** 2).mean((1, 2, 3)) / (2 * SPREAD**2)  # log p(z | high) - log p(z | low)
    # both are straight lines in the image; the noises shift this one, for all images alike
    slopes = score.diff() / wanted.diff()
    torch.testing.assert_close(slopes, slopes.mean().expand(4), rtol=1e-3, atol=0)
    assert slopes[0] > 0


def test_it_asks_every_image_the_same_and_leaves_random_numbers_alone() -> None:
    model, z = Gaussian(), torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    together = preference(model, z, model.embed(["low", "high"]))
    alone = [preference(model, z[i : i + 1], model.embed(["low", "high"])) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))
    assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(preference(model, z, model.embed(["high", "low"])), -together)
