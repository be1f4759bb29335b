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
    beside,
    change_weight,
    draw,
    draw_crops,
    loss,
    pairs,
    questions,
)
from counterscan.training.objective import SEEN_TIMES

ROWS = [Row("chest", (("pacemaker", "left", None, None),), ()), Row("chest", (), ("pacemaker",)), Row("chest", (), ())]


def constant(value: torch.Tensor):
    return lambda x, t, encoder_hidden_states, return_dict: (value,)


def test_of_what_is_under_noise_it_is_the_v_prediction_error():
    generator = torch.Generator().manual_seed(0)
    z, noise, v = (torch.randn(4, 2, 8, 8, generator=generator) for _ in range(3))
    signal = torch.tensor([0.9, 0.5, 0.2, 0.1])
    s, n = signal.view(-1, 1, 1, 1), (1 - signal**2).sqrt().view(-1, 1, 1, 1)
    batch = Batch(z, z, z, [""] * 4, torch.ones(4, 1, 1, 1), *torch.zeros(2, 4, dtype=torch.bool))
    value = loss(constant(v), torch.zeros(0), batch, torch.zeros(4), noise, signal, 1.0)
    assert value.item() == pytest.approx((v - (s * noise - n * z)).square().mean().item(), rel=1e-5)


def test_of_an_image_without_noise_it_is_zero_for_the_twin_only():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 2, 8, 8, generator=generator)
    twin = z.clone()
    twin[..., 2:4, 2:4] += 1
    signal = torch.tensor([0.8, 0.3])
    s, n = signal.view(-1, 1, 1, 1), (1 - signal**2).sqrt().view(-1, 1, 1, 1)
    batch = Batch(z, z, twin, ["", ""], torch.ones(2, 1, 1, 1), *torch.ones(2, 2, dtype=torch.bool))
    value = [
        loss(
            constant((s * s * z - clean) / n), torch.zeros(0), batch, torch.zeros(2), torch.zeros_like(z), signal, 1.0
        ).item()
        for clean in (twin, z)
    ]
    assert value[0] < 1e-9
    assert value[1] > 0.05


def test_the_image_goes_in_beside_the_latent_without_the_scale_of_latents():
    shown = []

    def network(x: torch.Tensor, t: torch.Tensor, **words: object) -> tuple[torch.Tensor]:
        shown.append(x)
        return (torch.zeros_like(x[:, :2]),)

    z, image = torch.ones(1, 2, 4, 4), torch.full((1, 2, 4, 4), 3.0)
    batch = Batch(z, image, z, [""], torch.ones(1, 1, 1, 1), *torch.zeros(2, 1, dtype=torch.bool))
    loss(network, torch.zeros(0), batch, torch.zeros(1), torch.zeros_like(z), torch.tensor([0.5]), 2.0)
    assert (shown[0][:, :2] == 0.5).all()
    assert (shown[0][:, 2:] == 1.5).all()


def test_a_network_that_is_made_to_see_an_image_does_not_heed_it_yet():
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    kinds = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    sizes = {
        "sample_size": 8,
        "in_channels": 2,
        "out_channels": 2,
        "block_out_channels": (8,),
        "cross_attention_dim": 4,
    }
    unet = UNet2DConditionModel(**kinds, **sizes, norm_num_groups=4, attention_head_dim=2, layers_per_block=1)
    wider, x, words = beside(unet), torch.randn(1, 2, 8, 8), torch.randn(1, 3, 4)
    assert wider.config.in_channels == 4
    with torch.no_grad():
        narrow, wide = unet(x, 7, words).sample, wider(torch.cat([x, torch.randn_like(x)], 1), 7, words).sample
    assert torch.equal(narrow, wide)
    assert beside(wider) is wider


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
    latents = (1 + np.arange(3, dtype=np.float16)).reshape(3, 1, 1, 1) * np.ones((3, 1, 4, 4), np.float16)
    corpus = Corpus(latents, ROWS, np.ones(3), np.array([7, 7, -1]))
    removed, added = (pairs(corpus, adds=adds) for adds in (False, True))
    assert (removed.rows.tolist(), added.rows.tolist()) == ([[0, 1]], [[1, 0]])
    batch = draw(corpus, removed, added, DenoiserSettings(batch=300, additions=0.5), np.random.default_rng(0))
    before, after, seen = (x[:, 0, 0, 0] for x in (batch.z, batch.target, batch.image))
    changes = {(int(a), int(b)) for a, b in zip(before, after, strict=True)}
    assert changes == {(1, 1), (1, 2), (2, 1), (2, 2), (3, 3)}
    assert torch.equal(seen, before * batch.paired)
    goes = [text for text, gone in zip(told(batch), (before == 1) & (after == 2), strict=True) if gone]
    stays = [text for text, kept in zip(told(batch), (before == 1) & (after == 1), strict=True) if kept]
    assert all(goes)
    assert not any(stays)
    assert 0.1 < 1 - batch.paired.float().mean() < 0.3
    assert not (batch.paired & (before == 3)).any()
    assert batch.adds.tolist() == (batch.paired & (before == 2)).tolist()


