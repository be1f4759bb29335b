"""The commands that made the built-in chest models. Each stage reads and writes a work folder and can be run again.

    python -m counterscan.training.chest draw WORK --part 0 --first 1000000 --count 2100 --twins 3
    python -m counterscan.training.chest draw WORK --part 1 --first 2000000 --count 2100 --twins 3
    python -m counterscan.training.chest draw WORK --part 2 --first 1002100 --count 3400
    python -m counterscan.training.chest draw WORK --part 3 --first 2002100 --count 3400
    python -m counterscan.training.chest autoencoder WORK --nih NIH --steps 900
    python -m counterscan.training.chest world WORK --steps 7000 --batch 16 --out MODEL
    python -m counterscan.training.chest nih WORK --nih NIH --nih-small SMALL --tb TB --start MODEL --steps 900 --out MODEL2
    python -m counterscan.training.chest ship WORK --start MODEL2 --out src/counterscan/models/chest-world
    python -m counterscan.training.chest ship WORK --start MODEL2 --out src/counterscan/models/chest-nih

``NIH``, ``SMALL`` and ``TB`` are folders with ``images/`` and ``metadata.csv`` (file, view, sex, split, a column a finding). The
stage ``nih`` goes on with the world and real radiographs together: what the one teaches serves the other, and chest-world and
chest-nih have its weights in common.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from counterscan.backbones import tiny
from counterscan.training import autoencoder, denoiser
from counterscan.training.captions import DEVICES, Row, vocabulary
from counterscan.training.radiographs import (
    NIH_NAMES,
    NIH_TEMPLATE,
    TB_TEMPLATE,
    nih_images,
    nih_row,
    nih_table,
    paste,
    room,
)
from counterscan.training.shipping import copy_as_half
from counterscan.training.suited import SUITED
from counterscan.training.world_set import WORLD_TEMPLATE, draw, world_rows

CREDIT = (
    "Training images: NIH Clinical Center, ChestX-ray14, https://nihcc.app.box.com/v/ChestXray-NIHCC; Wang et al., "
    "ChestX-ray8, CVPR 2017. Shenzhen and Montgomery sets: National Library of Medicine; Jaeger et al., 2014."
)
# what tells the runs of a stage apart
SETTINGS = "steps", "batch", "rate", "seed", "plain", "compiled", "word_steps"
STEPS = (*SETTINGS, "freeze_words", "new_words")
USED = {"world": STEPS, "nih": (*STEPS, "count", "small_count")}
WORDS: tuple[str, ...] = (
    *"left right upper middle lower small moderate large mild severe chest radiograph world nih montgomery".split(),
    *"shenzhen tb tuberculosis pa ap male female 128".split(),
)


@torch.no_grad()
def encode(vae: Any, images: NDArray[np.uint8], batch: int = 2) -> NDArray[np.float16]:
    """Latents (N, C, h, w), not yet scaled."""
    vae.eval().to(memory_format=torch.channels_last)
    side = images.shape[1] // 2 ** (len(vae.config.block_out_channels) - 1)
    # filled in place: parts in a list kept gigabytes of heap from being given back
    out = np.empty((len(images), vae.config.latent_channels, side, side), np.float16)
    for i in range(0, len(images), batch):
        x = torch.from_numpy(images[i : i + batch, None].astype(np.float32) / 127.5 - 1)
        out[i : i + batch] = vae.encode(x.contiguous(memory_format=torch.channels_last)).latents.half().numpy()
    return out


def encode_file(vae: Any, images: Path) -> NDArray[np.float16]:
    """The latents of an image array on disk."""
    return encode(vae, np.load(images))


def cached(path: Path, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """The array at ``path``, made first if absent (delete the file after changing what it depends on)."""
    if not path.exists():
        partial = path.with_name("partial-" + path.name)
        np.save(partial, make())
        os.replace(partial, path)
    return np.load(path)


def train(
    start: Path, out: Path, corpus: denoiser.Corpus, settings: denoiser.DenoiserSettings, card: dict[str, Any]
) -> None:
    """Train U-Net and text encoder of the pipeline folder ``start`` and write the averaged weights to ``out``."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from transformers import BertModel, BertTokenizer

    if out != start:
        shutil.copytree(start, out, dirs_exist_ok=True)
    index = json.loads((start / "model_index.json").read_text())  # what opens a U-Net that sees an image
    index["_class_name"] = "StableDiffusionInstructPix2PixPipeline"
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    unet = UNet2DConditionModel.from_pretrained(start / "unet", torch_dtype=torch.float32)  # shipped ones are float16
    unet = denoiser.beside(unet)
    text = BertModel.from_pretrained(start / "text_encoder", add_pooling_layer=False, dtype=torch.float32)
    tokenizer = BertTokenizer.from_pretrained(start / "tokenizer")
    # to pure noise: with the layout of the image still in the noisiest latent, half of all samples had none (Lin et al. 2024)
    scheduler = DDIMScheduler.from_pretrained(
        start / "scheduler", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    scheduler.save_pretrained(out / "scheduler")
    facts = json.loads((start / "counterscan.json").read_text())
    before = facts.get("training", {}).get("command", [])
    card |= {"training": card["training"] | {"command": [*before, card["training"]["command"]]}}
    facts |= card
    history: list[dict[str, float]] = []

    def log(row: dict[str, float]) -> None:
        history.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)

    def save(unet: Any, text: Any) -> None:
        unet.save_pretrained(out / "unet")
        text.save_pretrained(out / "text_encoder")
        facts["training"] = card["training"] | {
            "settings": repr(settings),
            "last": history[-1] if history else {},
        }
        (out / "counterscan.json").write_text(json.dumps(facts, indent=2) + "\n")

    denoiser.train(
        unet, text, tokenizer, scheduler.alphas_cumprod, corpus, settings, scale=_scale(start), log=log, save=save
    )


