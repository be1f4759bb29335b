"""Runs on Ray: the same files as local runs, even when a worker is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.scale.conftest import write_images
from tests.scale.test_batch import outputs, quick, table

from counterscan.errors import WorkError
from counterscan.scale import batch
from counterscan.scale.ray import placement
from counterscan.scale.store import StoreError

WORDS = {"remove": "pacemaker"}


def children(pid: int) -> list[int]:
    """All processes below ``pid``."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
    below = [pid]
    for parent in below:
        below += [child for child, its in parents.items() if its == parent]
    return below[1:]


def workers() -> list[int]:
    """The processes of our own Ray actors."""
    found = []
    for pid in children(os.getpid()):
        try:
            if b"ray::Worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the workers under /proc")
def test_a_killed_worker_changes_nothing(model, tmp_path):
    pytest.importorskip("ray")
    manifest = write_images(tmp_path, 100)
    (tmp_path / "images/0/scan 042.png").write_bytes(b"broken")
    arguments = {"manifest": manifest, "model": model, "method": quick(), "seed": 3, **WORDS}
    batch(folder=tmp_path / "local", **arguments)
    killed = []

    def progress(done, total):
        if not killed:
            killed.extend(workers())
            for pid in killed:  # at least one of the two is at work
                os.kill(pid, signal.SIGKILL)

    summary = batch(folder=tmp_path / "ray", **arguments, ray="local", workers=2, progress=progress)
    assert len(killed) == 2 and len(set(killed)) == 2
    assert (summary["done"], summary["failed"]) == (99, 1)
    assert outputs(tmp_path / "ray") == outputs(tmp_path / "local")
    assert table(tmp_path / "ray")["item"].is_unique
    again = batch(folder=tmp_path / "ray", **arguments)  # a local run goes on where Ray stopped
    assert again["skipped"] == 99


def test_a_store_that_fails_a_worker_stops_the_run_in_one_line(model, tmp_path):
    pytest.importorskip("ray")
    manifest, out = write_images(tmp_path, 2), tmp_path / "out"
    out.mkdir()
    (out / "items").write_text("a file where the outputs' folder should be")
    with pytest.raises(StoreError, match="^file://.*cannot be written .*run the same command again$"):
        batch(manifest, f"file://{out}", model=model, method=quick(), ray="local", workers=1, **WORDS)


@pytest.mark.parametrize(
    ("nodes", "workers", "device", "expected"),
    [
        ([{"CPU": 2.0}], None, "cpu", (1, 2.0, 0.0)),
        ([{"CPU": 2.0}], 2, "cpu", (2, 1.0, 0.0)),
        ([{"CPU": 2.0}], 3, "cpu", (3, 0.5, 0.0)),
        ([{"CPU": 3.0}, {"CPU": 3.0}], 1, "cpu", (1, 3.0, 0.0)),
        ([{"CPU": 3.0}, {"CPU": 3.0}], 3, "cpu", (3, 1.0, 0.0)),
        ([{"CPU": 32.0, "GPU": 4.0}] * 2, None, "cuda", (8, 8.0, 1.0)),
        ([{"CPU": 32.0, "GPU": 4.0}] * 2, 16, "cuda", (16, 4.0, 0.5)),
        ([{"CPU": 32.0, "GPU": 4.0}] * 2, 4, "cuda", (4, 16.0, 1.0)),
        ([{"CPU": 32.0, "GPU": 4.0}, {"CPU": 96.0}], None, "cuda", (4, 8.0, 1.0)),
        ([{"CPU": 32.0, "GPU": 4.0}] * 2, None, "cpu", (16, 4.0, 0.0)),
    ],
)
def test_placement(nodes, workers, device, expected):
    assert placement(nodes, workers, device) == expected


def test_placement_without_gpus():
    with pytest.raises(WorkError, match="no GPU"):
        placement([{"CPU": 2.0}], None, "cuda")
