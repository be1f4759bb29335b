"""Kandinsky 2.2 behind the waist: decoder and prior in one folder or in two, as diffusers draws them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.backbones import promises, tiny

from counterscan import methods
from counterscan.backbones import load
from counterscan.backbones.check import check_backbone
from counterscan.diffusion import ddim_step
from counterscan.errors import ModelError
from counterscan.methods.ddim import downwards
from counterscan.types import Edit

EDIT = Edit("no pleural effusion", "small left pleural effusion")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.kandinsky(tmp_path_factory.mktemp("kandinsky") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load(folder)


@pytest.fixture(scope="module")
def exact(folder: Path) -> Any:
    return load(folder, dtype=torch.float64)


def combined(folder: Path) -> Any:
    from diffusers import KandinskyV22CombinedPipeline

    theirs = KandinskyV22CombinedPipeline.from_pretrained(folder)
    theirs.set_progress_bar_config(disable=True)
    return theirs


def test_keeps_the_promises_of_the_waist(model: Any) -> None:
    assert model.family == "kandinsky"
    assert (model.channels, model.resolution, model.latent_shape) == (3, 32, (4, 16, 16))
    check_backbone(model, prompts=["no pacemaker", "left pleural effusion"])


def test_generates(model: Any) -> None:
    promises.check_generation(model, "small pacemaker")


def test_bfloat16_is_close(folder: Path) -> None:
    promises.check_half_precision(folder, "pacemaker")


@pytest.mark.parametrize("name", [name for name in methods.names() if name not in methods.PRESETS])
def test_methods(name: str, exact: Any) -> None:
    promises.check_editing(name, exact, EDIT)


def test_the_prior_imagines_what_that_of_diffusers_does(folder: Path, model: Any) -> None:
    prior = combined(folder).prior_pipe
    given = prior("small pacemaker", generator=torch.Generator().manual_seed(0))
    condition = model.embed(["", "small pacemaker"])
    torch.testing.assert_close(condition.tokens[0], given.negative_image_embeds)
    torch.testing.assert_close(condition.tokens[1], given.image_embeds, atol=1e-4, rtol=1e-4)


def test_the_decoder_draws_what_that_of_diffusers_does(folder: Path, model: Any) -> None:
    from diffusers import DDIMScheduler

    theirs = combined(folder).decoder_pipe
    theirs.scheduler = DDIMScheduler.from_config(theirs.scheduler.config, clip_sample=False)
    start = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    condition = model.embed(["pacemaker"])
    embeds = condition.tokens[:, 0]
    given = theirs(embeds, embeds, height=32, width=32, guidance_scale=1.0, num_inference_steps=3, latents=start,
                   output_type="np")  # fmt: skip
    x = start
    with torch.no_grad():
        for t, below in downwards(model.schedule.timesteps(3).tolist()):
            x = ddim_step(model.predict(x, t, condition), *model.schedule.coefficients(below))
    torch.testing.assert_close(model.decode(x).permute(0, 2, 3, 1), torch.from_numpy(given.images), atol=1e-3, rtol=0)


def test_equal_prompts_are_equal_whatever_stands_beside_them(folder: Path, model: Any) -> None:
    together = model.embed(["no pacemaker", "pacemaker"])
    fresh: Any = load(folder)
    assert torch.equal(fresh.embed(["pacemaker"]).tokens, together[1].tokens)


def test_decoder_and_prior_apart(folder: Path, model: Any, tmp_path: Path) -> None:
    decoder = tiny.kandinsky_apart(folder, tmp_path)
    apart: Any = load(decoder)
    assert torch.equal(apart.embed(["pacemaker"]).tokens, model.embed(["pacemaker"]).tokens)
    shutil.rmtree(tmp_path / "tiny-prior")
    with pytest.raises(ModelError, match="a decoder without its prior"):
        load(decoder)


def test_decoder_and_prior_in_the_cache_of_the_hub(
    folder: Path, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    tiny.kandinsky_apart(folder, tmp_path)
    for name in ("decoder", "prior"):
        cached = tmp_path / "hub" / f"models--someone--tiny-{name}"
        shutil.copytree(tmp_path / f"tiny-{name}", cached / "snapshots" / ("0" * 40))
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("0" * 40)
    opened: Any = load("someone/tiny-decoder", offline=True)
    assert torch.equal(opened.embed(["pacemaker"]).tokens, model.embed(["pacemaker"]).tokens)
    shutil.rmtree(tmp_path / "hub" / "models--someone--tiny-prior")
    with pytest.raises(ModelError, match="tiny-prior: not a local folder"):
        load("someone/tiny-decoder", offline=True)


def test_a_missing_part_is_named(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(copy / "prior_prior")
    with pytest.raises(ModelError, match="no prior_prior"):
        load(copy)
