"""Every part of a model can be trained; what comes out opens here and in plain diffusers."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.models import tiny
from tests.training.small import config

import counterscan
from counterscan.errors import CounterscanError, DataError, WordsError
from counterscan.training.corpus import open_corpus
from counterscan.training.session import Session
from counterscan.training.start import start_folder
from counterscan.training.trainer import train

WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}


def weights(folder: Path, part: str) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS[part])


def changed(folder: Path, part: str) -> set[str]:
    """The weights that are other than in the model that was started from."""
    before, after = weights(folder / "model", part), weights(folder / "run", part)
    assert before.keys() == after.keys()
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


def image_of(folder: Path, prompt: str = "chest radiograph") -> np.ndarray:
    """What plain diffusers draws with the model in a folder."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(1, *counterscan.load(folder).latent_shape, generator=torch.Generator().manual_seed(0))
    drawn = pipeline(
        prompt, num_inference_steps=2, latents=noise, height=32, width=32, output_type="pt", guidance_scale=2
    )
    image: np.ndarray = drawn.images.numpy()
    return image


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "lora"])
def test_what_is_named_learns_and_the_rest_stays(tmp_path, part):
    result = train(config(tmp_path, train=[part]))
    learned = "unet" if part == "lora" else part
    for other in WEIGHTS:
        assert bool(changed(tmp_path, other)) == (other == learned), other
    if part == "lora":
        assert all(name.split(".")[-2] in ("to_q", "to_k", "to_v", "0") for name in changed(tmp_path, "unet"))
    opened = counterscan.load(result.folder)
    assert opened.card.training["trained"] == [part] and opened.card.training["images_seen"] == 8
    assert np.isfinite(image_of(result.folder)).all()


def test_the_loss_falls_on_what_can_be_learned(tmp_path):
    plain = {"data": {"captions": {"drop": 0.0}}, "optimizer": {"rate": 3e-3}}
    train(config(tmp_path, steps=60, batch=8, micro_batch=8, save_every=60, **plain))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert len(losses) == 60 and np.mean(losses[-10:]) < 0.75 * np.mean(losses[:5])


def test_how_a_batch_is_cut_does_not_matter(tmp_path):
    curves = []
    for size in (1, 4):
        train(config(tmp_path, output=str(tmp_path / f"by-{size}"), micro_batch=size, steps=3))
        curves.append([list(json.loads(line).values()) for line in (tmp_path / f"by-{size}/log.jsonl").open()])
    assert np.allclose(*curves, rtol=1e-4), "losses and gradients"


def test_kept_latents_train_as_images_do(tmp_path):
    """They are kept in half precision, so equal but for rounding."""
    losses = []
    for cache in (True, False):
        result = train(config(tmp_path, output=str(tmp_path / str(cache)), data={"cache": cache}))
        losses.append(result.loss)
        assert (result.folder / "latents").exists() == cache
    assert losses[0] == pytest.approx(losses[1], rel=1e-3) and losses[0] != losses[1]


def test_kept_prompts_train_as_encoded_ones_do(tmp_path):
    flips = {"augment": {"flip": "words"}}
    losses = [
        train(config(tmp_path, output=str(tmp_path / str(kept)), data={"cache_text": kept, **flips})).loss
        for kept in (True, False)
    ]
    assert losses[0] == losses[1]
    assert list((tmp_path / "True/text").rglob("*.safetensors")) and not (tmp_path / "False/text").exists()


def test_prompts_too_many_to_be_remembered_are_kept(tmp_path, monkeypatch):
    """Unless the text encoder learns, they are drawn without number, or are too large."""
    many = {"batch": 2, "steps": 1}
    for name, changes in {
        "few": {},
        "many": {},
        "learns": {"train": ["unet", "text_encoder"]},
        "drawn": {"data": {"captions": {"source": "findings"}}},
        "large": {},
    }.items():
        monkeypatch.setattr("counterscan.training.session.CACHED_PROMPTS", 256 if name == "few" else 1)
        monkeypatch.setattr("counterscan.training.session.TEXT_BYTES", 100 if name == "large" else 1 << 30)
        run = train(config(tmp_path, output=str(tmp_path / name), **many, **changes)).folder
        assert (run / "text").exists() == (name == "many"), name


