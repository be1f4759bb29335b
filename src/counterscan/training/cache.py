"""Latents computed once: shards on disk, named after what they depend on, so that a stale one is never used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterscan.errors import DataError, WorkError
from counterscan.training.corpus import Corpus
from counterscan.training.pictures import read_row

SHARD, BATCH, SHOWN = 256, 8, 20
Report = Callable[[int, int], None]


class Latents:
    """The latents of a corpus in float16: each file once, as it is and mirrored where ``mirror`` was asked for.

    Shards are written whole and found again, so filling can be interrupted; processes take turns with them.
    """

    def __init__(self, folder: Path, corpus: Corpus, backbone: Any, mirror: bool) -> None:
        self.corpus, self.backbone, self.variants = corpus, backbone, 2 if mirror else 1
        first: dict[tuple[Path, ...], int] = {}  # several rows may be of one file
        self.rows = [row for row, paths in enumerate(corpus.files) if first.setdefault(paths, row) == row]
        place = {row: k for k, row in enumerate(self.rows)}
        self.places = [place[first[paths]] for paths in corpus.files]
        self.folder = folder / key(corpus, backbone, mirror)
        self._open: dict[int, np.ndarray] = {}

    @property
    def shards(self) -> int:
        """How many files there are when all is done."""
        return -(-len(self.rows) // SHARD)

    def fill(self, rank: int = 0, world: int = 1, workers: int = 2, report: Report | None = None) -> None:
        """Compute every shard that is missing. ``DataError`` at the end names every image that cannot be read."""
        faults: list[str] = []
        for number in range(rank, self.shards, world):
            path = self.folder / f"{number:06d}.npy"
            if not path.is_file():
                wrong = self._make(path, number, workers)
                faults += wrong
            if report is not None:
                report(min((number + 1) * SHARD, len(self.rows)), len(self.rows))
        if faults:
            more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
            raise DataError(f"{len(faults)} images cannot be used: {'; '.join(faults[:SHOWN])}{more}")

    def __getitem__(self, place: tuple[int, bool]) -> Tensor:
        """The latent (c, h, w) float32 of (row, mirrored)."""
        row, mirrored = place
        number, offset = divmod(self.places[row], SHARD)
        if number not in self._open:
            self._open[number] = np.load(self.folder / f"{number:06d}.npy", mmap_mode="r")
        return torch.from_numpy(self._open[number][int(mirrored), offset].astype(np.float32))

    def _make(self, path: Path, number: int, workers: int) -> list[str]:
        rows = self.rows[number * SHARD : (number + 1) * SHARD]
        faults: list[str] = []

        def read(i: int) -> Tensor | None:
            try:
                where = self.corpus.where(i)
                return read_row(self.corpus.files[i], where, self.backbone.channels, self.backbone.resolution)
            except DataError as error:
                faults.append(str(error))
                return None

        out = np.empty((self.variants, len(rows), *self.backbone.latent_shape), np.float16)
        with ThreadPoolExecutor(workers) as pool:
            for start in range(0, len(rows), BATCH):
                images = list(pool.map(read, rows[start : start + BATCH]))
                if faults:
                    continue  # nothing of this shard is kept, but every fault in it is told
                batch = torch.stack([image for image in images if image is not None])
                for mirrored in range(self.variants):
                    z = self.backbone.encode(batch.flip(-1) if mirrored else batch)
                    out[mirrored, start : start + len(batch)] = z.half().cpu().numpy()
        if not faults:
            _write(path, out)
        return faults


def key(corpus: Corpus, backbone: Any, mirror: bool) -> str:
    """A name that changes with the autoencoder, the image size, the list of images, or any of their files."""
    digest = hashlib.sha256(f"{of_autoencoder(backbone)} {backbone.resolution} {backbone.channels} {mirror} ".encode())
    for path in dict.fromkeys(path for paths in corpus.files for path in paths):
        try:
            facts = path.stat()
            digest.update(f"{path}:{facts.st_size}:{facts.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path}: absent\n".encode())
    return digest.hexdigest()[:16]


def of_autoencoder(backbone: Any) -> str:
    """The digest of what makes latents: the autoencoder's weights and settings. Whatever else of the model may change."""
    vae = backbone.vae
    settings = {name: value for name, value in vae.config.items() if not name.startswith("_")}
    digest = hashlib.sha256(repr(sorted(settings.items())).encode())
    for name, value in sorted(vae.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _write(path: Path, array: np.ndarray) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            np.save(file, array)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise WorkError(
            f"{path}: latents cannot be kept ({error.strerror}); make room, or set data.cache=false"
        ) from error