def test_every_finding_is_asked_for_about_as_often_and_what_is_hard_twice():
    facts = [(name, None, None, None) for name in ("pacemaker", "edema", "edema", "edema")]
    rows = [row for fact in facts for row in (Row("chest", (), ()), Row("chest", (fact,), ()))]
    corpus = Corpus(np.zeros((8, 1, 2, 2), np.float16), rows, np.ones(8), np.repeat(np.arange(4), 2))
    added = pairs(corpus, adds=True)
    assert added.rows.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert added.chance == pytest.approx([2 / 3, 1 / 9, 1 / 9, 1 / 9])


def test_what_is_kept_counts_as_much_as_what_is_taken_away():
    latents = np.zeros((2, 1, 16, 16), np.float16)
    latents[0, :, 10:12, 3:5] = 1
    corpus = Corpus(latents, ROWS[:2], np.array([1.0, 0.0]), np.array([7, 7]))
    removed, added = (pairs(corpus, adds=adds) for adds in (False, True))
    settings = DenoiserSettings(batch=40, plain=0.0, keep=0.5, additions=0.0)
    batch = draw(corpus, removed, added, settings, np.random.default_rng(0))
    kept = (batch.z == batch.target).flatten(1).all(1)
    assert 8 < kept.sum() < 32
    assert (batch.weight[:, 0, 10, 3] == 2.56).all()


def asked(paired: bool, adds: bool, most: float = 1.0, **shares: float):
    """z shown where the image is 0 and the target 1, the times, and which are without noise."""
    z, is_pair, more = torch.zeros(64, 1, 2, 2), torch.full((64,), paired), torch.full((64,), adds)
    batch = Batch(z, z, z + paired, [""] * 64, z, is_pair, more)
    shown, t, seen = questions(batch, DenoiserSettings(**shares), 1000, torch.Generator().manual_seed(0), most)
    return shown.z[:, 0, 0, 0], t, seen


def test_plain_samples_lean_to_noise_and_seen_ones_are_shown_at_low_times():
    _, t, seen = asked(False, False, seen=1.0)
    assert t.float().mean() > 560
    assert not seen.any()
    z, t, seen = asked(True, False, seen=1.0, partway=0.0)
    assert seen.all()
    assert (t.min() >= 1000 * SEEN_TIMES[0], t.max() < 1000 * SEEN_TIMES[1]) == (True, True)
    assert (z == 0).all()
    assert asked(True, False, most=0.5, seen=0.0)[1].max() < 500


def test_what_is_drawn_is_the_twin_under_noise():
    z, _, seen = asked(True, False, seen=0.0)
    assert not seen.any()
    assert (z == 1).all()


def test_part_of_the_way_are_some_removals_and_every_addition_that_are_seen():
    z, _, seen = asked(True, True, seen=0.0, seen_additions=1.0, partway=0.0)
    assert seen.all()
    assert (0 < z.min(), z.max() < 1, 0.35 < z.mean() < 0.65) == (True, True, True)
    z = asked(True, False, seen=1.0, partway=0.5)[0]
    assert 10 < (z > 0).sum() < 54


def test_crops_hold_what_changes_and_say_whether_it_does():
    rng = np.random.default_rng(0)
    latents = np.zeros((3, 1, 16, 16), np.float16)
    latents[0, :, 10:12, 3:5] = 1
    corpus = Corpus(latents, ROWS, np.ones(3), np.array([7, 7, -1]))
    removed, added = (pairs(corpus, adds=adds) for adds in (False, True))
    batch = draw_crops(corpus, removed, added, DenoiserSettings(batch=32, keep=0.5), rng)
    assert batch.z.shape == (64, 1, 8, 8)
    assert batch.paired.all()
    assert batch.adds.tolist() == [False] * 32 + [True] * 32
    assert torch.equal(batch.z, batch.image)
    before, after = (x.amax((1, 2, 3)) == 1 for x in (batch.z, batch.target))
    goes = torch.tensor(told(batch))
    named = torch.tensor(["pacemaker" in text for text in batch.captions])
    assert (goes == ~after)[before].all()
    assert (named & ~goes)[after & ~before].all()
    assert not (named & ~goes)[~before & ~after].any()
    assert {(bool(a), bool(b)) for a, b in zip(before, after, strict=True)} == {
        (True, True),
        (True, False),
        (False, True),
        (False, False),
    }