@pytest.mark.parametrize(
    "changes", [{"train": ["text_encoder"]}, {"data": {"captions": {"source": "findings"}}}], ids=str
)
def test_prompts_that_cannot_be_kept(tmp_path, changes):
    data = {"cache_text": True, **changes.get("data", {})}
    with pytest.raises(WordsError, match=r"data.cache_text: .*leave it out"):
        train(config(tmp_path, **{**changes, "data": data}))


def test_captions_that_are_too_long_are_shortened_and_told_once(tmp_path):
    """The tiny encoder takes 24 tokens; the cut text would end before the effusion."""
    asked = config(tmp_path)
    long = "a study that is " + "very " * 30 + "long was made. There is a left pleural effusion."
    asked.data.manifest.write_text(
        asked.data.manifest.read_text().replace("chest radiograph: left pleural effusion", long)
    )
    with pytest.warns(UserWarning, match="1 of 2 captions are longer than 24 tokens and are shortened") as told:
        train(asked)
    assert len(told) == 1
    session = Session(asked)
    assert session.corpus.fit(long) == "There is a left pleural effusion." and session.corpus.fit("chest") == "chest"


def test_a_file_of_several_rows_is_encoded_once(tmp_path):
    asked = config(tmp_path)
    text = asked.data.manifest.read_text().splitlines()
    asked.data.manifest.write_text("\n".join([*text, *text[1:]]) + "\n")
    train(asked)
    (shard,) = (tmp_path / "run/latents").glob("*/*.npy")
    assert np.load(shard).shape[1] == 12


def test_adapters_open_on_the_model_they_were_trained_on(tmp_path):
    from diffusers import StableDiffusionPipeline

    asked = config(tmp_path, train=["lora"], lora={"rank": 2, "alpha": 8})
    train(asked)
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "model", safety_checker=None)
    pipeline.load_lora_weights(tmp_path / "run")
    pipeline.fuse_lora()
    merged = weights(tmp_path / "run", "unet")
    for name, value in pipeline.unet.state_dict().items():
        if "lora_" not in name:
            assert torch.allclose(value, merged[name.replace(".base_layer.", ".")], atol=1e-6), name


def test_adapters_on_layers_that_are_not_there(tmp_path):
    with pytest.raises(WordsError, match=r"lora.targets: no layer ends in nowhere; there are .*to_q"):
        train(config(tmp_path, train=["lora"], lora={"targets": ["nowhere"]}))


def test_a_new_word_learns_alone(tmp_path):
    asked = {"captions": {"text": "chest radiograph: <stripe>"}}
    train(config(tmp_path, train=["token"], token={"word": "<stripe>", "start": "effusion"}, data=asked))
    before, after = weights(tmp_path / "model", "text_encoder"), weights(tmp_path / "run", "text_encoder")
    table = "embeddings.word_embeddings.weight"
    assert all(torch.equal(after[name], before[name]) for name in before if name != table)
    old = len(before[table])
    assert torch.equal(after[table][:old], before[table]) and len(after[table]) == old + 1
    opened = counterscan.load(tmp_path / "run")
    assert "<stripe>" in opened.tokenizer.tokenize("a <stripe>")
    effusion = before[table][opened.tokenizer.convert_tokens_to_ids("effusion")]
    assert 0 < (after[table][old] - effusion).abs().max() < 0.01, "it began as its start and moved by two steps"
    assert np.isfinite(image_of(tmp_path / "run", "<stripe>")).all()


def test_a_new_word_that_no_caption_holds(tmp_path):
    with pytest.raises(WordsError, match=r"data.captions.text"):
        train(config(tmp_path, train=["token"], token={"word": "<stripe>", "start": "effusion"}))