def ship(start: Path, out: Path) -> None:
    """Copy a pipeline folder with its weights in float16 (half the size, and read back as float32) to one of the built-in
    models, which have the weights in common and each their own words.
    """
    from counterscan.worlds.chest import FINDINGS

    copy_as_half(start, out)
    card = json.loads((out / "counterscan.json").read_text())
    words = {
        "chest-world": (WORLD_TEMPLATE, [*FINDINGS, "support devices"]),
        "chest-nih": (NIH_TEMPLATE, [*dict.fromkeys([*NIH_NAMES.values(), *DEVICES])]),
    }
    template, findings = words[out.name]
    card |= {"name": out.name, "template": template, "findings": findings, "license": "Apache-2.0"}
    card |= {"default_method": "instruct", "method_settings": SUITED[out.name], "generate_by": "edits"}
    (out / "counterscan.json").write_text(json.dumps(card, indent=2) + "\n")


def command(o: argparse.Namespace) -> str:
    """The stage and what it was asked, without the names of folders."""
    words = [o.stage, "WORK", *(["--start MODEL"] if o.start else [])]
    for name, value in vars(o).items():
        if isinstance(value, int | float) and name in USED[o.stage] and value is not False:
            words.append(f"--{name.replace('_', '-')}" + ("" if value is True else f" {value:g}"))
    return " ".join(words)


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("draw", "autoencoder", "renorm", "world", "nih", "ship"))
    parser.add_argument("work", type=Path)
    parser.add_argument("--nih", type=Path, help="folder of real radiographs")
    parser.add_argument("--nih-small", type=Path, help="a second, larger folder of real radiographs at low resolution")
    parser.add_argument("--tb", type=Path, help="a third one: the Shenzhen and Montgomery radiographs")
    parser.add_argument("--small-count", type=int, default=4000)
    parser.add_argument("--start", type=Path, help="pipeline folder to start from")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--first", type=int, default=1_000_000, help="seed of the first patient")
    parser.add_argument("--twins", type=int, default=0, help="counterfactuals a patient")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--word-steps", type=int, default=0, help="steps that teach the text encoder its words first")
    parser.add_argument("--freeze-words", action="store_true", help="leave the text encoder of --start as it is")
    parser.add_argument("--new-words", action="store_true", help="draw the text encoder of --start anew, in place")
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--plain", type=float, default=0.25, help="share of samples without an image beside them")
    parser.add_argument("--compiled", action="store_true", help="run the denoiser through torch.compile")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=32, help="channels of the autoencoder")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    stages = {
        "draw": _draw,
        "autoencoder": _autoencoder,
        "renorm": _renorm,
        "world": _world,
        "nih": _nih,
        "ship": _ship,
    }
    stages[options.stage](options)


def _ship(o: argparse.Namespace) -> None:
    ship(o.start, o.out)


def _draw(o: argparse.Namespace) -> None:
    draw(o.work, o.count, o.part, o.first, o.twins)


