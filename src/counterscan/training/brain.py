"""The commands that made the built-in ``brain-world``. Each stage reads and writes a work folder and can be run again.

    python -m counterscan.training.brain draw WORK --part 0 --first 20000000 --count 500
    python -m counterscan.training.brain train WORK --out MODEL --steps 4000 --batch 16
    python -m counterscan.training.brain ship WORK --start MODEL --out src/counterscan/models/brain-world

The recipe is that of Diff-SCM (Sanchez et al. 2022, "What is Healthy?"): a pixel-space U-Net that learns slices with and
without a lesion under their class, and under no class at all, so that guidance can lead from one to the other. Ours differs:
v-prediction in place of epsilon, a null share of 0.15 in place of 0.35, a far smaller network, a world in place of BraTS.

And there is an addition, which ``--twins 0`` leaves out: counterfactual samples. A world knows the exact healthy twin of every
slice, so a noisy slice WITH a lesion is shown under the class "no lesion", and the clean twin is the target. Plain training
never shows a class that contradicts the picture, and where the noise still lets the lesion be seen the network believes its
eyes; the class is what an edit needs it to believe. Without a class, the picture is always kept. Many of the samples with a
class show the slice without any noise, at times where a little is expected, which teaches an edit sooner and is what the
method ``noise-free`` asks (as for the chest models, :mod:`counterscan.training.denoiser`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from counterscan.training.autoencoder import cosine
from counterscan.training.denoiser import change_weight, clean_error, with_average
from counterscan.training.objective import SEEN_TIMES
from counterscan.training.shipping import copy_as_half

CLASSES = ("no lesion", "lesion", "")
HEALTHY, LESION, NOTHING = range(3)
TEMPLATE = "world brain mri"
SIZE = 64
BLOCKS = (16, 32, 64, 96)
STATE = "state.safetensors"


@dataclass(frozen=True)
class BrainSettings:
    """``steps`` of ``batch`` images; cosine decay from ``rate``; exponential moving average of the weights.

    ``null`` is the share without a class. Of the others with a lesion, ``twins`` are asked for their healthy twin; of those
    without, ``adds`` for the one with a lesion: few, as where it should be nothing tells. ``still`` of the samples with a
    class are shown without noise; the others are drawn from the lowest ``depth`` of the chain, where the picture and the
    class can disagree, but for ``anywhere`` of them.
    """

    steps: int = 4000
    batch: int = 16
    rate: float = 8e-4
    warmup: int = 50
    ema: float = 0.998
    null: float = 0.15
    twins: float = 0.7
    adds: float = 0.1
    still: float = 0.6
    depth: float = 0.6
    anywhere: float = 0.3
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """Clean images to be noised and clean targets (B, 4, H, W) in [-1, 1], classes (B,), weights (B, 1, H, W), times (B,)
    as shares of the chain, and which are shown without noise, bool (B,).
    """

    clean: Tensor
    target: Tensor
    classes: Tensor
    weight: Tensor
    share: Tensor
    still: Tensor


def draw(work: Path, part: int, first: int, count: int) -> None:
    """Draw ``count`` patients (seeds from ``first``) with at least one lesion, and their exact healthy twins.

    ``pairs<part>.npy`` is uint8 (count, 2, 64, 64, 4): without, with. ``pairs<part>.txt`` is the command.
    """
    from counterscan.worlds import brain

    pairs = np.empty((count, 2, SIZE, SIZE, len(brain.CONTRASTS)), np.uint8)
    for i in range(count):
        pairs[i] = [(case.image * 255 + 0.5).astype(np.uint8) for case in patient(first + i)]
    draft = work / f".pairs{part}.npy"
    np.save(draft, pairs)
    os.replace(draft, work / f"pairs{part}.npy")
    (work / f"pairs{part}.txt").write_text(f"draw WORK --part {part} --first {first} --count {count}")


def patient(seed: int) -> tuple[Any, Any]:
    """A patient's slice without any lesion and with at least one, at the size of the model: the world's own mixture, but that
    a patient who drew no finding is given one of them.
    """
    from counterscan.worlds import brain

    case = brain.sample(seed, size=SIZE)
    if not case.findings:
        given = str(np.random.default_rng([seed, 5]).choice(brain.FINDINGS))
        return case, brain.intervene(case, {given: True})
    return brain.intervene(case, dict.fromkeys(brain.FINDINGS, False)), case


def batch(pairs: NDArray[np.uint8], settings: BrainSettings, rng: np.random.Generator) -> Batch:
    """Half with, half without a lesion; each asked to stay, or to become its twin."""
    size = settings.batch
    pick, shown = rng.integers(len(pairs), size=size), rng.permutation(np.arange(size) % 2)
    change = rng.random(size) < np.where(shown == LESION, settings.twins, settings.adds if settings.twins else 0)
    nothing = rng.random(size) < settings.null
    asked = np.where(change & ~nothing, 1 - shown, shown)
    images = pairs[pick].astype(np.float32).transpose(0, 1, 4, 2, 3) / 127.5 - 1
    mirrored = rng.random(size) < 0.5  # no class has a side
    images[mirrored] = images[mirrored, ..., ::-1]
    rows = np.arange(size)
    share = (rng.permutation(size) + rng.random(size)) / size  # stratified: every batch covers the chain
    low = rng.random(size) >= settings.anywhere
    still = ~nothing & (rng.random(size) < settings.still)
    times = np.where(
        still, SEEN_TIMES[0] + (SEEN_TIMES[1] - SEEN_TIMES[0]) * share, np.where(low, settings.depth * share, share)
    )
    if not settings.twins:
        times, still = share, np.zeros(size, bool)
    weight = [change_weight(pair.astype(np.float16)) for pair in images]
    return Batch(
        torch.from_numpy(images[rows, shown]),
        torch.from_numpy(images[rows, asked]),
        torch.from_numpy(np.where(nothing, NOTHING, asked)),
        torch.stack(weight) if settings.twins else torch.ones(size, 1, *images.shape[-2:]),
        torch.from_numpy(times.astype(np.float32)),
        torch.from_numpy(still),
    )


def loss(unet: Callable[..., Any], made: Batch, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """The error of the clean image in units of the noise, weighed as that of the chest models (``denoiser.loss``)."""
    t = (made.share * len(alphas_cumprod)).long().clamp(max=len(alphas_cumprod) - 1)
    s, n = (a[t].sqrt().view(-1, 1, 1, 1) for a in (alphas_cumprod, 1 - alphas_cumprod))
    noisy = s * made.clean + n * noise * ~made.still.view(-1, 1, 1, 1)
    v = unet(noisy, t, class_labels=made.classes, return_dict=False)[0]
    stays = (made.clean == made.target).flatten(1).all(1)
    return clean_error(s * noisy - n * v, made.target, stays, n, made.weight)


def train(
    unet: nn.Module,
    alphas_cumprod: Tensor,
    pairs: NDArray[np.uint8],
    settings: BrainSettings,
    state: Path,
    *,
    log: Callable[[dict[str, float]], None],
    save: Callable[[nn.Module], None],
    every: float = 240,
) -> None:
    """Minimise :func:`loss`; ``save(unet)`` receives the averaged weights, every so many seconds and at the end.

    Every step draws from its own random stream and ``state`` keeps all that changes, so a stopped run that is started again
    gives what it would have given.
    """
    names = [name for name, _ in unet.named_parameters()]
    average = {name: p.detach().clone() for name, p in unet.named_parameters()}
    optimiser = torch.optim.AdamW(unet.parameters(), lr=settings.rate, weight_decay=1e-2, betas=(0.9, 0.98))
    first = _restore(state, unet, average, optimiser) if state.exists() else 0
    unet.train()
    running, saved, started = 0.0, time.monotonic(), time.process_time()
    for step in range(first, settings.steps):
        rng = np.random.default_rng([settings.seed, step])
        optimiser.param_groups[0]["lr"] = settings.rate * cosine(step, settings.steps, settings.warmup)
        made = batch(pairs, settings, rng)
        noise = torch.from_numpy(rng.standard_normal(made.clean.shape, dtype=np.float32))
        value = loss(unet, made, noise, alphas_cumprod)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        decay = min(settings.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_([average[n] for n in names], [p.detach() for p in unet.parameters()], 1 - decay)
        running = 0.98 * running + 0.02 * value.item() if running else value.item()
        if (step + 1) % 25 == 0:
            pace = (time.process_time() - started) / (step + 1 - first)
            log({"step": step + 1, "loss": running, "cpu_seconds_per_step": pace})
        if time.monotonic() - saved > every or step + 1 == settings.steps:
            _keep(state, unet, average, optimiser, step + 1)
            with_average(unet, average, lambda: save(unet))
            saved = time.monotonic()


def _keep(state: Path, unet: nn.Module, average: dict[str, Tensor], optimiser: Any, step: int) -> None:
    from safetensors.torch import save_file

    tensors = {"step": torch.tensor(step)}
    for name, p in unet.named_parameters():
        moments = optimiser.state[p]
        parts = {"weight": p, "average": average[name], "first": moments["exp_avg"], "second": moments["exp_avg_sq"]}
        tensors |= {f"{kind}.{name}": value.detach().contiguous() for kind, value in parts.items()}
    draft = state.with_name(f".{state.name}")
    save_file(tensors, draft)
    os.replace(draft, state)


def _restore(state: Path, unet: nn.Module, average: dict[str, Tensor], optimiser: Any) -> int:
    """Put back what :func:`_keep` wrote; returns the steps already done."""
    from safetensors.torch import load_file

    tensors = load_file(state)
    step = int(tensors["step"])
    with torch.no_grad():
        for name, p in unet.named_parameters():
            p.copy_(tensors[f"weight.{name}"])
            average[name].copy_(tensors[f"average.{name}"])
            moments = {"exp_avg": tensors[f"first.{name}"], "exp_avg_sq": tensors[f"second.{name}"]}
            optimiser.state[p] = {"step": torch.tensor(float(step)), **moments}
    return step


def ship(work: Path, start: Path, out: Path, more: dict[str, Any]) -> None:
    """Copy a pipeline folder with its weights in float16; its card tells every command, and what ``more`` tells."""
    copy_as_half(start, out)
    card = json.loads((out / "counterscan.json").read_text())
    told = card["training"]
    drawn = [path.read_text() for path in sorted(work.glob("pairs*.txt"))]
    told["command"] = [*drawn, *_ended(told["command"], start / STATE)]
    if more.get("note"):
        told["note"] = more["note"]
    card |= {"license": "Apache-2.0"} | {key: value for key, value in more.items() if key != "note"}
    (out / "counterscan.json").write_text(json.dumps(card, indent=2) + "\n")


def _draw(o: argparse.Namespace) -> None:
    draw(o.work, o.part, o.first, o.count)


def _train(o: argparse.Namespace) -> None:
    from diffusers.models.unets.unet_2d import UNet2DModel

    from counterscan.backbones import compact_pixel
    from counterscan.backbones.components import read_json
    from counterscan.diffusion import alphas_cumprod

    files = sorted(o.work.glob("pairs*.npy"), key=lambda path: int(path.stem[5:]))
    pairs = np.concatenate([np.load(path) for path in files])
    if not (o.out / "model_index.json").exists():
        if o.start:
            shutil.copytree(o.start, o.out, ignore=shutil.ignore_patterns("*state.safetensors"))
        else:
            compact_pixel.build(
                o.out, classes=CLASSES, name="brain-world", resolution=SIZE, blocks=o.blocks, layers=o.layers,
                attention=[False] * (len(o.blocks) - 1) + [True], prediction_type="v_prediction", template=TEMPLATE,
                findings=["lesion"], seed=o.seed,
            )  # fmt: skip
    unet = UNet2DModel.from_pretrained(o.out / "unet")  # channels last was 1.7 times slower on one core
    config = read_json(o.out / "scheduler" / "scheduler_config.json")
    alphas = alphas_cumprod(
        config["num_train_timesteps"], config["beta_schedule"], config["beta_start"], config["beta_end"]
    )
    settings = BrainSettings(steps=o.steps, batch=o.batch, rate=o.rate, twins=o.twins, seed=o.seed)
    card = json.loads((o.out / "counterscan.json").read_text())
    earlier = o.start if o.start and not (o.out / STATE).exists() else o.out
    commands = card["training"].get("command", [])
    if commands[-1:] != [command(o)]:
        commands = [*_ended(commands, earlier / STATE), command(o)]
    history: list[dict[str, float]] = []

    def log(row: dict[str, float]) -> None:
        history.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)

    def save(averaged: nn.Module) -> None:
        averaged.save_pretrained(o.out / "unet")  # type: ignore[operator]
        card["training"] = {
            "data": f"{len(pairs)} patients of the brain world at {SIZE} px, each with its exact healthy twin",
            "command": commands,
            "seed": o.seed,
            "settings": repr(settings),
            "last": history[-1] if history else {},
        }
        (o.out / "counterscan.json").write_text(json.dumps(card, indent=2) + "\n")

    train(unet, alphas.float(), pairs, settings, o.out / STATE, log=log, save=save, every=o.every)


def _ended(commands: list[str], state: Path) -> list[str]:
    """The commands that made a model, the last with where it stopped, if it did not come to its end."""
    if not commands or not state.exists():
        return commands
    from safetensors.torch import load_file

    step = int(load_file(state)["step"])
    return (
        commands if f"--steps {step} " in commands[-1] else [*commands[:-1], f"{commands[-1]} (stopped at step {step})"]
    )


def command(o: argparse.Namespace) -> str:
    """What was asked of ``train``, without the names of folders."""
    words = [
        "train WORK",
        *(["--start MODEL"] if o.start else ["--blocks", *map(str, o.blocks), f"--layers {o.layers}"]),
    ]
    return " ".join([*words, *(f"--{k} {getattr(o, k):g}" for k in ("steps", "batch", "rate", "twins", "seed"))])


def _ship(o: argparse.Namespace) -> None:
    scores = json.loads(o.scores.read_text())["summary"] if o.scores else {}
    chosen = {"default_method": o.method, "method_settings": {o.method: json.loads(o.settings)}}
    ship(o.work, o.start, o.out, {**chosen, "scores": scores, "note": o.note})


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("draw", "train", "ship"))
    parser.add_argument("work", type=Path)
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--first", type=int, default=20_000_000, help="seed of the first patient")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--start", type=Path, help="pipeline folder to start from")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--blocks", type=int, nargs="+", default=BLOCKS, help="channels of the levels")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument(
        "--twins", type=float, default=0.7, help="share of counterfactual samples; 0 is the paper's recipe"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=240, help="seconds between checkpoints")
    parser.add_argument("--method", default="implicit-guidance", help="the card's default method")
    parser.add_argument("--settings", default="{}", help="its settings, as JSON")
    parser.add_argument("--note", default="", help="what else the card says of the training")
    parser.add_argument("--scores", type=Path, help="benchmarks/results/brain.json")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    {"draw": _draw, "train": _train, "ship": _ship}[options.stage](options)


if __name__ == "__main__":
    main()
