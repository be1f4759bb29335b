"""What a run holds while it works: model, data, optimizer, checkpoints, and one step of them all."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from counterscan.backbones.base import sees_image
from counterscan.backbones.latent import CACHED_PROMPTS
from counterscan.data.embeddings import Embeddings
from counterscan.errors import WordsError, WorkError
from counterscan.training import loader
from counterscan.training.cache import Latents
from counterscan.training.config import Config
from counterscan.training.corpus import Corpus, fitting, open_corpus, wordings
from counterscan.training.finish import card_of
from counterscan.training.learner import Batch, Denoiser, build
from counterscan.training.objective import generator_of
from counterscan.training.optimization import optimizer_of, schedule
from counterscan.training.parts import Average, choose, encoders, learned, open_model
from counterscan.training.sharding import gathered, need_shardable, shard, whole
from counterscan.training.start import start_folder
from counterscan.training.state import Run, pack, unpack
from counterscan.training.validation import Judge, check, trials
from counterscan.types import Condition

TEXT_BYTES = 1 << 30  # of prompts' embeddings are kept without being asked for


@dataclass(frozen=True)
class Progress:
    """How far a run is. ``doing`` is "prompts", "latents" or "training".

    The rest is of training alone: mean loss, images/s, seconds left.
    """

    doing: str
    done: int
    total: int
    loss: float = math.nan
    images_per_second: float = math.nan
    seconds_left: float = math.nan

    def __str__(self) -> str:
        if self.doing != "training":
            return f"{self.doing} {self.done}/{self.total}"
        pace = f"{self.images_per_second:.2f} images/s  {span(self.seconds_left)} left"
        return f"step {self.done}/{self.total}  loss {self.loss:.4f}  {pace}"


def span(seconds: float) -> str:
    """Seconds for people.

    >>> span(90), span(7200)
    ('2 min', '2.0 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


Report = Callable[[Progress], None]


class Session:
    """Everything a run holds while it works. Made from a config alone; the same config makes the same session."""

    def __init__(self, config: Config, *, report: Report | None = None) -> None:
        self.config, self.report = config, report or (lambda _: None)
        self.accelerator = accelerator_of(config)
        if config.batch < self.world:
            raise WordsError(f"batch: {config.batch} images cannot be shared by {self.world} processes")
        if config.shard:
            need_shardable(config, self.world)
        self.run = Run(config.output)
        self.corpus: Corpus = open_corpus(config.data)
        self.trials, asked = trials(config), config.validation
        self.judge = Judge(asked.judge, asked.findings) if asked.judge and asked.findings else None
        if "token" in config.train:
            need_word(self.corpus, config)
        # what an attempt before the first checkpoint left may be of other settings
        begins = self.accelerator.is_main_process and not self.run.checkpoints
        with self.accelerator.main_process_first():
            self.start = start_folder(config, self.corpus, anew=begins)
        self.backbone = open_model(config, self.start, self.accelerator.device)
        self.parts = choose(self.backbone, config)
        if "vae" not in self.parts:
            self.corpus = replace(self.corpus, fit=fitting(encoders(self.backbone), self.corpus.findings))
        if self.trials:
            check(self.backbone, card_of(self.backbone, config, self.corpus, (), self.world), config)
        self.learner: nn.Module = build(self.backbone, self.parts, config)
        self.learner.train()
        if self.corpus.paired:
            self._need_pairs()
        self.sharded = config.shard and self.world > 1
        if self.sharded:
            shard(self.learner, self.parts, self.accelerator.device, narrow=config.precision == "bfloat16")
        self.parameters = learned(self.learner)
        self.optimizer = optimizer_of(self.parameters, config.optimizer)
        self.average = Average(self.parameters, config.ema) if config.ema else None
        self.prepared = self.accelerator.prepare(self.optimizer)
        self.wrapped = self.learner if self.sharded else self.accelerator.prepare(self.learner)

    @property
    def world(self) -> int:
        """Processes that share the work."""
        return int(self.accelerator.num_processes)

    def source(self) -> loader.Source:
        """What samples are made from; latents, and prompts if asked for, are computed first where they can be kept."""
        self._keep_text()
        return loader.Source(
            self.config,
            self.corpus,
            self._latents(),
            tuple(self.backbone.latent_shape),
            self.backbone.channels,
            self.backbone.resolution,
        )

    def _need_pairs(self) -> None:
        """Raises ``WordsError`` where pairs cannot be trained on."""
        if not sees_image(self.backbone):
            raise WordsError("data.before: the model sees no image; start from InstructPix2Pix, or compact.sees_image")
        if not self.keeps_latents:
            raise WordsError("data.before: pairs need kept latents; leave data.cache and what moves images out")
        if any(len(files) == self.backbone.channels > 1 for files in self.corpus.files):
            raise WordsError("data.before: images of several contrasts are not trained in pairs")

    @property
    def keeps_latents(self) -> bool:
        """Whether latents are computed once and kept: those of a frozen autoencoder, of images that do not move."""
        data = self.config.data
        possible = "vae" not in self.parts and hasattr(self.backbone, "vae") and not data.augment.moves
        if data.cache and not possible:
            raise WordsError(
                "data.cache: latents can be kept only of a frozen autoencoder, and of images that do not move"
            )
        return possible and data.cache is not False

    def _latents(self) -> Latents | None:
        data = self.config.data
        if not self.keeps_latents:
            return None
        kept = Latents(
            self.config.output / "latents", self.corpus.with_before(), self.backbone, data.augment.flip != "never"
        )
        kept.fill(
            self.accelerator.process_index,
            self.world,
            data.workers,
            lambda done, total: self.report(Progress("latents", done, total)),
        )
        self.accelerator.wait_for_everyone()
        return kept

    def _keep_text(self) -> None:
        """Let the learner look up what prompts become, in place of computing it again, where that is asked for or right."""
        config, asked = self.config, self.config.data.cache_text
        if not isinstance(self.learner, Denoiser) or {"text_encoder", "token"} & set(config.train):
            if asked:
                raise WordsError(
                    "data.cache_text: what prompts become changes where the text encoder learns; leave it out"
                )
            return
        if asked is False:
            return
        texts = wordings(self.corpus, config.data)
        if asked is None and not (
            texts and len(texts) > CACHED_PROMPTS and len(texts) * self._row_bytes() <= TEXT_BYTES
        ):
            return
        if texts is None:
            raise WordsError("data.cache_text: captions drawn from findings are without number; leave it out")
        folder = config.output / "text" / hashlib.sha256(str(config.text_encoder).encode()).hexdigest()[:16]
        with self.accelerator.main_process_first():
            self.learner.ask = kept = Embeddings(folder, self.backbone)
            kept.fill(texts, report=lambda done, total: self.report(Progress("prompts", done, total)))

    def _row_bytes(self) -> int:
        """What one prompt becomes, in bytes."""
        row: Condition = self.backbone.embed([""])
        return sum(value.nbytes for value in (row.tokens, row.pooled, row.mask) if value is not None)

    def step(self, number: int, batches: list[Batch]) -> tuple[float, float]:
        """One step of the optimizer. Returns the loss of the whole batch and the norm of the gradient.

        Raises ``WorkError`` before any weight is changed if either is not finite.
        """
        rate = self.config.optimizer.rate * schedule(self.config.optimizer, number, self.config.steps)
        for group in self.prepared.param_groups:
            group["lr"] = rate * group["share"]
        total = torch.zeros((), device=self.accelerator.device)
        for i, batch in enumerate(batches):
            last = i + 1 == len(batches)
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped), drawn(self, number, i):
                with self.accelerator.autocast() if self.sharded else nullcontext():
                    losses: Tensor = self.wrapped(batch)
                # gradients are averaged over the processes, so each has to hand in its share of the sum as a mean
                self.accelerator.backward(losses.sum() * (self.world / self.config.batch))
            total += losses.detach().sum()
        loss = float(self.accelerator.reduce(total, "sum")) / self.config.batch
        clip = self.config.optimizer.clip or math.inf
        norm = float(whole(self.accelerator.clip_grad_norm_(list(self.parameters.values()), clip)))
        if not math.isfinite(loss) or (not math.isfinite(norm) and self.config.precision != "float16"):
            what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient is {norm}"
            raise WorkError(
                f"step {number + 1}: {what}; {self.run.last_good()}; lower optimizer.rate (now {rate:g}), or set "
                "precision to float32"
            )
        self.prepared.step()
        self.prepared.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.parameters, number + 1)
        return loss, norm

    def save(self, step: int) -> None:
        """Write a checkpoint, in the main process."""
        main = self.accelerator.is_main_process
        if main or self.sharded:
            tensors, facts = pack(self.parameters, self.average, self.optimizer, keep=main)
        if main:
            scaler = self.accelerator.scaler
            self.run.save(step, tensors, facts | {"scaler": scaler.state_dict() if scaler is not None else None})
        self.accelerator.wait_for_everyone()

    @torch.no_grad()
    def gather(self) -> None:
        """Open the model anew in the main process, with the weights that were spread, to be saved."""
        spread: list[dict[str, Any]] = [self.parameters, *([self.average.values] if self.average else [])]
        main = self.accelerator.is_main_process
        weights = [gathered(some, keep=main) for some in spread]
        if not main:
            return
        self.backbone = open_model(self.config, self.start, torch.device("cpu"))  # the devices still hold their parts
        self.parts = choose(self.backbone, self.config)
        self.parameters = learned(build(self.backbone, self.parts, self.config))
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[0][name])
        if self.average:
            self.average.values = weights[1]

    def resume(self) -> int:
        """Go back to the newest checkpoint; returns its step, 0 without one."""
        found = self.run.restore()
        if found is None:
            return 0
        step, tensors, facts = found
        unpack(tensors, facts, self.parameters, self.average, self.optimizer)
        if facts.get("scaler") and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(facts["scaler"])
        return step