def _autoencoder(o: argparse.Namespace) -> None:
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(o.seed)
        vae = tiny.build(1, 4, o.width, 3)
    tiny.start_as_wavelet(vae)
    real = nih_images(o.nih, nih_table(o.nih, "train"))
    world = [np.load(path, mmap_mode="r") for path in sorted(o.work.glob("world?.npy"))]
    settings = autoencoder.AutoencoderSettings(steps=o.steps, rate=o.rate, seed=o.seed)
    log: Callable[[dict[str, float]], None] = lambda row: print(json.dumps(row), file=sys.stderr, flush=True)  # noqa: E731
    autoencoder.train(vae, [*world, real], settings, log=log, save=lambda v: v.save_pretrained(o.work / "vae"))


def _renorm(o: argparse.Namespace) -> None:
    """``--start`` with the norms of ``compact.build``, all other weights as they are.

    Its 32 groups left the finest level one channel a group: whatever is added to a channel before such a norm, as time and
    prompt were, is gone after it. In groups of four, with time and prompt scaling and shifting what comes OUT of the norm,
    both reach every level.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    shutil.copytree(o.start, o.out, dirs_exist_ok=True)
    old = UNet2DConditionModel.from_pretrained(o.start / "unet", torch_dtype=torch.float32)
    new = UNet2DConditionModel.from_config(
        {**old.config, "norm_num_groups": 8, "resnet_time_scale_shift": "scale_shift"}
    )
    weights = old.state_dict()
    for name in [name for name in weights if "time_emb_proj" in name]:
        added = weights[name].unflatten(0, (old.config.norm_num_groups, -1))
        survives = (added - added.mean(1, keepdim=True)).flatten(0, 1)
        gain = weights[name.split("time_emb_proj")[0] + "norm2.weight"].view(-1, *[1] * (survives.ndim - 1))
        weights[name] = torch.cat([torch.zeros_like(survives), gain * survives])
    new.load_state_dict(weights)
    new.save_pretrained(o.out / "unet")


def _world(o: argparse.Namespace) -> None:
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    from counterscan.backbones import compact
    from counterscan.worlds.chest import FINDINGS

    vae = AutoencoderTiny.from_pretrained(o.work / "vae")
    parts = sorted(int(path.stem[5:]) for path in o.work.glob("world?.npy"))
    known = [world_rows(o.work, part) for part in parts]
    rows, patients = [row for some, _ in known for row in some], np.concatenate([numbers for _, numbers in known])
    arrays = []
    for part in parts:
        images = o.work / f"world{part}.npy"
        arrays.append(cached(o.work / f"latent{part}.npy", partial(encode_file, vae, images)))
    latents = np.concatenate(arrays)
    scale = _scale(o.start) if o.start else float(1 / latents[:2000].astype(np.float32).std())
    words = vocabulary(rows, [*WORDS, *(w for name in NIH_NAMES.values() for w in name.split())])
    start = o.start or compact.build(
        o.out, words=words, name="chest-world", latent_channels=4, vae_blocks=(8, 8, 8), unet_blocks=(32, 64, 128, 192),
        unet_attention=(False, False, True, True), unet_heads=4, zero_snr=True,
        text_hidden=128, text_layers=2, max_length=64, template=WORLD_TEMPLATE,
        findings=(*FINDINGS, "support devices"), seed=o.seed,
    )  # fmt: skip
    if not o.start:
        _install_vae(vae, start, scale)
    elif o.new_words:
        _renew_words(start, o.seed)
    corpus = denoiser.Corpus(latents * np.float16(scale), rows, np.ones(len(rows)), patients)
    settings = _settings(o)
    card = {"training": {"data": f"{len(rows)} cases of the chest world", "command": command(o), "seed": o.seed}}
    train(start, o.out, corpus, settings, card)


def _renew_words(folder: Path, seed: int) -> None:
    """Draw text encoder and pool of a pipeline folder anew, the denoiser's other weights staying as they are."""
    from diffusers.models.embeddings import TextTimeEmbedding
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import BertConfig, BertModel

    from counterscan.backbones.compact import seeded

    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    config = BertConfig.from_pretrained(folder / "text_encoder")
    with seeded(seed):
        BertModel(config, add_pooling_layer=False).save_pretrained(folder / "text_encoder")
        width = unet.config.cross_attention_dim
        unet.add_embedding = TextTimeEmbedding(
            width, unet.time_embedding.linear_2.out_features, unet.config.addition_embed_type_num_heads
        )
    unet.save_pretrained(folder / "unet")


