"""The objective: exact where it is known in closed form, and it teaches a prompt to overrule the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from counterscan.training.captions import Row
from counterscan.training.denoiser import (
    Batch,
    Corpus,
    DenoiserSettings,
    change_weight,
    draw,
    draw_crops,
    loss,
    part_of_the_way,
    removals,
    times,
)

ROWS = [Row("chest", (("pacemaker", "left", None, None),), ()), Row("chest", (), ("pacemaker",)), Row("chest", (), ())]


def constant(value: torch.Tensor):
    return lambda x, t, encoder_hidden_states, return_dict: (value,)


def test_of_plain_samples_it_is_the_v_prediction_error():
    generator = torch.Generator().manual_seed(0)
    z, noise, v = (torch.randn(4, 2, 8, 8, generator=generator) for _ in range(3))
    signal = torch.tensor([0.9, 0.5, 0.2, 0.1])
    s, n = signal.view(-1, 1, 1, 1), (1 - signal**2).sqrt().view(-1, 1, 1, 1)
    batch = Batch(z, z, [""] * 4, torch.ones(4, 1, 1, 1), *torch.zeros(2, 4, dtype=torch.bool))
    value = loss(constant(v), torch.zeros(0), batch, torch.zeros(4), noise, signal)
    assert value.item() == pytest.approx((v - (s * noise - n * z)).square().mean().item(), rel=1e-5)


def test_of_a_twin_it_is_zero_for_the_clean_twin_only():
    generator = torch.Generator().manual_seed(0)
    z, noise = (torch.randn(2, 2, 8, 8, generator=generator) for _ in range(2))
    twin = z.clone()
    twin[..., 2:4, 2:4] += 1
    signal = torch.tensor([0.8, 0.3])
    s, n = signal.view(-1, 1, 1, 1), (1 - signal**2).sqrt().view(-1, 1, 1, 1)
    batch = Batch(z, twin, ["", ""], torch.ones(2, 1, 1, 1), *torch.ones(2, 2, dtype=torch.bool))
    x = s * z + n * noise
    value = [
        loss(constant((s * x - clean) / n), torch.zeros(0), batch, torch.zeros(2), noise, signal).item()
        for clean in (twin, z)
    ]
    assert value[0] < 1e-9
    assert value[1] > 0.05


def test_every_change_teaches_about_as_much_whichever_is_asked_for():
    family = np.zeros((3, 1, 32, 32), np.float16)
    family[1, :, 8:24, 8:24] = 1
    family[2, :, 1:3, 8:12] = 1
    weight = change_weight(family)[0]
    assert weight[10, 10] == 2
    assert weight[1, 8] == pytest.approx(0.04 * 1024 / 8, rel=1e-5)
    assert weight[30, 30] == 1
    assert (change_weight(family[:1]) == 1).all()


def told(batch: Batch) -> list[bool]:
    """Which captions say that the pacemaker goes."""
    return ["no pacemaker" in text or "no support devices" in text for text in batch.captions]


def test_a_batch_pairs_only_images_of_one_patient_and_says_what_it_asks_for():
    latents = np.arange(3, dtype=np.float16).reshape(3, 1, 1, 1) * np.ones((3, 1, 4, 4), np.float16)
    corpus = Corpus(latents, ROWS, np.ones(3), np.array([7, 7, -1]))
    batch = draw(corpus, DenoiserSettings(batch=200, twins=1.0), np.random.default_rng(0))
    before, after = batch.z[:, 0, 0, 0], batch.target[:, 0, 0, 0]
    assert {(int(a), int(b)) for a, b in zip(before, after, strict=True)} == {(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)}
    goes = [text for text, gone in zip(told(batch), (before == 0) & (after == 1), strict=True) if gone]
    stays = [text for text, kept in zip(told(batch), (before == 0) & (after == 0), strict=True) if kept]
    assert all(goes)
    assert not any(stays)
    assert batch.paired.tolist() == (before != 2).tolist()
    assert batch.adds.tolist() == ((before == 1) & (after == 0)).tolist()


def test_what_is_kept_counts_as_much_as_what_is_taken_away():
    latents = np.zeros((2, 1, 16, 16), np.float16)
    latents[0, :, 10:12, 3:5] = 1
    corpus = Corpus(latents, ROWS[:2], np.array([1.0, 0.0]), np.array([7, 7]))
    batch = draw(corpus, DenoiserSettings(batch=40, twins=1.0), np.random.default_rng(0))
    kept = (batch.z == batch.target).flatten(1).all(1)
    assert 8 < kept.sum() < 32
    assert (batch.weight[:, 0, 10, 3] == 2.56).all()


def test_plain_samples_lean_to_noise_and_clean_ones_are_shown_at_low_times():
    z = torch.zeros(64, 1, 2, 2)
    generator = torch.Generator().manual_seed(0)
    yes = torch.ones(64, dtype=torch.bool)
    plain, paired, more = (Batch(z, z, [""] * 64, z, *of) for of in ((~yes, ~yes), (yes, ~yes), (yes, yes)))
    t, clean = times(plain, DenoiserSettings(clean=1.0), 1000, generator)
    assert t.float().mean() > 600
    assert not clean.any()
    t, clean = times(paired, DenoiserSettings(clean=0.0), 1000, generator)
    assert 480 < t.float().mean() < 520
    assert not clean.any()
    t, clean = times(paired, DenoiserSettings(clean=1.0, clean_additions=0.0), 1000, generator)
    assert clean.all()
    assert (t.min() >= 100, t.max() < 200) == (True, True)
    assert not times(more, DenoiserSettings(clean=1.0, clean_additions=0.0), 1000, generator)[1].any()
    assert times(more, DenoiserSettings(clean=0.0, clean_additions=1.0), 1000, generator)[1].all()


def test_part_of_the_way_are_some_clean_samples_and_every_addition_under_noise():
    z, target = torch.zeros(64, 1, 2, 2), torch.ones(64, 1, 2, 2)
    generator = torch.Generator().manual_seed(0)
    yes, half = torch.ones(64, dtype=torch.bool), torch.arange(64) < 32

    def shares(clean: torch.Tensor, adds: torch.Tensor, partway: float) -> torch.Tensor:
        batch = Batch(z, target, [""] * 64, z, yes, adds)
        return part_of_the_way(batch, clean, DenoiserSettings(partway=partway), generator).z[:, 0, 0, 0]

    assert (shares(yes, ~yes, 0.0) == 0).all()
    assert (shares(~yes, ~yes, 1.0) == 0).all()
    done = shares(yes, yes, 1.0)
    assert (0 < done.min(), done.max() < 1, 0.35 < done.mean() < 0.65) == (True, True, True)
    done = shares(~yes, half, 0.0)
    assert (done[:32] > 0).all()
    assert (done[32:] == 0).all()


def test_crops_hold_what_is_removed_and_say_whether_it_is():
    rng = np.random.default_rng(0)
    latents = np.zeros((3, 1, 16, 16), np.float16)
    latents[0, :, 10:12, 3:5] = 1
    corpus = Corpus(latents, ROWS, np.ones(3), np.array([7, 7, -1]))
    pairs = removals(corpus)
    assert pairs[0].tolist() == [[0, 1]]
    batch = draw_crops(corpus, pairs, DenoiserSettings(batch=16), rng)
    assert batch.z.shape == (32, 1, 8, 8)
    has = batch.z.amax((1, 2, 3)) == 1
    goes = torch.tensor(told(batch))
    assert (goes[has] == (batch.target.amax((1, 2, 3)) == 0)[has]).all()
    assert goes[has].unique().numel() == 2
    assert (batch.target[~has] == 0).all()  # what is not there is not put there
    assert 0 < (~has).sum() < 16