def accelerator_of(config: Config) -> Any:
    """The accelerator of this process. Raises ``WordsError`` for a precision or tracker that is not here, and for sharding."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    AcceleratorState._reset_state()  # it is shared by all, and keeps the precision of the run before
    names = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
    if config.precision == "float16" and not torch.cuda.is_available():
        raise WordsError("precision: float16 needs a GPU; take bfloat16, or float32")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*no supported trackers")
            accelerator = Accelerator(
                mixed_precision=names[config.precision],
                cpu=not torch.accelerator.is_available(),  # without it, processes on CPUs would not find each other
                log_with=config.tracker,
                # some families read the last layer but one of a text encoder
                kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters="text_encoder" in config.train)],
                project_dir=str(config.output) if config.tracker else None,
            )
    except (ValueError, ImportError) as error:
        text = " ".join(str(error).split())[:200]
        raise WordsError(f"precision: {config.precision} cannot be used on this machine ({text})") from error
    need_whole(str(accelerator.distributed_type.value))
    if config.tracker and not accelerator.log_with:  # accelerate passes over trackers that it does not find
        raise WordsError(f"tracker: the package {config.tracker} is not installed; install it, or leave tracker out")
    return accelerator


def need_whole(kind: str) -> None:
    """Raises ``WordsError`` where a launcher would spread the weights: a checkpoint would then hold a part of them."""
    if kind in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "TP"):
        raise WordsError(
            f"accelerate: {kind} is not how the trainer spreads weights over processes; choose MULTI_GPU "
            "(configs/accelerate/), and in the config shard: true"
        )


def need_word(corpus: Corpus, config: Config) -> None:
    """Raises ``WordsError`` where no caption holds the new word, which then would learn nothing."""
    captions = corpus.captions if config.data.captions.text is None else [config.data.captions.text]
    if not any(config.token.word in text for text in captions):
        raise WordsError(f"data.captions.text: no caption holds {config.token.word}; write it where the finding stands")


@contextmanager
def drawn(session: Session, step: int, part: int) -> Iterator[None]:
    """Inside, layers that draw numbers (dropout) draw those of this step; afterwards all is as before."""
    device = session.accelerator.device
    key = (step * session.world + session.accelerator.process_index) * 4096 + part
    seed = generator_of(session.config.seed ^ 0x5EED, key).initial_seed()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.random.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield
