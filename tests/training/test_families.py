"""Every family is trained through the same waist, and what comes out opens here."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from tests.backbones import tiny
from tests.training.small import config

import counterscan
from counterscan.errors import WordsError
from counterscan.training.trainer import train

FAMILIES = {"sdxl": tiny.sdxl, "sd3": tiny.sd3, "flux": tiny.flux, "kandinsky": tiny.kandinsky}
DENOISER = {"sdxl": "unet", "sd3": "transformer", "flux": "transformer", "kandinsky": "unet"}


NEW_WORD = {"train": ["token"], "token": {"word": "<x>"}, "data": {"captions": {"text": "a <x>"}}}


def curve(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").open()]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_denoiser_and_its_adapters_learn(tmp_path, family):
    start, name = FAMILIES[family](tmp_path / "model"), DENOISER[family]
    (before,) = (load_file(path) for path in (start / name).glob("*.safetensors"))
    for part in (name, "lora"):
        result = train(config(tmp_path, train=[part], output=str(tmp_path / part), steps=3))
        (after,) = (load_file(path) for path in (result.folder / name).glob("*.safetensors"))
        moved = [key for key in before if (before[key] != after[key]).any()]
        assert before.keys() == after.keys()
        assert 0 < len(moved) < 0.75 * len(before) if part == "lora" else len(moved) > 0.95 * len(before)
        assert np.isfinite(curve(result.folder)).all()
        opened = counterscan.load(result.folder)
        assert opened.family == family and opened.card.training["trained"] == [part]


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_the_first_text_encoder_learns(tmp_path, family):
    start = FAMILIES[family](tmp_path / "model")
    captions = {"captions": {"drop": 0}}
    result = train(config(tmp_path, train=["text_encoder"], data=captions))
    before, after = (load_file(folder / "text_encoder/model.safetensors") for folder in (start, result.folder))
    assert any((before[key] != after[key]).any() for key in before)
    assert counterscan.load(result.folder).family == family


@pytest.mark.parametrize(("family", "encoders"), [("sdxl", 2), ("sd3", 3), ("flux", 2)])
def test_a_new_word_is_learned_in_every_text_encoder(tmp_path, family, encoders):
    """In each, one row is new, begins as that of its start, and alone has moved; prompts without it mean what they did."""
    start = FAMILIES[family](tmp_path / "model")
    for path in start.glob("text_encoder*/config.json"):  # CLIP of old says 2, and takes the highest id for the end
        facts = json.loads(path.read_text())
        path.write_text(json.dumps(facts | {"eos_token_id": 2} if facts["model_type"] == "clip_text_model" else facts))
    asked = {"captions": {"text": "radiograph with <stripe>"}}
    result = train(config(tmp_path, train=["token"], token={"word": "<stripe>", "start": "effusion"}, data=asked))
    names = [f"text_encoder{n}" for n in ("", "_2", "_3")[:encoders]]
    for name in names:
        before, after = (load_file(folder / name / "model.safetensors") for folder in (start, result.folder))
        tables = [key for key in before if before[key].shape != after[key].shape]
        assert tables and all((before[key] == after[key]).all() for key in before if key not in tables)
        for key in tables:
            assert (after[key][: len(before[key])] == before[key]).all() and len(after[key]) == len(before[key]) + 1
    old, new = counterscan.load(start), counterscan.load(result.folder)
    plain, word = old.embed(["pleural effusion"]), new.embed(["pleural effusion", "<stripe>", "effusion"])
    torch.testing.assert_close(word[0].tokens, plain.tokens)
    torch.testing.assert_close(word[0].pooled, plain.pooled)
    assert not torch.equal(word[1].tokens, word[2].tokens)
    ends = [json.loads(path.read_text())["eos_token_id"] for path in result.folder.glob("text_encoder*/config.json")]
    assert 2 not in ends
    assert new.pieces("<stripe>").count("<stripe>") >= 1


def test_a_decoder_is_saved_with_its_prior(tmp_path):
    tiny.kandinsky_apart(tiny.kandinsky(tmp_path / "both"), tmp_path)
    (decoder,) = tmp_path.glob("*decoder*")
    result = train(config(tmp_path, model=str(decoder), train=["lora"]))
    assert counterscan.load(result.folder).embed(["pleural effusion"]).tokens.shape[1] == 1


@pytest.mark.parametrize("part", ["unet", "lora"])
def test_a_network_that_sees_an_image_is_shown_none_and_stays_what_it_is(tmp_path, part):
    """What reads the image beside gets no gradient from zeros; the folder opens in diffusers' pipeline as before."""
    start = tiny.instruct_pix2pix(tmp_path / "model")
    result = train(config(tmp_path, train=[part], optimizer={"weight_decay": 0}))
    before, after = (load_file(f / "unet/diffusion_pytorch_model.safetensors") for f in (start, result.folder))
    learns = {key for key in before if (before[key] != after[key]).any()}
    own, image = (before["conv_in.weight"] != after["conv_in.weight"]).split(4, 1)
    assert learns and own.any() == (part == "unet") and not image.any()
    assert np.isfinite(curve(result.folder)).all()
    assert counterscan.load(result.folder).sees_image
    pipe = DiffusionPipeline.from_pretrained(result.folder)
    made = pipe("pacemaker", image=tiny.images()[:1], num_inference_steps=2, output_type="latent").images
    assert type(pipe).__name__ == "StableDiffusionInstructPix2PixPipeline" and made.isfinite().all()


@pytest.mark.parametrize(
    ("family", "changes", "says"),
    [
        ("flux", {"train": ["unet"]}, "train: a flux model has no unet"),
        ("flux", {"objective": {"min_snr": 5}}, "objective: a flow-matching model"),
        ("sdxl", {"text_encoder": "x"}, "text_encoder: only a Stable Diffusion model"),
        ("kandinsky", {"train": ["vae"]}, "train: a kandinsky model has no vae"),
        ("kandinsky", {"train": ["text_encoder"]}, "train: a kandinsky model has no text_encoder"),
        ("kandinsky", NEW_WORD, "train: a kandinsky model draws by no words"),
        ("sdxl", NEW_WORD | {"token": {"word": "<x>", "start": " "}}, "token.start: ' ' is no word"),
    ],
)
def test_what_a_family_does_not_have(tmp_path, family, changes, says):
    FAMILIES[family](tmp_path / "model")
    changes = {"train": [DENOISER[family]], **changes}
    with pytest.raises(WordsError, match=says):
        train(config(tmp_path, **changes))
