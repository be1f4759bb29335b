"""Pixel-space models: any channels, classes with and without a null, from diffusers' own folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.backbones import promises

from counterscan import methods
from counterscan.backbones import load
from counterscan.backbones.check import check_backbone
from counterscan.backbones.compact_pixel import build
from counterscan.backbones.pixel import Pixel
from counterscan.errors import ModelError, WordsError
from counterscan.methods.implicit_guidance import ImplicitGuidance
from counterscan.types import Change, Edit

CLASSES = ("glioma", "no glioma", "glioma, oedema", "")
EDIT = Edit("brain mri: glioma.", "brain mri: no glioma.")
TINY: dict[str, Any] = {
    "resolution": 16,
    "blocks": (8, 16),
    "layers": 1,
    "head_width": 8,
    "template": "brain mri",
    "findings": ("glioma",),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("pixel") / "tiny", classes=CLASSES, **TINY)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load(folder)


def test_keeps_the_promises_of_the_waist(model: Any) -> None:
    assert isinstance(model, Pixel)
    assert (model.channels, model.resolution, model.latent_shape) == (4, 16, (4, 16, 16))
    check_backbone(model)
    promises.check_generation(model, "brain mri: glioma.")


def test_the_latent_is_the_image(model: Any) -> None:
    x = promises.image(model)
    torch.testing.assert_close(model.encode(x), 2 * x - 1)
    torch.testing.assert_close(model.decode(model.encode(x)), x)
    with pytest.raises(ModelError, match="4 channels, got 3"):
        model.encode(x[:, :3])


def test_bfloat16_is_close(folder: Path) -> None:
    promises.check_half_precision(folder, "glioma")


@pytest.mark.parametrize("name", [name for name in methods.names() if name not in methods.PRESETS])
def test_methods(name: str, folder: Path) -> None:
    promises.check_editing(name, load(folder, dtype=torch.float64), EDIT)


def test_agrees_with_the_network_of_plain_diffusers(folder: Path, model: Any) -> None:
    from diffusers import DDPMPipeline

    unet = DDPMPipeline.from_pretrained(folder).unet
    z = promises.latents(model)
    with torch.no_grad():
        wanted = unet(z, torch.tensor([3, 900]), class_labels=torch.tensor([2, 3])).sample
    got = model.predict(z, torch.tensor([3, 900]), model.embed(["glioma, oedema", ""]))
    torch.testing.assert_close(got.noise, wanted, atol=1e-5, rtol=1e-5)


def test_samples_what_plain_diffusers_samples(tmp_path: Path) -> None:
    from diffusers import DDIMPipeline, DDIMScheduler

    folder = build(tmp_path / "free", channels=1, **TINY)
    pipeline = DDIMPipeline.from_pretrained(folder)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(generator=torch.Generator().manual_seed(4), num_inference_steps=5, output_type="np").images
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(4))
    free: Any = load(folder)
    from counterscan.diffusion import ddim_step
    from counterscan.methods.ddim import downwards

    for t, below in downwards(free.schedule.timesteps(5).tolist()):
        x = ddim_step(free.predict(x, t, free.embed([""])), *free.schedule.coefficients(below))
    torch.testing.assert_close(free.decode(x)[:, 0], torch.from_numpy(theirs[..., 0]), atol=1e-4, rtol=0)


def test_prompts_are_classes_whatever_their_head(model: Any) -> None:
    table = model.unet.class_embedding.weight
    for prompt, index in [
        ("", 3),
        ("brain mri", 3),
        ("Brain MRI, female", 3),
        ("brain mri, female: no glioma.", 1),
        ("oedema, glioma", 2),
    ]:
        assert torch.equal(model.embed([prompt]).tokens[0, 0], table[index]), prompt
    with pytest.warns(UserWarning, match="cannot tell 'brain mri: small left glioma.'"):
        assert torch.equal(model.embed(["brain mri: small left glioma."]).tokens[0, 0], table[0])
    for prompt in ("brain mri: meningioma.", "no oedema", "brain mri: no left glioma."):
        with pytest.raises(WordsError, match="no class for .*it has 'glioma', 'no glioma'"):
            model.embed([prompt])


def test_named_changes_are_classes_too(model: Any) -> None:
    edit = Edit(EDIT.source, EDIT.target, (Change("glioma", "remove"),))
    x = promises.image(model)
    named, plain = (
        methods.get("ledits", steps=3)(model, x, e, generator=torch.Generator().manual_seed(0)) for e in (edit, EDIT)
    )
    torch.testing.assert_close(named, plain)


def test_an_unconditional_model_takes_a_classifier_and_no_words(tmp_path: Path) -> None:
    model: Any = load(build(tmp_path / "free", **TINY))
    with pytest.raises(WordsError, match="unconditional"):
        model.embed(["glioma"])
    check_backbone(model, prompts=["", ""])
    promises.check_generation(model, "")
    x, edit = promises.image(model), Edit("", "healthy")

    def run(scale: float) -> torch.Tensor:
        bright = lambda z, t: z.mean((1, 2, 3))  # noqa: E731
        method = ImplicitGuidance(4, 0.5, guidance=0.0, classifier_scale=scale, classifier=bright)
        return method(model, x, edit, generator=torch.Generator())

    before = model.evaluations
    plain = run(1e-9)
    assert model.evaluations - before == 2 * (2 + 2)
    assert run(50.0).mean() > plain.mean() + 1e-3


def test_null_text_fits_the_null_class(model: Any) -> None:
    z, null = promises.latents(model), model.embed([""])
    with torch.enable_grad():
        rows = null.tokens.detach().clone().requires_grad_()
        model.predict(z, 500, type(null)(rows)).noise.sum().backward()
    assert rows.grad is not None
    assert rows.grad.abs().max() > 0


def test_without_a_card_classes_are_numbers(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "counterscan.json").unlink()
    model: Any = load(copy)
    assert (model.card.family, model.card.channels, model.card.resolution) == ("pixel", 4, 16)
    assert torch.equal(model.embed(["3"]).tokens, load(folder).embed([""]).tokens)
    with pytest.raises(WordsError, match="no class for ''"):
        model.embed([""])


def test_what_does_not_fit_is_named(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    card = json.loads((copy / "counterscan.json").read_text())
    for change, message in [
        ({"classes": ["a", "b"]}, "names 2 classes .*unet has 4"),
        ({"channels": 3}, "images have 3"),
    ]:
        (copy / "counterscan.json").write_text(json.dumps(card | change))
        with pytest.raises(ModelError, match=message):
            load(copy)


def test_a_learned_variance_is_left_out(folder: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DModel

    copy = shutil.copytree(folder, tmp_path / "copy")
    with torch.random.fork_rng():
        config = dict(UNet2DModel.load_config(copy / "unet")) | {"out_channels": 8}
        UNet2DModel.from_config(config).save_pretrained(copy / "unet")
    model: Any = load(copy)
    z = promises.latents(model)
    assert model.predict(z, 500, model.embed([""])).noise.shape == z.shape