def _settings(o: argparse.Namespace) -> denoiser.DenoiserSettings:
    usual = denoiser.DenoiserSettings(**{name: getattr(o, name) for name in SETTINGS})
    return replace(usual, text_rate=0.0, word_weight=0.0) if o.freeze_words else usual


def _scale(folder: Path) -> float:
    """The factor that gives the latents of a pipeline folder unit variance."""
    return float(json.loads((folder / "vae" / "config.json").read_text())["scaling_factor"])


def _install_vae(vae: Any, folder: Path, scale: float) -> None:
    """Put a trained autoencoder into a pipeline folder, with the factor that gives its latents unit variance."""
    vae.register_to_config(scaling_factor=scale)
    shutil.rmtree(folder / "vae")
    vae.save_pretrained(folder / "vae")
    index = json.loads((folder / "model_index.json").read_text())
    index["vae"] = ["diffusers", type(vae).__name__]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def _nih(o: argparse.Namespace) -> None:
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    vae = AutoencoderTiny.from_pretrained(o.start / "vae")
    table = nih_table(o.nih, "train")
    images, rows = nih_images(o.nih, table), [nih_row(fact, NIH_TEMPLATE) for fact in table]
    with (o.tb / "metadata.csv").open(newline="") as file:
        other = [fact for fact in csv.DictReader(file) if fact["split"] != "test"]
    tb_rows = [Row(TB_TEMPLATE, (), (), None, {"M": "male", "F": "female"}.get(fact["sex"])) for fact in other]
    tb = nih_images(o.tb, other)
    small = [fact for fact in nih_table(o.nih_small, "train") if fact.get("in_nih_cxr_512") != "1"]
    small = [small[i] for i in np.random.default_rng(0).permutation(len(small))[: o.small_count]]
    base = [(a, r) for a, r in zip(images, rows, strict=True) if room(r)]
    base += list(zip(tb, tb_rows, strict=True))
    # seed 0, not that of the training: their latents are kept
    pasted, pasted_rows, pasted_of = paste(o.work, np.stack([a for a, _ in base]), [r for _, r in base], o.count, 0)
    parts = sorted(int(path.stem[5:]) for path in o.work.glob("world?.npy"))
    worlds = [world_rows(o.work, part) for part in parts]
    world, world_patients = [row for some, _ in worlds for row in some], np.concatenate([of for _, of in worlds])
    # some under the words of the real images, over which no effusion is laid: so it is said of them too
    world = [
        replace(row, template=NIH_TEMPLATE) if of % 8 == 0 else row
        for row, of in zip(world, world_patients, strict=True)
    ]
    sources: list[tuple[NDArray[np.float16], list[Row], float]] = [
        (cached(o.work / "latent-nih.npy", lambda: encode(vae, images)), rows, 0.12),
        (cached(o.work / "latent-tb.npy", lambda: encode(vae, tb)), tb_rows, 0.02),
        (cached(o.work / f"latent-small{o.small_count}.npy", lambda: encode(vae, nih_images(o.nih_small, small))),
         [nih_row(fact, NIH_TEMPLATE + " 128") for fact in small], 0.06),
        (cached(o.work / f"latent-pasted{o.count}.npy", lambda: encode(vae, pasted)), pasted_rows, 0.25),
        (np.concatenate([np.load(o.work / f"latent{part}.npy") for part in parts]), world, 0.55),
    ]  # fmt: skip
    count = len(rows) + len(tb_rows) + len(small)
    patients = np.concatenate([np.full(count, -1), 10**9 + pasted_of, world_patients])
    weights = np.concatenate([np.full(len(known), share / len(known)) for _, known, share in sources])
    scaled = np.concatenate([z for z, _, _ in sources]) * np.float16(vae.config.scaling_factor)
    corpus = denoiser.Corpus(scaled, [row for _, known, _ in sources for row in known], weights, patients)
    settings = _settings(o)
    card = {
        "credit": CREDIT,
        "training": {"data": f"NIH ChestX-ray14: {len(table)} train images at 256 px and {len(small)} at 128 px; {len(tb)} "
                     f"Shenzhen and Montgomery radiographs; {o.count} of these with findings of the chest world laid over "
                     f"them; {len(world)} world cases", "command": command(o), "seed": o.seed},
    }  # fmt: skip
    train(o.start, o.out, corpus, settings, card)


if __name__ == "__main__":
    main()
