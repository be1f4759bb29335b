"""What a run will do and cost, from its settings and a few measured steps. Nothing is kept."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from counterscan.training import loader
from counterscan.training.config import Config
from counterscan.training.learner import Batch
from counterscan.training.parts import readers
from counterscan.training.session import Session, span
from counterscan.training.state import KEPT
from counterscan.training.trainer import quietly_cut

MEASURED = 3  # steps, after one that is not counted


@dataclass(frozen=True)
class Plan:
    """A run before it runs, on one process.

    ``trained`` and ``frozen`` count the parameters of each component. ``memory_mb`` is the peak of the measured steps: of
    the process, or of the GPU where there is one. ``disk_mb`` is what checkpoints and the model will take.
    """

    trained: dict[str, int]
    frozen: dict[str, int]
    rows: int
    steps: int
    batch: int
    micro_batches: int
    images_seen: int
    epochs: float
    seconds_per_step: float
    latents_seconds: float
    memory_mb: float
    disk_mb: float
    device: str

    @property
    def seconds(self) -> float:
        """The whole run."""
        return self.latents_seconds + self.steps * self.seconds_per_step

    def __str__(self) -> str:
        names = dict.fromkeys([*self.trained, *self.frozen])
        lines = [f"{n:14}{self.trained.get(n, 0):>14,} trained{self.frozen.get(n, 0):>16,} frozen" for n in names]
        lines += [
            f"{self.steps:,} steps of {self.batch} images ({self.micro_batches} x micro_batch): {self.images_seen:,} images, "
            f"{self.epochs:.1f} times the {self.rows:,} rows",
            f"{span(self.seconds)} on {self.device}: {self.seconds_per_step:.2f} s a step"
            + (f", after {span(self.latents_seconds)} for the latents" if self.latents_seconds else ""),
            f"{self.memory_mb:,.0f} MB of memory, {self.disk_mb:,.0f} MB of disk",
        ]
        return "\n".join(lines)


def plan(config: Config) -> Plan:
    """Open the model and the data, run a few steps, and reckon. Raises whatever training would raise at its start."""
    with tempfile.TemporaryDirectory() as folder:
        alone = {"output": Path(folder), "batch": config.micro_batch, "tracker": None}
        untaught = config.compact and {**config.compact, "taught": 0}
        trial = config.model_copy(update=alone | {"compact": untaught})
        session = Session(trial)
        with quietly_cut(session):
            encoding, stepping = measure(session)
        parts = components(session.backbone)
        counts = {name: [sum(p.numel() for p in m.parameters() if p.requires_grad is w) for w in (True, False)]
                  for name, m in parts.items()}  # fmt: skip
        learned = sum(p.numel() for p in session.parameters.values())
        files = len(set(session.corpus.with_before().files)) * (1 + (config.data.augment.flip != "never"))
        micro = math.ceil(config.batch / config.micro_batch)
        return Plan(
            trained={name: count[0] for name, count in counts.items() if count[0]},
            frozen={name: count[1] for name, count in counts.items() if count[1]},
            rows=len(session.corpus),
            steps=config.steps,
            batch=config.batch,
            micro_batches=micro,
            images_seen=config.steps * config.batch,
            epochs=config.steps * config.batch / len(session.corpus),
            seconds_per_step=stepping * micro,
            latents_seconds=encoding * files,
            memory_mb=peak(session.accelerator.device),
            disk_mb=4e-6 * (learned * (3 + (config.ema is not None)) * KEPT + sum(map(sum, counts.values()))),
            device=str(session.accelerator.device),
        )


def measure(session: Session) -> tuple[float, float]:
    """Seconds to encode one image for the latents that are kept (0 where none are), and seconds of one micro-batch."""
    config, backbone = session.config, session.backbone
    facts = tuple(backbone.latent_shape), backbone.channels, backbone.resolution
    source = loader.Source(config, session.corpus, None, *facts)
    encoding, stepping = [], []
    for number, batches in enumerate(loader.steps(source, 0, MEASURED + 1)):
        began = time.perf_counter()
        if session.keeps_latents:
            batches = [encoded(backbone, batch) for batch in batches]
            encoding.append((time.perf_counter() - began) / config.batch)
        began = time.perf_counter()
        session.step(number, batches)
        stepping.append(time.perf_counter() - began)
    return (min(encoding[1:]) if encoding else 0.0), sorted(stepping[1:])[MEASURED // 2]


def encoded(backbone: Any, batch: Batch) -> Batch:
    """A batch with latents in place of its images."""
    return replace(batch, images=None, latents=backbone.encode(batch.images).cpu())


def components(backbone: Any) -> dict[str, nn.Module]:
    """The networks of a model, by name."""
    known = {name: value for name, value in vars(backbone).items() if isinstance(value, nn.Module)}
    return known | {name: encoder for name, (_, encoder) in readers(backbone).items()}


def peak(device: torch.device) -> float:
    """The most memory that was held so far, MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1e-6 if sys.platform == "darwin" else 1024e-6)
