"""The commands that made the built-in chest models. Each stage reads and writes a work folder and can be run again.

    python -m counterscan.training.chest draw WORK --part 0 --first 1000000 --count 2100 --twins 3
    python -m counterscan.training.chest draw WORK --part 1 --first 2000000 --count 2100 --twins 3
    python -m counterscan.training.chest draw WORK --part 2 --first 1002100 --count 3400
    python -m counterscan.training.chest draw WORK --part 3 --first 2002100 --count 3400
    python -m counterscan.training.chest autoencoder WORK --nih NIH --steps 900
    python -m counterscan.training.chest world WORK --steps 7000 --batch 16 --out MODEL
    python -m counterscan.training.chest nih WORK --nih NIH --start MODEL --steps 900 --out MODEL2
    python -m counterscan.training.chest ship WORK --start MODEL --out src/counterscan/models/NAME

``NIH`` is a folder with ``images/`` and ``metadata.csv`` (file, view, sex, split, one column a finding).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from counterscan.training import autoencoder, denoiser
from counterscan.training.captions import DEVICES, Row, vocabulary

WORLD_TEMPLATE, NIH_TEMPLATE, TB_TEMPLATE = "world chest radiograph", "nih chest radiograph", "tb chest radiograph"
Fact = tuple[str, str | None, str | None, str | None]
NIH_NAMES = {
    "Effusion": "pleural effusion",
    "Edema": "pulmonary edema",
    "Nodule": "lung nodule",
    "Pleural_Thickening": "pleural thickening",
    "Support_Devices": "support devices",
} | {
    name: name.lower()
    for name in (
        "Atelectasis",
        "Cardiomegaly",
        "Consolidation",
        "Emphysema",
        "Fibrosis",
        "Hernia",
        "Infiltration",
        "Mass",
        "Pneumonia",
        "Pneumothorax",
    )
}
PASTED = (*DEVICES, *DEVICES, "pleural effusion", "consolidation", "lung nodule", "atelectasis")
WORDS: tuple[str, ...] = (
    "left",
    "right",
    "upper",
    "middle",
    "lower",
    "small",
    "moderate",
    "large",
    "mild",
    "severe",
    "chest",
    "radiograph",
)
WORDS += ("world", "nih", "montgomery", "shenzhen", "tb", "tuberculosis", "pa", "ap", "male", "female", "128")


def draw(work: Path, count: int, part: int, first: int, twins: int, size: int = 256) -> None:
    """Draw ``count`` patients of the world (seeds from ``first``), each with exact counterfactuals, into ``world<part>``.

    A twin differs from the first image of its patient by one finding: half of the twins lose one, half gain one.
    """
    from counterscan.worlds import chest

    images = np.empty((count * (1 + twins), size, size), np.uint8)
    rows: list[dict[str, Any]] = []
    for seed in range(first, first + count):
        rng = np.random.default_rng([seed, 4])
        case = chest.sample(seed, size=size)
        gained = [str(f) for f in rng.permutation([f for f in chest.FINDINGS if f not in case.findings])]
        lost = [str(f) for f in rng.permutation(list(case.findings))]
        order = [*lost[: int(rng.integers(1, 3))], *gained][:twins]
        for member in (case, *(chest.intervene(case, {name: name not in case.findings}) for name in order)):
            images[len(rows)] = (member.image * 255 + 0.5).astype(np.uint8)
            found = [(n, p.side, p.place, chest.severity_word(n, p.severity)) for n, p in member.findings.items()]
            rows.append({"patient": seed, "view": case.view, "sex": case.sex, "findings": found})
    np.save(work / f"world{part}.npy", images)
    (work / f"world{part}.json").write_text(json.dumps(rows))


def world_rows(work: Path, part: int) -> tuple[list[Row], NDArray[np.int64]]:
    """Everything is known of a world case: what is not present is absent. Also the patients' numbers."""
    from counterscan.worlds.chest import FINDINGS

    rows: list[Row] = []
    facts = json.loads((work / f"world{part}.json").read_text())
    for fact in facts:
        present = tuple((str(n), s, p, g) for n, s, p, g in fact["findings"])
        names = {n for n, *_ in present}
        rows.append(
            Row(WORLD_TEMPLATE, present, tuple(f for f in FINDINGS if f not in names), fact["view"], fact["sex"])
        )
    patients = np.array([fact["patient"] for fact in facts])
    return rows, np.where(np.isin(patients, patients[1:][np.diff(patients) == 0]), patients, -1)


