"""The one trainer: any part of any family, on one process or many, resumable at any moment."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from torch import nn

from counterscan.errors import WordsError, WorkError
from counterscan.training import finish, loader, validation
from counterscan.training.config import Config
from counterscan.training.corpus import written
from counterscan.training.parts import encoders, using
from counterscan.training.session import Progress, Report, Session

LOOKED_AT = 2000  # captions


@dataclass(frozen=True)
class Result:
    """A finished run: its folder, which is a model folder; steps in all, and those done now; the last losses' mean.

    ``images_per_second`` is 0 where there was nothing left to do.
    """

    folder: Path
    steps: int
    resumed_from: int
    loss: float
    images_per_second: float


def train(config: Config, *, report: Report | None = None) -> Result:
    """Train, from the newest checkpoint in ``config.output`` if there is one, and leave a model folder there.

    Raises ``WordsError`` for settings that do not fit, ``DataError`` and ``ModelError`` for what cannot be read, and
    ``WorkError`` for a loss that is not finite and a disk that is full; the last good checkpoint then stays.
    """
    session = Session(config, report=report)
    run, main = session.run, session.accelerator.is_main_process
    if main:
        run.begin(config)
    session.accelerator.wait_for_everyone()
    with quietly_cut(session):
        try:
            return _trained(session)
        except OSError as error:
            raise WorkError(
                f"{error.filename or config.output}: {error.strerror or error}; {run.last_good()}; run the same command "
                "to go on"
            ) from error


def _trained(session: Session) -> Result:
    config, run, main = session.config, session.run, session.accelerator.is_main_process
    source = session.source()
    first = session.resume()
    if first > config.steps:
        raise WordsError(f"{config.output}: has {first} steps behind it, steps is {config.steps}; name another output")
    lines = run.cut_log(first) if main else []
    losses = [line["loss"] for line in lines][-100:]
    if config.tracker:
        session.accelerator.init_trackers("counterscan")
    pace = _loop(session, source, first, losses)
    if session.sharded:
        session.gather()
    if main:
        with using(session.average, session.parameters):
            finish.save_model(
                session.backbone, session.parts, session.start, config, session.corpus, losses, session.world
            )
    session.accelerator.wait_for_everyone()
    session.accelerator.end_training()
    mean = sum(losses) / len(losses) if losses else math.nan
    return Result(config.output, config.steps, first, mean, pace)


@contextmanager
def quietly_cut(session: Session) -> Iterator[None]:
    """One warning for all captions that are too long; inside, none with their words, which may be a patient's."""
    texts = list(islice(dict.fromkeys(written(session.corpus, session.config.data.captions)), LOOKED_AT))
    long = sum(session.corpus.fit(text) != text for text in texts)
    with warnings.catch_warnings():
        if long and session.accelerator.is_main_process:
            limit = min(most for _, most in encoders(session.backbone))
            warnings.warn(
                f"{long} of {len(texts)} captions are longer than {limit} tokens and are shortened, their findings kept first",
                stacklevel=4,
            )
        warnings.filterwarnings("ignore", message="the prompt is too long")
        yield


def _loop(session: Session, source: loader.Source, first: int, losses: list[float]) -> float:
    """Run steps ``first`` to the end; returns images a second."""
    config, main = session.config, session.accelerator.is_main_process
    rank, began = session.accelerator.process_index, time.monotonic()
    pace = 0.0
    with open(session.run.log, "a", encoding="utf-8") if main else nullcontext() as log:
        for number, batches in enumerate(loader.steps(source, first, config.steps, rank, session.world), start=first):
            loss, norm = session.step(number, batches)
            done = number + 1
            losses[:] = [*losses[-99:], loss]
            pace = (done - first) * config.batch / (time.monotonic() - began)
            if log is not None:
                log.write(json.dumps({"step": done, "loss": loss, "norm": norm}) + "\n")
                log.flush()
                left = (config.steps - done) * config.batch / pace
                session.report(Progress("training", done, config.steps, sum(losses) / len(losses), pace, left))
            if config.tracker:
                session.accelerator.log({"loss": loss, "norm": norm, "images_per_second": pace}, step=done)
            if done % config.save_every == 0 or done == config.steps:
                session.save(done)
            if main and config.samples.prompts and (done % config.samples.every == 0 or done == config.steps):
                with using(session.average, session.parameters), resting(session.parts):
                    finish.draw_samples(session.backbone, config, done)
            if main and session.trials and (done % config.validation.every == 0 or done == config.steps):
                with using(session.average, session.parameters), resting(session.parts):
                    card = finish.card_of(session.backbone, config, session.corpus, losses, session.world)
                    validation.validate(session.backbone, card, session.trials, session.judge, config, done)
    return pace


@contextmanager
def resting(parts: dict[str, nn.Module]) -> Iterator[None]:
    """Inside, the parts are in evaluation mode."""
    for module in parts.values():
        module.eval()
    yield
    for module in parts.values():
        module.train()
