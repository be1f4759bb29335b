"""Images a second in training: Counterscan's trainer beside the loop of diffusers' text-to-image example, in one run.

    python benchmarks/train_speed.py --model chest-world --batch 4 --steps 6 --rounds 3 -o benchmarks/results/train_speed

Same model, data, batch, precision and optimizer; only the U-Net learns. The peer's loop is written from diffusers' documentation
(examples/text_to_image): a DataLoader reads, resizes and normalises images and tokenizes captions, and every step runs
the autoencoder, the text encoder, the U-Net, the mean squared error, clipping and AdamW. The sides take turns, so that a busy
machine slows all of them; ``uncached`` is Counterscan with ``data.cache=false``. Prints one JSON object, and writes it with
a table; ``rates`` are images a second in each round, ``ratio`` the medians' over the peer's, ``load_average_before`` what
the machine did besides.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured import keep, machine
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import counterscan
from counterscan.data.manifest import read, resolve
from counterscan.training import loader
from counterscan.training.config import Config
from counterscan.training.session import Session
from counterscan.worlds.dataset import write_world


class Pictures(Dataset[dict[str, Any]]):
    """What the example's ``preprocess_train`` makes of a row."""

    def __init__(self, manifest: Path, backbone: Any) -> None:
        self.rows = [(resolve(manifest, record.path), record.caption) for record in read(manifest)]
        self.side, self.channels, self.tokenizer = backbone.resolution, backbone.channels, backbone.tokenizer
        self.length = backbone.text_encoder.config.max_position_embeddings

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        path, caption = self.rows[i]
        image = Image.open(path).convert("L" if self.channels == 1 else "RGB")
        image = image.resize((self.side, self.side), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image, np.float32) / 127.5 - 1).reshape(self.side, self.side, self.channels)
        ids = self.tokenizer(
            caption, padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        ).input_ids
        return {"pixel_values": pixels.permute(2, 0, 1), "input_ids": ids[0]}


def peer(folder: Path, manifest: Path, batch: int, workers: int, rate: float) -> Iterator[float]:
    """One step of the example's loop for each ``next``; gives its loss."""
    from diffusers import DDPMScheduler

    backbone: Any = counterscan.load(folder)
    scheduler = DDPMScheduler.from_config(backbone.scheduler_config)
    unet = backbone.unet.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=rate, weight_decay=1e-2)
    generator = torch.Generator().manual_seed(0)
    data = DataLoader(
        Pictures(manifest, backbone), batch, shuffle=True, num_workers=workers, drop_last=True, generator=generator,
        persistent_workers=workers > 0,
    )  # fmt: skip
    for rows in (rows for _ in cycle([None]) for rows in data):
        with torch.no_grad():
            encoded = backbone.vae.encode(rows["pixel_values"])
            latents = encoded.latent_dist.sample(generator) if hasattr(encoded, "latent_dist") else encoded.latents
            latents = latents * backbone.vae.config.scaling_factor
            states = backbone.text_encoder(rows["input_ids"], return_dict=False)[0]
        noise = torch.randn(latents.shape, generator=generator)
        times = torch.randint(0, scheduler.config.num_train_timesteps, (batch,), generator=generator)
        noisy = scheduler.add_noise(latents, noise, times)
        velocity = scheduler.config.prediction_type == "v_prediction"
        target = scheduler.get_velocity(latents, noise, times) if velocity else noise
        # a U-Net that sees an image beside the latent is shown none
        nothing = noisy.new_zeros(batch, unet.config.in_channels - noisy.shape[1], *noisy.shape[2:])
        output = unet(torch.cat([noisy, nothing], 1), times, states, return_dict=False)[0]
        loss = F.mse_loss(output.float(), target.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield float(loss.detach())


def ours(config: Config) -> Iterator[float]:
    """One step of the trainer for each ``next``; gives its loss. What is kept is computed before the first."""
    session = Session(config)
    for number, batches in enumerate(loader.steps(session.source(), 0, config.steps)):
        yield session.step(number, batches)[0]


def timed(side: Iterator[float], steps: int, batch: int) -> float:
    """Images a second over so many steps."""
    began = time.perf_counter()
    for _ in range(steps):
        next(side)
    return steps * batch / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="chest-world", help="a built-in name or a folder of Stable Diffusion")
    parser.add_argument("--manifest", type=Path, help="images with captions; the chest world otherwise")
    parser.add_argument("-n", type=int, default=32, help="images of the chest world")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6, help="steps of each side in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results/train_speed"))
    options = parser.parse_args()
    now = machine()
    with tempfile.TemporaryDirectory() as folder:
        found = compare(options, Path(folder)) | now
    print(json.dumps(found, indent=2))
    keep(options.o, found, markdown(found))


def markdown(found: dict[str, Any]) -> str:
    """The rates of all sides as a page."""
    rows = (
        f"| {name} | {statistics.median(rates):.3f} | {min(rates):.3f} to {max(rates):.3f} | {found['ratio'].get(name, 1)} "
        f"| {found['seconds_before_the_first_round'][name]} |"
        for name, rates in found["rates"].items()
    )
    return f"""# Training beside diffusers' text-to-image example

`{found["model"]}` at {found["resolution"]} px, batch {found["batch"]}, {found["threads"]} threads of {found["cores"]} cores
with a load average of {found["load_average_before"]} before; medians of {len(found["rates"]["peer"])} rounds of
{found["steps"]} steps, in turns. `peer` is the example's loop, `uncached` the trainer without kept latents.

| side | images/s | from, to | times the peer | s before the first round |
| --- | --- | --- | --- | --- |
""" + "\n".join([*rows, ""])


def compare(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The rates of all sides, in turn."""
    backbone: Any = counterscan.load(options.model)
    folder = backbone.folder
    manifest = options.manifest or write_world("chest", work / "world", options.n, seed=0, size=backbone.resolution)
    total = options.steps * options.rounds + 1

    def config(name: str, cache: bool | None) -> Config:
        data = {"manifest": manifest, "split": None, "cache": cache, "workers": options.workers}
        data["captions"] = {"source": "caption", "drop": 0.0}
        values = {
            "model": options.model,
            "output": work / name,
            "data": data,
            "steps": total,
            "optimizer": {"rate": 1e-5},
        }
        return Config.model_validate(values | {"batch": options.batch, "micro_batch": options.batch})

    sides: dict[str, Callable[[], Iterator[float]]] = {
        "peer": lambda: peer(folder, manifest, options.batch, options.workers, 1e-5),
        "uncached": lambda: ours(config("uncached", False)),
        "cached": lambda: ours(config("cached", None)),
    }
    running = {name: side() for name, side in sides.items()}
    prepared = {}
    for name, side in running.items():  # the first step opens the model, starts workers and fills what is kept
        began = time.perf_counter()
        next(side)
        prepared[name] = round(time.perf_counter() - began, 2)
    rates: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(options.rounds):
        for name, side in running.items():
            rates[name].append(round(timed(side, options.steps, options.batch), 3))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratio = {name: round(value / medians["peer"], 3) for name, value in medians.items() if name != "peer"}
    setting = {
        "model": options.model,
        "resolution": backbone.resolution,
        "batch": options.batch,
        "steps": options.steps,
    }
    setting |= {"threads": torch.get_num_threads()}
    return setting | {"rates": rates, "ratio": ratio, "seconds_before_the_first_round": prepared}


if __name__ == "__main__":
    main()