def nih_table(folder: Path, split: str) -> list[dict[str, str]]:
    """The metadata rows of one split (``"train"`` also takes ``"val"``)."""
    with (folder / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if (row["split"] == "test") == (split == "test")]


def nih_row(fact: dict[str, str], template: str) -> Row:
    """A label of 1 is present, 0 absent, -1 or nothing unknown and never mentioned."""
    value = {name: fact.get(column, "") for column, name in NIH_NAMES.items()}
    present = tuple((name, None, None, None) for name, v in value.items() if v in ("1", "1.0"))
    absent = [name for name, v in value.items() if v in ("0", "0.0")]
    if "support devices" in absent:  # then none of them is there, and "no support devices" follows from that
        absent = [name for name in absent if name != "support devices"] + list(DEVICES)
    return Row(
        template,
        present,
        tuple(absent),
        fact.get("view") or None,
        {"M": "male", "F": "female"}.get(fact.get("sex", "")),
    )


def paste(
    work: Path, images: NDArray[np.uint8], rows: Sequence[Row], count: int, seed: int
) -> tuple[NDArray[np.uint8], list[Row]]:
    """Real images with findings of the world laid over them: ``count`` pairs (with, without), one after the other.

    What a finding of :data:`PASTED` changes in a world case, its exact counterfactual difference, is added to a real
    radiograph. Nobody would take the result for a real finding's anatomy everywhere; but the image WITHOUT it is a
    real radiograph, and that is the target that removal learns.
    """
    rng, library = np.random.default_rng(seed), _differences(work)
    out, told = np.empty((2 * count, *images.shape[1:]), np.uint8), []
    for k in range(count):
        i = int(rng.integers(len(images)))
        x, row = images[i].astype(np.float32), rows[i]
        names = [name for name in PASTED if all(name != n for n, *_ in row.present)]
        chosen = [str(n) for n in rng.choice(names, int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15])), replace=False)]
        for name in chosen:
            with_, without, fact = library[name][int(rng.integers(len(library[name])))]
            change = np.load(work / f"world{with_[0]}.npy", mmap_mode="r")
            delta = change[with_[1]].astype(np.float32) - change[without[1]]
            x = x + rng.uniform(0.75, 1.15) * np.where(np.abs(delta) > 2, delta, 0)
            row = replace(row, present=(*row.present, fact), absent=tuple(n for n in row.absent if n != name))
        out[2 * k], out[2 * k + 1] = np.clip(x + 0.5, 0, 255).astype(np.uint8), images[i]
        told += [row, rows[i]]
    return out, told


def _differences(work: Path) -> dict[str, list[tuple[tuple[int, int], tuple[int, int], Fact]]]:
    """Finding -> (part, row) of an image with it, of its twin without it, and the finding's attributes."""
    out: dict[str, list[tuple[tuple[int, int], tuple[int, int], Fact]]] = {name: [] for name in PASTED}
    for path in sorted(work.glob("world?.json")):
        part = int(path.stem[5:])
        rows, patients = world_rows(work, part)
        first = 0
        for i in range(1, len(rows)):
            if patients[i] < 0 or patients[i] != patients[first]:
                first = i
                continue
            changed = set(rows[i].present) ^ set(rows[first].present)
            if len(changed) == 1 and (fact := changed.pop())[0] in out:
                pair = (part, i), (part, first)
                out[fact[0]].append((*(pair if fact in rows[i].present else pair[::-1]), fact))
    return out