@pytest.mark.parametrize(("width", "train_too"), [(24, ["unet"]), (16, [])])
def test_another_text_encoder_takes_two_lines(tmp_path, caplog, monkeypatch, width, train_too):
    """The projection learns even where nothing else does; the encoder itself stays as it was."""
    tiny(tmp_path / "other", text_hidden=width, text_heads=2, seed=7)
    encoder = tmp_path / "encoder"
    (tmp_path / "other/text_encoder").rename(encoder)
    for path in (tmp_path / "other/tokenizer").iterdir():
        path.rename(encoder / path.name)
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    result = train(config(tmp_path, text_encoder=str(encoder), train=train_too))
    assert not [line for line in caplog.messages if "kept in float32" in line]
    kept = load_file(encoder / "model.safetensors")
    assert all(torch.equal(value, kept[name]) for name, value in weights(result.folder, "text_encoder").items())
    projection = weights(result.folder, "unet")["encoder_hid_proj.weight"]
    assert projection.shape == (16, width)
    if width == 16:
        assert 0 < (projection - torch.eye(16)).abs().max() < 0.01, "it began as the identity"
        same = {n for n in weights(tmp_path / "model", "unet") if not n.startswith("add_embedding")}
        before, after = weights(tmp_path / "model", "unet"), weights(result.folder, "unet")
        assert all(torch.equal(before[name], after[name]) for name in same)
    assert counterscan.load(result.folder).embed(["chest radiograph"]).tokens.shape[-1] == width
    assert np.isfinite(image_of(result.folder)).all()


def test_a_model_from_nothing(tmp_path):
    small = {"resolution": 32, "vae_blocks": [8, 16], "unet_blocks": [16, 32], "unet_heads": 2, "text_hidden": 16,
             "text_layers": 1, "text_heads": 2, "max_length": 24}  # fmt: skip
    first = train(config(tmp_path, compact=small, train=["vae"], output=str(tmp_path / "vae")))
    vae = counterscan.load(first.folder).vae
    assert vae.config.scaling_factor != 0.18215, "latents get unit variance"
    second = train(config(tmp_path, model=str(first.folder), train=["unet", "text_encoder"]))
    assert set(counterscan.load(second.folder).card.findings) == {"pleural effusion", "pacemaker"}
    assert np.isfinite(image_of(second.folder)).all()


def test_a_model_from_nothing_knows_its_words_first(tmp_path):
    """Taught, the embeddings that the U-Net is given of two prompts lie apart; as drawn they hardly do."""
    small = {"resolution": 32, "vae_blocks": [8, 16], "unet_blocks": [16, 32], "unet_heads": 2, "text_hidden": 16,
             "text_layers": 1, "text_heads": 2, "max_length": 24}  # fmt: skip

    def apart(folder: Path) -> float:
        model = counterscan.load(folder)
        pooled = model.unet.add_embedding(model.embed(["pleural effusion", "no pleural effusion"]).tokens)
        return float((pooled[0] - pooled[1]).norm() / pooled.norm(dim=1).mean())

    def start(name: str, **settings: int) -> Path:
        run = config(tmp_path, compact=small | settings, train=["vae"], output=str(tmp_path / name))
        return start_folder(run, open_corpus(run.data))

    taught, drawn = start("taught", taught=300), start("drawn")
    assert apart(taught) > 2 * apart(drawn)
    kept = {n: weights(taught, "unet")[n] for n in weights(drawn, "unet") if not n.startswith("add_embedding")}
    assert all(torch.equal(value, weights(drawn, "unet")[n]) for n, value in kept.items())


