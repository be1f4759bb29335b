"""The mathematics, against diffusers' schedulers and against itself."""

from __future__ import annotations

import itertools

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddim_inverse import DDIMInverseScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st

from counterscan import diffusion
from counterscan.diffusion import CLEAN, Schedule
from counterscan.types import Prediction

CONFIGS = [
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1},
    {"beta_schedule": "linear"},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    {"beta_schedule": "linear", "timestep_spacing": "linspace"},
    {"trained_betas": [0.001 * (i + 1) for i in range(50)], "num_train_timesteps": 50},
]
KINDS = ["epsilon", "v_prediction", "sample"]


def scheduler(config: dict, **more: object) -> DDIMScheduler:
    return DDIMScheduler(**{"clip_sample": False, "set_alpha_to_one": False, **config, **more})


def ours(config: dict) -> Schedule:
    return diffusion.schedule_from_config(dict(scheduler(config).config))


@pytest.mark.parametrize("config", CONFIGS)
def test_coefficients_and_timesteps_are_those_of_diffusers(config: dict) -> None:
    theirs, schedule = scheduler(config), ours(config)
    signal, noise = schedule.coefficients(torch.arange(len(schedule)))
    torch.testing.assert_close(signal, theirs.alphas_cumprod.sqrt(), atol=1e-5, rtol=0)
    torch.testing.assert_close(noise, (1 - theirs.alphas_cumprod).sqrt(), atol=1e-5, rtol=0)
    end = schedule.coefficients(CLEAN)
    assert end[0] == pytest.approx(theirs.final_alpha_cumprod.sqrt().item(), abs=1e-5)
    for n in (5, 10, 25):
        theirs.set_timesteps(n)
        assert schedule.timesteps(n).tolist() == theirs.timesteps.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_step_down_is_the_ddim_step_of_diffusers(kind: str, eta: float) -> None:
    config = CONFIGS[0]
    theirs, schedule = scheduler(config, prediction_type=kind), ours(config)
    theirs.set_timesteps(10)
    z, output, fresh = torch.randn(3, 2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    times = schedule.timesteps(10).tolist()
    for t, below in zip(times, [*times[1:], CLEAN], strict=True):
        here, there = schedule.coefficients(t), schedule.coefficients(below)
        prediction = diffusion.to_prediction(output, z, kind, *here)
        deviation = diffusion.posterior_deviation(*here, *there, eta)
        step = diffusion.ddim_step(prediction, *there, deviation) + deviation * fresh
        wanted = theirs.step(output, t, z, eta=eta, variance_noise=fresh if eta else None)
        torch.testing.assert_close(step, wanted.prev_sample, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(prediction.clean, wanted.pred_original_sample, atol=1e-4, rtol=1e-4)


def test_solver_is_the_multistep_solver_of_diffusers() -> None:
    schedule = ours(CONFIGS[0])
    theirs = DPMSolverMultistepScheduler(
        **CONFIGS[0], prediction_type="sample", timestep_spacing="linspace", final_sigmas_type="sigma_min"
    )
    theirs.set_timesteps(20)
    times = [*theirs.timesteps.tolist(), 0]
    levels = [schedule.coefficients(t) for t in times]
    start = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    z, wanted, older = start, start, None
    for i, t in enumerate(theirs.timesteps):
        clean, their_clean = (0.3 * torch.tanh(x + 0.1) for x in (z, wanted))
        z = diffusion.solver_step(z, clean, older, (levels[i - 1], levels[i], levels[i + 1]))
        wanted = theirs.step(their_clean, t, wanted).prev_sample
        older = clean
    torch.testing.assert_close(z, wanted, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@given(t=st.integers(0, 999), seed=st.integers(0, 2**31))
def test_conversion_inverts_the_training_target(kind: str, t: int, seed: int) -> None:
    schedule = ours(CONFIGS[0])
    clean, noise = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    level = schedule.coefficients(t)
    target = diffusion.training_target(clean, noise, kind, *level)
    prediction = diffusion.to_prediction(target, diffusion.add_noise(clean, noise, *level), kind, *level)
    torch.testing.assert_close(prediction.clean, clean, atol=1e-3, rtol=0)
    torch.testing.assert_close(prediction.noise, noise, atol=1e-3, rtol=0)


def test_flow_matching_conversion_inverts_its_target() -> None:
    schedule = diffusion.flow_schedule(shift=3.0)
    clean, noise = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    level = schedule.coefficients(torch.tensor([10, 300, 600, 999]))
    torch.testing.assert_close(level[0] + level[1], torch.ones(4))
    z = diffusion.add_noise(clean, noise, *level)
    velocity = diffusion.training_target(clean, noise, "velocity", *level)
    prediction = diffusion.to_prediction(velocity, z, "velocity", *level)
    torch.testing.assert_close(prediction.clean, clean, atol=1e-5, rtol=0)
    torch.testing.assert_close(prediction.noise, noise, atol=1e-5, rtol=0)


@given(n=st.integers(1, 1000), depth=st.floats(0.01, 1.0))
def test_depth_keeps_the_lowest_timesteps(n: int, depth: float) -> None:
    schedule = ours(CONFIGS[0])
    chain, part = schedule.timesteps(n).tolist(), schedule.timesteps(n, depth).tolist()
    assert part == chain[n - len(part) :]
    assert len(part) == max(1, round(n * depth))
    assert all(a > b for a, b in itertools.pairwise(chain))
    assert chain[-1] >= 0
    assert chain[0] < 1000


def test_fractions_lie_between_their_neighbours() -> None:
    schedule = ours(CONFIGS[0])
    low, mid, high = schedule.signal[3], schedule.coefficients(3.5)[0], schedule.signal[4]
    assert low > mid > high


def test_guidance_weights_zero_and_one_are_the_two_prompts() -> None:
    a, b = (Prediction(torch.full((1, 1), x), torch.full((1, 1), -x)) for x in (1.0, 3.0))
    assert diffusion.guide(a, b, 0).clean == 1
    assert diffusion.guide(a, b, 1).noise == -3
    assert diffusion.guide(a, b, 2).clean == 5


@pytest.mark.parametrize(("n", "depth"), [(0, 1.0), (1001, 1.0), (10, 0.0), (10, 1.5)])
def test_impossible_chains_are_refused(n: int, depth: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        ours(CONFIGS[0]).timesteps(n, depth)


def test_unknown_kinds_and_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="known: epsilon"):
        diffusion.to_prediction(torch.zeros(1), torch.zeros(1), "gradient", torch.ones(()), torch.ones(()))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="known: linear"):
        diffusion.schedule_from_config({"beta_schedule": "sigmoid"})


def test_noise_of_a_batch_is_the_noise_of_its_images() -> None:
    make = lambda *seeds: [torch.Generator().manual_seed(s) for s in seeds]  # noqa: E731
    batch = diffusion.draw((2, 3, 4, 4), make(5, 6), 7, "cpu")
    alone = diffusion.draw((1, 3, 4, 4), make(6), 7, "cpu")
    assert batch.shape == (7, 2, 3, 4, 4)
    assert torch.equal(batch[:, 1:], alone)
    with pytest.raises(ValueError, match="2 generators for 3 images"):
        diffusion.draw((3, 1), make(1, 2), 1, "cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_step_up_is_the_inverse_step_of_diffusers(kind: str) -> None:
    config, schedule = CONFIGS[0], ours(CONFIGS[0])
    theirs = DDIMInverseScheduler.from_config(scheduler(config, prediction_type=kind).config)
    theirs.set_timesteps(10)
    z, output = torch.randn(2, 1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    level = CLEAN
    tolerance = (
        1e-4 if kind == "sample" else 1e-5
    )  # from a clean sample the noise is divided by 0.03 at the first level
    for t in reversed(schedule.timesteps(10).tolist()):
        prediction = diffusion.to_prediction(output, z, kind, *schedule.coefficients(level))
        step = diffusion.ddim_step(prediction, *schedule.coefficients(t))
        torch.testing.assert_close(step, theirs.step(output, t, z).prev_sample, atol=tolerance, rtol=tolerance)
        level = t
