"""What is minimised, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from counterscan.diffusion import alphas_cumprod, to_prediction, training_target, vp_schedule
from counterscan.training import objective
from counterscan.training.config import Objective, Optimizer
from counterscan.training.optimization import schedule


def test_times_of_a_batch_lie_evenly_in_the_chain():
    drawn = objective.quantiles(8, step=3, seed=1)
    assert sorted((drawn * 8).long().tolist()) == list(range(8))
    assert torch.equal(drawn, objective.quantiles(8, 3, 1)) and not torch.equal(drawn, objective.quantiles(8, 4, 1))
    assert objective.times(drawn, Objective(), 1000).sort().values.diff().min() > 0


def test_logit_normal_times_have_their_quartiles_and_shift_moves_them_to_noise():
    quarters = torch.tensor([0.25, 0.5, 0.75])
    expected = torch.distributions.Normal(0.0, 1.0).icdf(quarters).sigmoid()
    assert torch.allclose(
        objective.times(quarters, Objective(times="logit_normal"), 100_000) / 1e5, expected, atol=1e-4
    )
    shifted = objective.times(quarters, Objective(shift=3.0), 100_000) / 1e5
    assert torch.allclose(shifted, 3 * quarters / (1 + 2 * quarters), atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weighs_the_error_of_the_clean_image(kind):
    """Whatever is predicted, weight * error of the output is min(snr, 5) * error of the clean image (Hang et al. 2023)."""
    plan = vp_schedule(alphas_cumprod(1000, "scaled_linear", 0.00085, 0.012))
    t = torch.tensor([5, 300, 600, 999])
    signal, level = plan.coefficients(t)
    clean, noise, output = (torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(s)) for s in range(3))
    z = signal.view(-1, 1, 1, 1) * clean + level.view(-1, 1, 1, 1) * noise
    target = training_target(clean, noise, kind, signal, level)
    guess = to_prediction(output, z, kind, signal, level).clean
    snr = (signal / level) ** 2
    ours = objective.weights(kind, signal, level, 5.0) * objective.error(output, target, "l2")
    assert torch.allclose(ours, snr.clamp(max=5) * objective.error(guess, clean, "l2"), rtol=1e-3)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "velocity"])
def test_an_answer_is_what_the_network_put_out(kind):
    signal, level = torch.tensor([0.8, 0.3]), (torch.tensor([0.6, 0.91**0.5]))
    if kind == "velocity":
        level = 1 - signal
    z, output = (torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(s)) for s in range(2))
    given = to_prediction(output, z, kind, signal, level)
    assert torch.allclose(objective.answer(given, kind, signal, level), output, atol=1e-5)


def test_structural_similarity_is_its_definition():
    x, y = (torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(s)) for s in range(2))
    values = []
    for top in range(6):
        for left in range(6):
            a, b = (v[0, 0, top : top + 7, left : left + 7].double().numpy() for v in (x, y))
            covariance = np.mean((a - a.mean()) * (b - b.mean()))
            likeness = (2 * a.mean() * b.mean() + 1e-4) / (a.mean() ** 2 + b.mean() ** 2 + 1e-4)
            values.append(likeness * (2 * covariance + 9e-4) / (a.var() + b.var() + 9e-4))
    assert float(objective.structural(x, y)) == pytest.approx(np.mean(values), abs=1e-4)
    assert float(objective.structural(x, x)) == pytest.approx(1, abs=1e-5)


def test_rates_warm_up_and_come_down():
    warm = Optimizer(warmup=10, schedule="cosine")
    rates = [schedule(warm, k, 110) for k in range(110)]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert rates[10] == 1 and rates[60] == pytest.approx(0.5) and rates[109] < 0.001 and np.all(np.diff(rates[10:]) < 0)
    assert schedule(Optimizer(schedule="linear"), 25, 100) == 0.75 and schedule(Optimizer(), 99, 100) == 1


def test_edges_are_the_differences_of_neighbours():
    step = torch.zeros(1, 1, 4, 4)
    step[..., 2:] = 1  # one edge of four between three columns of pairs
    assert objective.edges(step).tolist() == pytest.approx([1 / 3])
    assert objective.edges(step.transpose(-1, -2)).tolist() == pytest.approx([1 / 3])
    assert objective.edges(torch.ones(2, 3, 4, 4)).tolist() == [0, 0]


def test_a_share_of_samples_is_seen_without_noise_whatever_its_time():
    quantile = objective.quantiles(20_000, 0, 1)
    seen = objective.seen(quantile, 0.3)
    assert abs(seen.float().mean() - 0.3) < 0.02
    assert abs(quantile[seen].mean() - 0.5) < 0.02  # independent of the time
    assert not objective.seen(quantile, 0).any() and objective.seen(quantile, 1).all()
    times = objective.seen_times(quantile, 1000)
    assert (times.min(), times.max()) == (100, 199)


def test_places_that_change_count_more_and_only_in_pairs():
    before = torch.zeros(2, 3, 8, 8)
    after = before.clone()
    after[:, 1, 4, 4] = 1.0
    weight = objective.where_changed(before, after, torch.tensor([True, False]), 4.0)
    assert weight.shape == (2, 1, 8, 8) and weight[1].eq(1).all()
    assert weight[0].eq(4).sum() == 9 and weight[0, 0, 3:6, 3:6].eq(4).all() and weight[0].eq(1).sum() == 55
    plain = objective.error(after, before, "l2").tolist()
    assert objective.error(after, before, "l2", weight).tolist() == pytest.approx([4 * plain[0], plain[1]])


def test_the_error_after_counts_in_units_of_the_noise_but_for_little_noise():
    clean, after = torch.zeros(3, 1, 2, 2), torch.ones(3, 1, 2, 2)
    level = torch.tensor([0.01, 0.35, 0.7])
    found = objective.error_after(clean, after, level, "l2")
    assert found.tolist() == pytest.approx([1 / 0.35**2, 1 / 0.35**2, 1 / 0.7**2], rel=1e-5)
