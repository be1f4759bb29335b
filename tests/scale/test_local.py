"""The pipeline itself: how far it runs ahead, and whom a failure costs what."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

import counterscan
from counterscan.errors import WorkError
from counterscan.scale import local, stages
from counterscan.scale.job import Item, Job
from counterscan.scale.store import Folder
from counterscan.types import Edit


@dataclass(frozen=True)
class Picky:
    """Fails on images that are bright on the whole, and notes how many came at once."""

    seen: ClassVar[list[int]] = []
    name: ClassVar[str] = "picky"

    def __call__(self, backbone, image, edit, *, generator, progress=None):
        self.seen.append(len(image))
        if (image.mean((1, 2, 3)) > 0.7).any():
            raise RuntimeError("too bright")
        return image


@pytest.fixture
def job(model, tmp_path):
    backbone = counterscan.load(model)
    return backbone, Job(Edit("a", "b"), Picky(), model, backbone.fingerprint, Folder(tmp_path / "out"))


def images(folder, levels):
    for i, level in enumerate(levels):
        pixels = np.random.default_rng(i).integers(level, level + 40, (40, 40)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        yield Item(f"{i}.png", folder / f"{i}.png")


def test_one_bad_image_costs_its_batch_nothing(job, tmp_path):
    backbone, job = job
    Picky.seen.clear()
    rows = list(local.stream(job, backbone, images(tmp_path, [20, 210, 30, 40, 50, 60])))
    assert {row.item: row.status for row in rows if row.status == "failed"} == {"1.png": "failed"}
    assert [row.reason for row in rows if row.reason] == ["RuntimeError: too bright"]
    assert len(rows) == 6 and set(Picky.seen) == {job.batch_size}  # always full: sums depend on the shape


def test_it_never_runs_far_ahead(job, tmp_path):
    """Back-pressure: what is read and not yet recorded stays below a fixed number."""
    backbone, job = job
    begun = ended = most = 0

    def source():
        nonlocal begun, most
        for item in images(tmp_path, [20] * 60):
            begun += 1
            most = max(most, begun - ended)
            yield item

    for _ in local.stream(job, backbone, source()):
        ended += 1
    assert ended == 60 and most <= 2 * local.DEPTH * job.batch_size + job.batch_size + 2


def test_ahead_keeps_the_order_and_the_depth():
    taken = []
    with ThreadPoolExecutor(3) as pool:
        ahead = local._ahead(pool, lambda x: x * x, (taken.append(x) or x for x in range(20)), 4)
        assert next(ahead) == 0 and len(taken) == 5
        assert list(ahead) == [x * x for x in range(1, 20)]


def test_a_full_disk_stops_the_run(job, tmp_path, monkeypatch):
    backbone, job = job

    def full(*_):
        raise WorkError("cannot be written") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stages, "_save", full)
    with pytest.raises(WorkError, match="make room and run the same command again"):
        list(local.stream(job, backbone, images(tmp_path, [20, 30])))


def test_a_file_that_cannot_be_written_costs_one_item(job, tmp_path, monkeypatch):
    backbone, job = job
    save = stages._save

    def picky(job, item, result):
        if item.id == "1.png":
            raise PermissionError(errno.EACCES, "Permission denied", "1.png")
        return save(job, item, result)

    monkeypatch.setattr(stages, "_save", picky)
    rows = {row.item: row.status for row in local.stream(job, backbone, images(tmp_path, [20, 30, 40]))}
    assert rows == {"0.png": "done", "1.png": "failed", "2.png": "done"}