def test_a_pixel_model_from_nothing_learns_its_classes(tmp_path):
    captions = {"source": "findings", "findings": ["pacemaker"], "template": "radiograph", "full": 1, "mention": 1,
                "deny": 1, "view": 0, "sex": 0, "drop": 0.3}  # fmt: skip
    small = {"classes": ["pacemaker", "no pacemaker", ""], "channels": 1, "resolution": 32, "blocks": [8, 16]}
    train(config(tmp_path, pixel=small, model=None, data={"captions": captions}, steps=3))
    before, after = (load_file(tmp_path / "run" / n / WEIGHTS["unet"]) for n in ("start", "."))
    assert all((before[n] != after[n]).any(-1).all() for n in before if "class_embedding" in n)
    opened = counterscan.load(tmp_path / "run")
    assert (opened.family, opened.card.classes[0], opened.card.findings) == ("pixel", "pacemaker", ("pacemaker",))


def test_another_target_and_a_schedule_that_ends_in_noise_are_saved(tmp_path):
    tiny(tmp_path / "model", prediction_type="epsilon")
    wanted = {"prediction": "v_prediction", "zero_snr": True, "min_snr": 5.0}
    train(config(tmp_path, objective=wanted))
    opened = counterscan.load(tmp_path / "run")
    assert opened.prediction_type == "v_prediction" and float(opened.schedule.signal[-1]) == 0
    assert np.isfinite(image_of(tmp_path / "run")).all()


def test_the_average_is_what_is_saved(tmp_path):
    for name, decay in (("plain", None), ("averaged", 0.999)):
        train(config(tmp_path, output=str(tmp_path / name), ema=decay, steps=3))
    start, plain, averaged = (weights(tmp_path / n, "unet")["conv_in.weight"] for n in ("model", "plain", "averaged"))
    assert 0 < (averaged - start).abs().mean() < (plain - start).abs().mean()


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpointing": True},
        {"precision": "bfloat16"},
        {"precision": "bfloat16", "frozen": "bfloat16", "train": ["lora"]},
        {"objective": {"loss": "l1", "times": "logit_normal"}},
        {"optimizer": {"clip": None, "schedule": "cosine", "warmup": 1}},
        {"data": {"balance": ["pacemaker"], "augment": {"rotate": 5, "zoom": 0.1, "light": 0.1, "flip": "words"}}},
        {"data": {"captions": {"source": "findings", "separator": ";"}, "augment": {"flip": "dropped"}}},
    ],
    ids=str,
)
def test_an_option_changes_the_run(tmp_path, changes):
    """Each runs and gives a finite loss; all but recomputation change what is learned."""
    asked = config(tmp_path, **changes)
    assert np.isfinite(train(asked).loss)
    ours = weights(tmp_path / "run", "unet")
    train(config(tmp_path, output=str(tmp_path / "plain")))
    plain = weights(tmp_path / "plain", "unet")
    assert all(torch.allclose(ours[n].float(), plain[n], atol=1e-6) for n in plain) == ("checkpointing" in changes)


def test_a_sample_of_each_prompt_is_drawn_on_the_way(tmp_path):
    from PIL import Image

    train(config(tmp_path, samples={"prompts": ["chest radiograph", "no effusion"], "every": 1, "steps": 2}))
    strips = sorted((tmp_path / "run/samples").iterdir())
    assert [path.name for path in strips] == ["step-0000001.png", "step-0000002.png"]
    assert Image.open(strips[0]).size == (64, 32)


