"""The recipe of brain-world: what a batch asks for, the objective, and that a stopped run goes on as if it had not stopped."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel

import counterscan
from counterscan.backbones.compact_pixel import build
from counterscan.diffusion import alphas_cumprod
from counterscan.training import brain
from counterscan.training.brain import HEALTHY, LESION, NOTHING, Batch, BrainSettings, batch, loss, train
from counterscan.worlds.brain import change_mask

ALPHAS = alphas_cumprod(1000, "linear", 1e-4, 0.02).float()


def pairs(count: int = 3, size: int = 16) -> np.ndarray:
    """Slices that are dark without and bright in the middle with a lesion."""
    out = np.full((count, 2, size, size, 4), 60, np.uint8)
    out[:, 1, 4:12, 4:12] = 200
    return out


def test_a_patient_is_a_lesion_and_its_exact_healthy_twin():
    for seed in range(3):
        without, with_lesion = brain.patient(seed)
        assert not without.findings
        assert with_lesion.findings
        assert with_lesion.lesion.any()
        assert (without.seed, without.image.shape) == (with_lesion.seed, (64, 64, 4))
        unchanged = ~change_mask(without, with_lesion)
        assert np.abs(without.image - with_lesion.image)[unchanged].max() < 0.05


def test_classes_say_what_the_target_shows():
    made = batch(pairs(), BrainSettings(batch=4000, adds=0.2), np.random.default_rng(0))
    before, after = (x[:, 0, 8, 8] > 0 for x in (made.clean, made.target))
    assert (after[made.classes == LESION]).all()
    assert not after[made.classes == HEALTHY].any()
    assert (before == after)[made.classes == NOTHING].all(), "nothing is said: the picture stays"
    shares = [
        (made.classes == NOTHING).float().mean(),
        (~after & before)[before].float().mean(),
        (after & ~before)[~before].float().mean(),
    ]
    assert shares == pytest.approx([0.15, 0.85 * 0.7, 0.85 * 0.2], abs=0.03)
    assert not made.still[made.classes == NOTHING].any()
    assert made.still.float().mean() == pytest.approx(0.85 * 0.6, abs=0.03)
    assert ((made.share >= 0.1) & (made.share <= 0.2))[made.still].all()
    assert made.weight[0, 0, 8, 8] >= 2
    assert made.weight[0, 0, 0, 0] == 1


def test_the_papers_recipe_shows_no_twin():
    made = batch(pairs(), BrainSettings(batch=400, twins=0), np.random.default_rng(0))
    assert torch.equal(made.clean, made.target)
    assert (made.weight == 1).all()
    assert made.share.max() > 0.99
    assert not made.still.any()


def test_the_loss_is_zero_for_the_clean_target_only_and_of_what_stays_the_v_prediction_error():
    made = batch(pairs(), BrainSettings(batch=64), np.random.default_rng(1))
    generator = torch.Generator().manual_seed(0)
    noise, other = (torch.randn(made.clean.shape, generator=generator) for _ in range(2))
    t = (made.share * 1000).long()
    s, n = (a[t].sqrt().view(-1, 1, 1, 1) for a in (ALPHAS, 1 - ALPHAS))

    def answer(clean: torch.Tensor):
        return lambda x, times, class_labels, return_dict: ((s * x - clean) / n,)

    assert loss(answer(made.target), made, noise, ALPHAS) < 1e-6
    assert loss(answer(made.clean), made, noise, ALPHAS) > 0.1
    flat, noised = torch.ones_like(made.weight), torch.zeros_like(made.still)
    still = Batch(made.clean, made.clean, made.classes, flat, made.share.clamp(min=0.01), noised)
    t = (still.share * 1000).long()
    s, n = (a[t].sqrt().view(-1, 1, 1, 1) for a in (ALPHAS, 1 - ALPHAS))
    value = loss(lambda *args, **kwargs: (other,), still, noise, ALPHAS)
    assert value.item() == pytest.approx((other - (s * noise - n * still.clean)).square().mean().item(), rel=1e-3)


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path):
    settings = BrainSettings(steps=4, batch=4, warmup=1)

    def run(state: Path, *, stop_at: int | None = None) -> dict[str, torch.Tensor]:
        unet = UNet2DModel.from_pretrained(folder / "unet")
        kept: dict[str, torch.Tensor] = {}

        def save(averaged: torch.nn.Module) -> None:
            kept.update({name: p.detach().clone() for name, p in averaged.named_parameters()})
            saves.append(len(saves) + 1)
            if len(saves) == stop_at:
                raise KeyboardInterrupt

        saves: list[int] = []
        try:
            train(unet, ALPHAS, pairs(), settings, state, log=print, save=save, every=0)
        except KeyboardInterrupt:
            pass
        return kept

    folder = build(tmp_path / "model", classes=brain.CLASSES, resolution=16, blocks=(8, 8), layers=1, head_width=4)
    whole = run(tmp_path / "whole.safetensors")
    run(tmp_path / "parts.safetensors", stop_at=2)
    resumed = run(tmp_path / "parts.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_stages_make_a_model_that_opens_and_says_how_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stage(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["brain", *words])
        brain.main()

    work, model, out = (str(tmp_path / name) for name in ("work", "model", "out"))
    stage("draw", work, "--count", "2")
    stage("train", work, "--out", model, "--steps", "2", "--batch", "2", "--blocks", "8", "16")
    stage("train", work, "--start", model, "--out", out + "1", "--steps", "1", "--batch", "2")
    stage("ship", work, "--start", out + "1", "--out", out, "--method", "flow-edit", "--settings", '{"guidance": 1.0}')
    card = counterscan.load(out).card
    assert card.training["command"] == [
        "draw WORK --part 0 --first 20000000 --count 2",
        "train WORK --blocks 8 16 --layers 1 --steps 2 --batch 2 --rate 0.0008 --twins 0.7 --seed 0",
        "train WORK --start MODEL --steps 1 --batch 2 --rate 0.0008 --twins 0.7 --seed 0",
    ]
    assert card.method_settings == {"flow-edit": {"guidance": 1.0}}
    assert (card.findings, card.classes) == (("lesion",), brain.CLASSES)
    assert not list(Path(out).rglob("state.safetensors"))
    text = "".join(path.read_text() for path in Path(out).rglob("*.json"))
    assert str(tmp_path) not in text