def nih_images(folder: Path, table: Sequence[dict[str, str]], size: int = 256) -> NDArray[np.uint8]:
    """Grey images (N, size, size)."""
    from PIL import Image

    out = np.empty((len(table), size, size), np.uint8)
    for i, row in enumerate(table):
        name = row["file"] if "/" in row["file"] else f"images/{row['file']}"
        out[i] = np.asarray(Image.open(folder / name).convert("L").resize((size, size), Image.Resampling.LANCZOS))
    return out


@torch.no_grad()
def encode(vae: Any, images: NDArray[np.uint8], batch: int = 2) -> NDArray[np.float16]:
    """Latents (N, C, h, w), not yet scaled."""
    vae.eval().to(memory_format=torch.channels_last)
    parts = []
    for i in range(0, len(images), batch):
        x = torch.from_numpy(images[i : i + batch, None].astype(np.float32) / 127.5 - 1)
        parts.append(vae.encode(x.contiguous(memory_format=torch.channels_last)).latents.half().numpy())
    return np.concatenate(parts)


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
    unet = UNet2DConditionModel.from_pretrained(start / "unet")
    text = BertModel.from_pretrained(start / "text_encoder", add_pooling_layer=False)
    tokenizer = BertTokenizer.from_pretrained(start / "tokenizer")
    alphas = DDIMScheduler.from_pretrained(start / "scheduler").alphas_cumprod
    facts = json.loads((start / "counterscan.json").read_text()) | card
    history: list[dict[str, float]] = []

    def log(row: dict[str, float]) -> None:
        history.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)

    def save(unet: Any, text: Any) -> None:
        unet.save_pretrained(out / "unet")
        text.save_pretrained(out / "text_encoder")
        facts["training"] = card.get("training", {}) | {
            "settings": repr(settings),
            "last": history[-1] if history else {},
        }
        (out / "counterscan.json").write_text(json.dumps(facts, indent=2) + "\n")

    denoiser.train(unet, text, tokenizer, alphas, corpus, settings, log=log, save=save)


def ship(start: Path, out: Path) -> None:
    """Copy a pipeline folder with its weights in float16: half the size, and read back as float32."""
    from safetensors.torch import load_file, save_file

    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(start, out)
    for path in out.rglob("*.safetensors"):
        tensors = {name: value.half().contiguous() for name, value in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
    for path in out.rglob("config.json"):  # where it was trained is nobody's business
        config = {k: v for k, v in json.loads(path.read_text()).items() if k != "_name_or_path"}
        path.write_text(json.dumps(config, indent=2) + "\n")
    card = json.loads((out / "counterscan.json").read_text())
    (out / "counterscan.json").write_text(json.dumps(card | {"license": "Apache-2.0"}, indent=2) + "\n")


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("draw", "autoencoder", "world", "nih", "ship"))
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
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=32, help="channels of the autoencoder")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    stages = {"draw": _draw, "autoencoder": _autoencoder, "world": _world, "nih": _nih, "ship": _ship}
    stages[options.stage](options)


def _ship(o: argparse.Namespace) -> None:
    ship(o.start, o.out)


def _draw(o: argparse.Namespace) -> None:
    draw(o.work, o.count, o.part, o.first, o.twins)


