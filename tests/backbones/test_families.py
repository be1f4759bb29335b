"""SDXL, SD3 and FLUX behind the waist, on tiny pipelines that diffusers saved: they agree with diffusers' own pipelines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
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

FAMILIES: dict[str, Callable[..., Path]] = {"sdxl": tiny.sdxl, "sd3": tiny.sd3, "flux": tiny.flux}
EDIT = Edit("no pleural effusion", "small left pleural effusion")
SAID = ["no pacemaker", "left pleural effusion"]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {name: tiny.card(build(root / name), name) for name, build in FAMILIES.items()}


@pytest.fixture(scope="session", params=FAMILIES)
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


@pytest.fixture(scope="session")
def model(folder: Path) -> Any:
    return load(folder)


@pytest.fixture(scope="session")
def exact(folder: Path) -> Any:
    return load(folder, dtype=torch.float64)


def pipeline(folder: Path, **without: None) -> Any:
    from diffusers import DiffusionPipeline

    opened = DiffusionPipeline.from_pretrained(folder, **without)
    opened.set_progress_bar_config(disable=True)
    return opened


def test_keeps_the_promises_of_the_waist(model: Any) -> None:
    assert model.family in FAMILIES
    assert (model.channels, model.resolution, model.latent_shape) == (3, 32, (4, 16, 16))
    check_backbone(model, prompts=SAID)


def test_generates(model: Any) -> None:
    promises.check_generation(model, "small pacemaker")


@pytest.mark.parametrize("name", ["sdxl", "flux"])  # those that build inputs of their own for every row
def test_openvino_answers_the_same(name: str, folders: dict[str, Path]) -> None:
    promises.check_openvino(folders[name], SAID)


def test_bfloat16_is_close(folder: Path) -> None:
    promises.check_half_precision(folder, SAID[0])


@pytest.mark.parametrize("name", [name for name in methods.names() if name not in methods.PRESETS])
def test_methods(name: str, exact: Any) -> None:
    promises.check_editing(name, exact, EDIT)


def test_prompts_are_those_of_diffusers(folder: Path, model: Any) -> None:
    theirs = pipeline(folder)
    if model.family == "sdxl":
        tokens, _, pooled, _ = theirs.encode_prompt(SAID, device="cpu", do_classifier_free_guidance=False)
    elif model.family == "sd3":
        tokens, _, pooled, _ = theirs.encode_prompt(SAID, None, None, do_classifier_free_guidance=False)
    else:
        tokens, pooled, _ = theirs.encode_prompt(SAID, None, max_sequence_length=24)
    condition = model.embed(SAID)
    torch.testing.assert_close(condition.tokens, tokens)
    torch.testing.assert_close(condition.pooled, pooled)
    assert len(model.pieces(SAID[0])) == tokens.shape[1]


def test_steps_down_as_the_pipeline_of_diffusers_does(folder: Path, model: Any) -> None:
    theirs, steps = pipeline(folder), 4
    start = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    asked: dict[str, Any] = {"prompt": SAID[1], "num_inference_steps": steps, "output_type": "pt"}
    if model.family == "sdxl":
        from diffusers import DDIMScheduler

        theirs.scheduler = DDIMScheduler.from_config(theirs.scheduler.config, clip_sample=False, set_alpha_to_one=True)
        given = theirs(**asked, latents=start, height=32, width=32, guidance_scale=1.0)
    elif model.family == "sd3":
        sigmas = [1 - i / steps for i in range(steps)]
        given = theirs(**asked, latents=start, height=32, width=32, guidance_scale=1.0, sigmas=sigmas)
    else:
        packed = theirs._pack_latents(start, 1, 4, 16, 16)
        given = theirs(**asked, latents=packed, height=32, width=32, guidance_scale=3.5, max_sequence_length=24)
    x, condition = start, model.embed([SAID[1]])
    with torch.no_grad():
        for t, below in downwards(model.schedule.timesteps(steps).tolist()):
            x = ddim_step(model.predict(x, t, condition), *model.schedule.coefficients(below))
    torch.testing.assert_close(model.decode(x), given.images, atol=2e-3, rtol=0)


def test_what_diffusers_encodes(folder: Path, model: Any) -> None:
    theirs = pipeline(folder)
    x = tiny.images()
    config = theirs.vae.config
    with torch.no_grad():
        wanted = theirs.vae.encode(2 * x - 1).latent_dist.mode() - (config.shift_factor or 0.0)
    torch.testing.assert_close(model.encode(x), wanted * config.scaling_factor)
    grey = x[:, :1]
    torch.testing.assert_close(model.encode(grey), model.encode(grey.expand(-1, 3, -1, -1)))


def test_parts_that_do_not_fit_are_named(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(copy / "vae")
    with tiny.seeded():
        tiny.vae(8).save_pretrained(copy / "vae")
    with pytest.raises(ModelError, match="vae has 8 latent channels"):
        load(copy)


def test_a_missing_part_is_named(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(copy / "text_encoder_2")
    with pytest.raises(ModelError, match="no text_encoder_2"):
        load(copy)


def test_sdxl_says_nothing_with_zeros(folders: dict[str, Path], tmp_path: Path) -> None:
    model: Any = load(folders["sdxl"])
    condition = model.embed(["", "pacemaker"])
    assert not condition.tokens[0].any()
    assert not condition.pooled[0].any()
    assert condition.tokens[1].any()
    other: Any = load(tiny.sdxl(tmp_path / "words", force_zeros_for_empty_prompt=False))
    assert other.embed([""]).tokens.any()


def test_sdxl_refiners_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(folders["sdxl"], tmp_path / "copy")
    index = json.loads((copy / "model_index.json").read_text())
    index |= {"text_encoder": [None, None], "tokenizer": [None, None]}
    (copy / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="refiner"):
        load(copy)


def test_sd3_works_without_t5(tmp_path: Path) -> None:
    folder = tiny.sd3(tmp_path / "light", with_t5=False)
    model: Any = load(folder)
    theirs = pipeline(folder, text_encoder_3=None, tokenizer_3=None)
    tokens, _, pooled, _ = theirs.encode_prompt(SAID, None, None, do_classifier_free_guidance=False)
    condition = model.embed(SAID)
    torch.testing.assert_close(condition.tokens, tokens)
    torch.testing.assert_close(condition.pooled, pooled)
    assert len(model.pieces("left")) == tokens.shape[1]


def test_sd3_5_has_two_attentions_and_norms(tmp_path: Path) -> None:
    folder = tiny.card(tiny.sd3(tmp_path / "sd35", dual_attention_layers=(0,), qk_norm="rms_norm"), "sd3")
    promises.check_editing("prompt-to-prompt", load(folder, dtype=torch.float64), EDIT)


def test_flux_without_distilled_guidance(tmp_path: Path) -> None:
    folder = tiny.flux(tmp_path / "schnell", guidance_embeds=False)
    check_backbone(load(folder), prompts=SAID)


def test_flux_without_a_card_works_at_the_size_of_its_family(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["flux"], tmp_path / "flux"))
    (folder / "counterscan.json").unlink()
    model: Any = load(folder)
    assert (model.family, model.resolution, model.card.findings) == ("flux", 2 * 128, ())  # 2 pixels a latent


def test_flux_shifts_its_levels_by_the_size_of_the_image(folders: dict[str, Path]) -> None:
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    model: Any = load(folders["flux"])
    scheduler = pipeline(folders["flux"]).scheduler
    scheduler.set_timesteps(sigmas=[1.0, 0.5], mu=calculate_shift(64))
    levels = model.schedule.coefficients(model.schedule.timesteps(2))[1]
    torch.testing.assert_close(levels, scheduler.sigmas[:2], atol=1e-4, rtol=0)


def test_every_family_has_its_row_in_the_docs() -> None:
    import re

    from counterscan.backbones import FAMILIES as KNOWN

    text = (Path(__file__).parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.MULTILINE)
    assert {name for name, _ in rows} == {module for module, _ in KNOWN.values()}
    for start, (module, _) in KNOWN.items():
        assert start in dict(rows)[module]
