"""InstructPix2Pix folders behind the waist: the U-Net sees beside the noisy latent what diffusers' own pipeline shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.backbones import promises, tiny
from tests.models import seeing

from counterscan.backbones import load
from counterscan.backbones.check import check_backbone
from counterscan.diffusion import ddim_step
from counterscan.errors import ModelError
from counterscan.methods.ddim import downwards
from counterscan.types import Condition, Edit, Prediction

EDIT = Edit("no pleural effusion", "small left pleural effusion")
SAID = ["no pacemaker", "left pleural effusion"]
BUILD: dict[str, Any] = {"diffusers": tiny.instruct_pix2pix, "compact": seeing}  # CLIP in colour, BERT in grey


@pytest.fixture(scope="module", params=BUILD)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(BUILD[request.param](tmp_path_factory.mktemp("sees") / request.param))


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load(folder)


def pipeline(folder: Path) -> Any:
    from diffusers import DiffusionPipeline

    opened = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    opened.set_progress_bar_config(disable=True)
    return opened


def latents(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A noisy latent, and one to be seen beside it."""
    noisy, image = torch.randn(2, 2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    return noisy, image


def test_keeps_the_promises_of_the_waist(model: Any) -> None:
    assert (model.family, model.sees_image, model.latent_shape) == ("stable_diffusion", True, (4, 16, 16))
    check_backbone(model, prompts=SAID)
    promises.check_generation(model, "small pacemaker")


def test_the_checker_tells_when_the_image_is_not_heeded(folder: Path) -> None:
    blind: Any = load(folder)
    with torch.no_grad():
        blind.unet.conv_in.weight[:, 4:] = 0
    with pytest.raises(AssertionError, match="an image beside the latent changes nothing"):
        check_backbone(blind, prompts=SAID)


def test_bfloat16_is_close(folder: Path) -> None:
    promises.check_half_precision(folder, SAID[0])


@pytest.mark.parametrize("name", ["instruct", "noise-free", "prompt-to-prompt", "null-text", "edit-friendly"])
def test_methods(name: str, folder: Path) -> None:
    promises.check_editing(name, load(folder, dtype=torch.float64), EDIT)


@pytest.mark.parametrize("shift", [None, 0.3])
def test_the_network_is_given_the_latent_of_the_autoencoder_or_nothing(folder: Path, shift: float | None) -> None:
    """Neither scaled nor shifted, beside the noisy one; zeros where there is no image."""
    model: Any = load(folder)
    model.vae.register_to_config(shift_factor=shift)
    x, _ = latents(model)
    picture = promises.image(model)
    with torch.no_grad():
        z, raw = model.encode(picture), model.vae.encode(picture * 2 - 1).latent_dist.mode()
    words = model.embed(SAID)
    for condition, beside in ((words.beside(z), raw), (words, torch.zeros_like(raw))):
        with torch.no_grad():
            output = model.unet(torch.cat([x, beside], 1), 500, encoder_hidden_states=words.tokens).sample
            found = model.predict(x, 500, condition)
        s, n = model.schedule.coefficients(500)
        given = found.noise if model.prediction_type == "epsilon" else s * found.noise - n * found.clean
        torch.testing.assert_close(given, output, atol=1e-5, rtol=0)


def test_the_image_stays_with_its_row_of_words(model: Any) -> None:
    x, z = latents(model)
    one = model.embed([SAID[0]]).beside(z)
    both = model.predict(x, 500, one).clean
    for i in range(2):
        torch.testing.assert_close(model.predict(x[i : i + 1], 500, one[i]).clean, both[i : i + 1], atol=1e-5, rtol=0)
    joined, twice = Condition.cat([one[1], one[0]]).image, one.repeat(2).image
    assert joined is not None and torch.equal(joined, z.flip(0))
    assert twice is not None and torch.equal(twice, z[[0, 0, 1, 1]])
    served = model.predict(x, 500, model.embed([SAID[0]]).beside(z[:1])).clean  # one row serves all
    torch.testing.assert_close(served[:1], both[:1], atol=1e-5, rtol=0)
    for mixed in ([one, model.embed(SAID)], [model.embed(SAID), one]):
        with pytest.raises(ValueError, match="1 of 2 conditions have a part that the others lack"):
            Condition.cat(mixed)


def test_steps_down_as_the_pipeline_of_diffusers_does(folder: Path, model: Any) -> None:
    """Under words and image, the image alone and neither, led from each to the one before."""
    start, _ = latents(model)
    picture = promises.image(model)
    asked = {"num_inference_steps": 4, "guidance_scale": 3.0, "image_guidance_scale": 1.5, "output_type": "latent"}
    wanted = pipeline(folder)(SAID, image=picture, latents=start, **asked).images
    x, z, words, nothing = start, model.encode(picture), model.embed(SAID), model.embed(["", ""])
    with torch.no_grad():
        for t, below in downwards(model.schedule.timesteps(4).tolist()):
            both, image, none = (model.predict(x, t, c) for c in (words.beside(z), nothing.beside(z), nothing))
            led = [
                n + 3 * (b - i) + 1.5 * (i - n)
                for b, i, n in ((both.clean, image.clean, none.clean), (both.noise, image.noise, none.noise))
            ]
            x = ddim_step(Prediction(*led), *model.schedule.coefficients(below))
    torch.testing.assert_close(x, wanted, atol=2e-3, rtol=1e-3)


def test_plain_diffusers_edits_a_file_with_it(folder: Path, model: Any) -> None:
    picture = promises.image(model, 1)[0].permute(1, 2, 0).mul(255).byte().numpy()
    file = Image.fromarray(picture[..., 0] if model.channels == 1 else picture)
    made = pipeline(folder)("pacemaker", image=file, num_inference_steps=2).images[0]
    assert (made.size, made.mode) == (file.size, file.mode)


@pytest.mark.parametrize(
    ("index", "unet"),
    [({"_class_name": "MarigoldDepthPipeline"}, {}), ({}, {"out_channels": 5}), ({}, {"in_channels": 9})],
    ids=str,
)
def test_what_sees_something_else_is_refused(index: dict[str, str], unet: dict[str, int], tmp_path: Path) -> None:
    copy = tiny.instruct_pix2pix(tmp_path / "other", **unet)
    told = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(told | index))
    with pytest.raises(ModelError, match=rf"vae has 4 latent channels, unet takes {unet.get('in_channels', 8)}"):
        load(copy)