def _autoencoder(o: argparse.Namespace) -> None:
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(o.seed)
        vae = autoencoder.build(4, o.width)
    autoencoder.start_as_wavelet(vae)
    real = nih_images(o.nih, nih_table(o.nih, "train"))
    world = [np.load(path, mmap_mode="r") for path in sorted(o.work.glob("world?.npy"))]
    settings = autoencoder.AutoencoderSettings(steps=o.steps, rate=o.rate, seed=o.seed)
    log: Callable[[dict[str, float]], None] = lambda row: print(json.dumps(row), file=sys.stderr, flush=True)  # noqa: E731
    autoencoder.train(vae, [*world, real], settings, log=log, save=lambda v: v.save_pretrained(o.work / "vae"))


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
    scale = float(1 / latents[:2000].astype(np.float32).std())
    words = vocabulary(rows, [*WORDS, *(w for name in NIH_NAMES.values() for w in name.split())])
    start = o.start or compact.build(
        o.out, words=words, name="chest-world", latent_channels=4, vae_blocks=(8, 8, 8), unet_blocks=(32, 64, 128, 192),
        unet_attention=(False, False, True, True), unet_heads=4,
        text_hidden=128, text_layers=2, max_length=64, template=WORLD_TEMPLATE,
        findings=(*FINDINGS, "support devices"), seed=o.seed,
    )  # fmt: skip
    if not o.start:
        _install_vae(vae, start, scale)
    corpus = denoiser.Corpus(latents * np.float16(scale), rows, np.ones(len(rows)), patients)
    settings = denoiser.DenoiserSettings(steps=o.steps, batch=o.batch, rate=o.rate, seed=o.seed)
    card = {
        "training": {"data": f"{len(rows)} cases of the chest world", "command": " ".join(sys.argv[1:]), "seed": o.seed}
    }
    train(start, o.out, corpus, settings, card)


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
    small = [small[i] for i in np.random.default_rng(o.seed).permutation(len(small))[: o.small_count]]
    base = [(a, r) for a, r in zip(images, rows, strict=True) if not {n for n, *_ in r.present} & set(PASTED)]
    base += list(zip(tb, tb_rows, strict=True))
    pasted, pasted_rows = paste(o.work, np.stack([a for a, _ in base]), [r for _, r in base], o.count, o.seed)
    world, world_patients = world_rows(o.work, 0)
    sources: list[tuple[NDArray[np.float16], list[Row], float]] = [
        (cached(o.work / "latent-nih.npy", lambda: encode(vae, images)), rows, 0.35),
        (cached(o.work / "latent-tb.npy", lambda: encode(vae, tb)), tb_rows, 0.05),
        (cached(o.work / "latent-small.npy", lambda: encode(vae, nih_images(o.nih_small, small))),
         [nih_row(fact, NIH_TEMPLATE + " 128") for fact in small], 0.2),
        (cached(o.work / "latent-pasted.npy", lambda: encode(vae, pasted)), pasted_rows, 0.3),
        (np.load(o.work / "latent0.npy"), world, 0.1),  # so that sides and single devices are not forgotten
    ]  # fmt: skip
    count = len(rows) + len(tb_rows) + len(small)
    patients = np.concatenate([np.full(count, -1), 10**9 + np.arange(len(pasted_rows)) // 2, world_patients])
    weights = np.concatenate([np.full(len(known), share / len(known)) for _, known, share in sources])
    scaled = np.concatenate([z for z, _, _ in sources]) * np.float16(vae.config.scaling_factor)
    corpus = denoiser.Corpus(scaled, [row for _, known, _ in sources for row in known], weights, patients)
    settings = denoiser.DenoiserSettings(steps=o.steps, batch=o.batch, rate=o.rate, seed=o.seed)
    names = [*dict.fromkeys([*NIH_NAMES.values(), *DEVICES])]
    card = {
        "name": "chest-nih", "template": NIH_TEMPLATE, "findings": names,
        "training": {"data": f"NIH ChestX-ray14: {len(table)} train images at 256 px and {len(small)} at 128 px; {len(tb)} "
                     f"Shenzhen and Montgomery radiographs; {o.count} pairs of these with findings of the chest world laid "
                     f"over them; {len(world)} world cases", "command": " ".join(sys.argv[1:]), "seed": o.seed},
    }  # fmt: skip
    train(o.start, o.out, corpus, settings, card)


if __name__ == "__main__":
    main()