def test_held_out_images_are_edited_on_the_way_and_told_on_the_card(tmp_path):
    """With a judge, and a mask of another size than the images."""
    from PIL import Image

    asked = {"findings": ["pleural effusion"], "split": "train", "images": 2, "every": 1, "method": "sdedit"}
    wanted = config(tmp_path, validation={**asked, "judge": "chest-nih-judge"})
    Image.fromarray(np.repeat([[0, 255]], 16, 0).repeat(8, 1).astype(np.uint8)).save(tmp_path / "data/mask.png")
    lines = wanted.data.manifest.read_text().splitlines()
    lines = [f"{lines[0]},mask", *(f"{line},mask.png" for line in lines[1:])]
    wanted.data.manifest.write_text("\n".join(lines) + "\n")
    plain = train(config(tmp_path, output=str(tmp_path / "plain")))
    result = train(wanted)
    assert result.loss == plain.loss, "looking changes nothing"
    folder = result.folder / "validation"
    assert {path.name for path in folder.iterdir()} == {
        f"step-000000{step}{end}" for step in (1, 2) for end in (".json", "-pleural-effusion.png")
    }
    told = counterscan.load(result.folder).card.scores["validation"]
    assert (told["step"], told["split"], told["judge"]) == (2, "train", "chest-nih-judge")
    found = told["findings"]["pleural effusion"]
    assert found["n"] == 2 and {"gain", "l1", "mask_auprc"} <= set(found) and 0 < found["mask_auprc"] <= 1
    assert counterscan.load(plain.folder).card.scores == {}


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({}, DataError, r"no image of the split 'val' has pleural effusion; set validation.split"),
        ({"split": "train", "method": "nothing"}, WordsError, "nothing"),
        (
            {"split": "train", "findings": ["pacemaker"], "judge": "chest-world-judge", "images": 0},
            ValueError,
            "images",
        ),
        ({"split": "train", "judge": "no-such-judge"}, CounterscanError, "no-such-judge"),
    ],
    ids=str,
)
def test_a_validation_that_cannot_be(tmp_path, changes, error, says):
    with pytest.raises(error, match=says):
        train(config(tmp_path, validation={"findings": ["pleural effusion"], **changes}))
    assert not (tmp_path / "run/log.jsonl").exists()


def test_samples_are_of_the_words_as_they_are_now(tmp_path):
    """What prompts become is kept by heart, and must be forgotten where the text encoder learns."""
    prompts = {"prompts": ["chest radiograph: pleural effusion"], "every": 1, "steps": 2}
    train(config(tmp_path, train=["text_encoder"], samples=prompts, optimizer={"rate": 0.1}))
    first, second = (path.read_bytes() for path in sorted((tmp_path / "run/samples").iterdir()))
    assert first != second


def test_latents_keep_their_scale_unless_the_model_is_from_nothing(tmp_path):
    before = counterscan.load(config(tmp_path).model).vae.config.scaling_factor
    assert counterscan.load(train(config(tmp_path, train=["vae"])).folder).vae.config.scaling_factor == before


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"data": {"split": "validation"}}, DataError, "data.split"),
        ({"data": {"balance": ["nodule"]}}, WordsError, "data.balance.*no column nodule; it has pleural effusion"),
        ({"data": {"cache": True, "augment": {"rotate": 3}}}, WordsError, "data.cache"),
        ({"train": ["transformer"]}, WordsError, "train: .* has no transformer"),
        ({"precision": "float16"}, WordsError, "precision"),
        ({"optimizer": {"name": "adamw8bit"}}, WordsError, "bitsandbytes"),
        ({"tracker": "mlflow"}, WordsError, "tracker: the package mlflow is not installed"),
        ({"objective": {"zero_snr": True}}, None, ""),
        ({"compact": {"rooms": 3}}, WordsError, "compact: no field rooms"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit(tmp_path, changes, error, says):
    if error is None:  # the tiny model predicts v, which zero_snr is right for
        assert train(config(tmp_path, **changes)).steps == 2
        return
    with pytest.raises(error, match=says):
        train(config(tmp_path, **changes))
    assert not (tmp_path / "run/model_index.json").exists()


def test_every_image_that_cannot_be_read_is_named(tmp_path):
    asked = config(tmp_path)
    (tmp_path / "data/images/3.png").unlink()
    (tmp_path / "data/images/5.png").write_bytes(b"no picture")
    with pytest.raises(DataError) as caught:
        train(asked)
    assert all(text in str(caught.value) for text in ("2 images", "row 4", "3.png", "row 6", "5.png"))
