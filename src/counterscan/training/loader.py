"""Batches, read ahead by threads. A batch is a function of the settings, the step and the process; nothing else."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from counterscan.training.cache import Latents
from counterscan.training.config import Config
from counterscan.training.corpus import Corpus, Order, swap_sides, words_of
from counterscan.training.learner import Batch
from counterscan.training.objective import generator_of, quantiles
from counterscan.training.pictures import mirrored, read_row, vary

AHEAD = 2  # steps
Sample = tuple[Tensor, str, Tensor, Tensor | None]


@dataclass(frozen=True)
class Source:
    """Everything a sample is made from."""

    config: Config
    corpus: Corpus
    latents: Latents | None
    latent_shape: tuple[int, ...]
    channels: int
    resolution: int

    def sample(self, k: int, row: int) -> tuple[Tensor, str, Tensor, Tensor | None]:
        """Sample ``k`` of the run, which is of ``row``: latent or image, caption, noise, and of a pair the latent before."""
        data = self.config.data
        rng = np.random.default_rng([self.config.seed, 1, k])
        text = words_of(self.corpus, row, data.captions, rng)
        flip = mirrored(data.augment, not text, rng)
        if flip and data.augment.flip == "words":
            text = swap_sides(text)
        noise = torch.randn(self.latent_shape, generator=generator_of(self.config.seed, k))
        if self.latents is not None:
            before = self.latents[len(self.corpus) + row, flip] if row in self.corpus.paired else None
            return self.latents[row, flip], text, noise, before
        image = read_row(self.corpus.files[row], self.corpus.where(row), self.channels, self.resolution)
        image = image.flip(-1) if flip else image
        return vary(image, data.augment, rng), text, noise, None


def steps(source: Source, first: int, last: int, rank: int = 0, world: int = 1) -> Iterator[list[Batch]]:
    """The batches of steps ``first`` to ``last`` (excluded) of one process, each a list of micro-batches."""
    config = source.config
    order = Order(source.corpus.weights, config.seed)
    with ThreadPoolExecutor(config.data.workers) as pool:
        waiting: deque[tuple[int, list[Future[Sample]]]] = deque()

        def submit(step: int) -> None:
            numbers = range(step * config.batch + rank, (step + 1) * config.batch, world)
            waiting.append((step, [pool.submit(source.sample, k, order(k)) for k in numbers]))

        try:
            for step in range(first, min(first + AHEAD, last)):
                submit(step)
            for step in range(first, last):
                number, futures = waiting.popleft()
                samples = [future.result() for future in futures]
                if step + AHEAD < last:
                    submit(step + AHEAD)
                quantile = quantiles(config.batch, number, config.seed)[rank::world]
                yield list(_collate(samples, quantile, config.micro_batch, source.latents is not None))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _collate(samples: list[Sample], quantile: Tensor, size: int, are_latents: bool) -> Iterator[Batch]:
    for start in range(0, len(samples), size):
        values, captions, noise, before = zip(*samples[start : start + size], strict=True)
        stacked = {"latents" if are_latents else "images": torch.stack(values)}
        paired = torch.tensor([image is not None for image in before])
        if paired.any():
            pairs = zip(values, before, strict=True)
            stacked["before"] = torch.stack([torch.zeros_like(z) if b is None else b for z, b in pairs])
        yield Batch(captions, quantile[start : start + size], torch.stack(noise), paired=paired, **stacked)
