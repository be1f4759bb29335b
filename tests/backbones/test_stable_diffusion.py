"""The adapter agrees with diffusers, and says clearly what is wrong with a broken folder."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models import tiny

from counterscan.backbones import HUB_FILES, HUB_SKIP, load, locate
from counterscan.backbones.check import check_backbone
from counterscan.backbones.stable_diffusion import StableDiffusion
from counterscan.backbones.text import tell_unknown
from counterscan.editing import edit
from counterscan.errors import ModelError, WordsError


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> StableDiffusion:
    return StableDiffusion.open(tiny_folder)


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def image(channels: int = 1) -> torch.Tensor:
    return torch.rand(2, channels, 32, 32, generator=torch.Generator().manual_seed(0))


def test_opens_in_plain_diffusers_and_draws_there(tiny_folder: Path, model: StableDiffusion) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pictures = pipeline("small left pleural effusion", num_inference_steps=2).images
    assert pictures[0].size == (32, 32)
    theirs, _ = pipeline.encode_prompt("no pacemaker", "cpu", 1, False)
    torch.testing.assert_close(model.embed(["no pacemaker"]).tokens, theirs)


def test_is_a_backbone(model: StableDiffusion) -> None:
    assert (model.resolution, model.channels, model.latent_shape) == (32, 1, (4, 16, 16))
    check_backbone(model)


def test_encode_is_the_scaled_posterior_mean(model: StableDiffusion) -> None:
    x = image()
    wanted = model.vae.encode(x * 2 - 1).latent_dist.mean * model.vae.config.scaling_factor
    torch.testing.assert_close(model.encode(x), wanted)
    decoded = model.decode(model.encode(x))
    assert decoded.shape == x.shape
    assert decoded.min() >= 0
    assert decoded.max() <= 1


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_predictions_recompose_the_latent(kind: str, tmp_path: Path) -> None:
    model = load(tiny(tmp_path / kind, prediction_type=kind))
    z, t = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 400, 900])
    prediction = model.predict(z, t, model.embed(["pacemaker"]))
    s, n = (c.reshape(3, 1, 1, 1) for c in model.schedule.coefficients(t))
    torch.testing.assert_close(s * prediction.clean + n * prediction.noise, z, atol=1e-4, rtol=0)
    assert model.evaluations == 3


def test_a_row_of_condition_serves_its_row_of_latents(model: StableDiffusion) -> None:
    z = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1, -1)
    both = model.predict(z, 500, model.embed(["no pacemaker", "left pleural effusion"]))
    assert not torch.allclose(both.clean[0], both.clean[1])
    alone = model.predict(z[:1], 500, model.embed(["left pleural effusion"]))
    torch.testing.assert_close(both.clean[1:], alone.clean, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="3 condition rows for 2 latents"):
        model.predict(z, 500, model.embed(["a", "b", "c"]))


def test_words_that_can_only_be_spelled_are_named() -> None:
    backbone = load("chest-nih")
    with pytest.warns(UserWarning, match="chest-nih does not know 'zebra', 'bicycle', and goes by"):
        tell_unknown(backbone, "a", "zebra on a bicycle, left pleural effusion")
    with pytest.warns(UserWarning, match="does not know 'zebra', and goes by"):
        edit(np.eye(64, dtype=np.uint8) * 255, source="a zebra", target="a zebra", model=backbone)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tell_unknown(backbone, "", "nih chest radiograph, PA, male: small left pleural effusion, no pacemaker.")


def test_too_long_a_prompt_names_what_is_cut(model: StableDiffusion) -> None:
    with pytest.warns(UserWarning, match="pacemaker"):
        model.embed(["no " * 30 + "pacemaker"])


def test_no_word_is_unknown(model: StableDiffusion) -> None:
    ids = model.tokenizer("Zygomorphic Fündling? 3.5cm (left) pleural-effusion!")["input_ids"]
    assert model.tokenizer.unk_token_id not in ids


def test_grey_images_enter_and_leave_a_colour_model(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "colour", channels=3)
    colour = load(folder)
    torch.testing.assert_close(colour.encode(image()), colour.encode(image().expand(-1, 3, -1, -1)))
    assert colour.decode(colour.encode(image())).shape[1] == 3
    card = folder / "counterscan.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"channels": 1}))
    grey = load(folder)
    torch.testing.assert_close(
        grey.decode(grey.encode(image())), colour.decode(colour.encode(image())).mean(1, keepdim=True), atol=0.3, rtol=0
    )
    assert grey.decode(grey.encode(image())).shape[1] == 1
    with pytest.raises(ModelError, match="3 channels, got 2"):
        colour.encode(image(2))


def test_without_a_card_size_and_channels_come_from_the_configs(copy: Path) -> None:
    (copy / "counterscan.json").unlink()
    card = load(copy).card
    assert (card.name, card.channels, card.resolution, card.findings) == ("copy", 1, 32, ())


def test_same_seed_same_weights_and_no_global_randomness(tmp_path: Path, tiny_folder: Path) -> None:
    state = torch.get_rng_state()
    same, other = load(tiny(tmp_path / "a")), load(tiny(tmp_path / "b", seed=1))
    assert torch.equal(state, torch.get_rng_state())
    assert same.fingerprint == load(tiny_folder).fingerprint != other.fingerprint
    assert len(same.fingerprint) == 16


def test_clip_models_open_and_agree_with_diffusers(copy: Path) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng():
        config = CLIPTextConfig(
            vocab_size=600, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=24, eos_token_id=3, bos_token_id=2, pad_token_id=0,
        )  # fmt: skip
        shutil.rmtree(copy / "text_encoder")
        CLIPTextModel(config).eval().save_pretrained(copy / "text_encoder")
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"text_encoder": ["transformers", "CLIPTextModel"]}))
    from diffusers import StableDiffusionPipeline

    model, pipeline = load(copy), StableDiffusionPipeline.from_pretrained(copy, safety_checker=None)
    theirs, _ = pipeline.encode_prompt("no pacemaker", "cpu", 1, False)
    condition = model.embed(["no pacemaker"])
    torch.testing.assert_close(condition.tokens, theirs)
    assert condition.mask is None


def test_missing_parts_are_named(copy: Path) -> None:
    shutil.rmtree(copy / "vae")
    with pytest.raises(ModelError, match="no vae"):
        load(copy)
    with pytest.raises(ModelError, match=r"model_index.json: missing"):
        load(copy / "unet")


def test_foreign_families_are_named(copy: Path) -> None:
    index = {"_class_name": "SanaPipeline", "transformer": ["diffusers", "SanaTransformer2DModel"]}
    (copy / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="SanaPipeline is of no known family: flux, kandinsky, pixel, sd3, sdxl"):
        load(copy)


def test_pickles_are_refused_unopened(copy: Path) -> None:
    (copy / "unet" / "diffusion_pytorch_model.safetensors").rename(copy / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ModelError, match=r"diffusion_pytorch_model.bin: pickled weights"):
        load(copy)
    with pytest.raises(ModelError, match="not a single file"):
        locate("somewhere/model.ckpt")


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_damaged_weights_are_named(component: str, copy: Path) -> None:
    path = next((copy / component).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=f"{component}.*damaged"):
        load(copy)


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("fault", ["shape", "missing"])
def test_weights_that_do_not_fit_are_named(component: str, fault: str, copy: Path) -> None:
    path = next((copy / component).glob("*.safetensors"))
    weights = load_file(path)
    key = next(k for k, v in sorted(weights.items()) if v.ndim == 2 or (component == "vae" and v.ndim == 4))
    if fault == "shape":
        weights[key] = torch.zeros(weights[key].shape[0] + 1, *weights[key].shape[1:])
    else:
        del weights[key]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"{component}.*{key.removeprefix('bert.')}"):
        load(copy)


def test_components_that_do_not_fit_each_other_are_named(copy: Path, tmp_path: Path) -> None:
    other = tiny(tmp_path / "other", text_hidden=32)
    shutil.rmtree(copy / "text_encoder")
    shutil.copytree(other / "text_encoder", copy / "text_encoder")
    with pytest.raises(ModelError, match="text_encoder gives 32 numbers a token, unet takes 16"):
        load(copy)


def test_a_model_brings_no_code_of_its_own(copy: Path) -> None:
    index = json.loads((copy / "model_index.json").read_text())
    for entry in (["evil_module", "BertModel"], ["transformers", "no_such"], "text"):
        (copy / "model_index.json").write_text(json.dumps(index | {"text_encoder": entry}))
        with pytest.raises(ModelError, match="text_encoder"):
            load(copy)


def test_a_broken_card_or_schedule_is_named(copy: Path) -> None:
    scheduler = copy / "scheduler" / "scheduler_config.json"
    good = scheduler.read_text()
    scheduler.write_text(json.dumps(json.loads(good) | {"beta_schedule": "sigmoid"}))
    with pytest.raises(ModelError, match=r"scheduler_config.json: unknown beta_schedule"):
        load(copy)
    scheduler.write_text(good)
    (copy / "counterscan.json").write_text('{"findings": []}')
    with pytest.raises(ModelError, match=r"counterscan.json: not a model card"):
        load(copy)


def test_the_hub_gives_the_components_and_not_all_their_weights_again() -> None:
    from huggingface_hub.utils import filter_repo_objects

    wanted = [
        "model_index.json", "counterscan.json", "scheduler/scheduler_config.json", "tokenizer_2/spiece.model",
        "tokenizer/merges.txt", "transformer/diffusion_pytorch_model-00001-of-00003.safetensors",
        "transformer/diffusion_pytorch_model.safetensors.index.json", "vae/config.json",
    ]  # fmt: skip
    others = [
        "flux1-dev.safetensors", "README.md", "unet/diffusion_pytorch_model.fp16.safetensors", "unet/weights.bin",
        "text_encoders/t5xxl_fp16.safetensors", "vae_decoder/model.onnx", "safety_checker/model.safetensors",
    ]  # fmt: skip
    kept = filter_repo_objects([*wanted, *others], allow_patterns=HUB_FILES, ignore_patterns=HUB_SKIP)
    assert list(kept) == wanted


def test_unknown_models_are_words_and_offline_hub_models_are_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WordsError, match="no model 'nonsense'"):
        load("nonsense")
    with pytest.raises(ModelError, match="not in the local cache"):
        load("counterscan-tests/does-not-exist", offline=True)
