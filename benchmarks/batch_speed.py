"""What a batch run costs: images a second beside a loop of single edits, memory, seconds a stage, bytes an image.

    python benchmarks/batch_speed.py -n 2000 --singles 50 --work WORK -o benchmarks/results/batch_speed

The images are drawn from the chest world, at ``--size`` pixels. The loop of single edits does what ``counterscan edit``
does for every image: read, edit, save. Prints one JSON object. ``memory`` holds the resident MiB after a tenth of the
images and the largest until the end; it is of this process, so run it alone. ``load`` says how busy the machine was with
other work: then trust processor seconds, not seconds. ``benchmarks/scale_page.py`` makes docs/scale.md of the results.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from PIL import Image
from scale_page import measured
from torch.utils.flop_counter import FlopCounterMode

import counterscan
from counterscan.scale import batch
from counterscan.scale.devices import open_backbone
from counterscan.scale.ledger import Ledger, Row
from counterscan.scale.store import Folder
from counterscan.worlds import chest

WORDS = {"remove": "pleural effusion"}


def draw(folder: Path, count: int, size: int) -> Path:
    """Images of the chest world (made once) and their manifest."""
    names: list[str] = []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for i in range(count):
        names.append(f"images/{i:06d}.png")
        if not (folder / names[-1]).exists():
            unit = np.asarray(chest.sample(i).image, np.float32)
            pixels = Image.fromarray((unit * 255).round().astype(np.uint8)).resize((size, size))
            pixels.save(folder / names[-1])
    manifest = folder / f"manifest-{count}.csv"
    pd.DataFrame({"path": names}).to_csv(manifest, index=False)
    return manifest


def resident() -> float:
    """MiB of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def singles(manifest: Path, count: int, model: str, device: str, folder: Path) -> dict[str, float]:
    """A loop of single edits."""
    backbone = open_backbone(model, device)
    paths = [manifest.parent / path for path in pd.read_csv(manifest)["path"][:count]]
    counterscan.edit(paths[0], model=backbone, **WORDS)  # what is loaded when first used
    wall, processor = time.perf_counter(), time.process_time()
    for path in paths:
        counterscan.edit(path, model=backbone, **WORDS).save(folder)
    return rates(count, time.perf_counter() - wall, time.process_time() - processor)


def operations(manifest: Path, model: str) -> float:
    """Floating-point operations of one edit, as torch counts them (products of matrices and convolutions)."""
    backbone = open_backbone(model)
    with FlopCounterMode(display=False) as counter:
        counterscan.edit(manifest.parent / pd.read_csv(manifest)["path"][0], model=backbone, **WORDS)
    return float(counter.get_total_flops())


def adding(folder: Path, count: int = 200) -> float:
    """Processor seconds to add a row to a ledger, merges included: what the one process that writes it spends on an item."""
    row = Row(
        "images/000000.png", str(folder / "images/000000.png"), "done", files=["x" * 60] * 5, sha256=["0" * 64] * 5
    )
    ledger, began = Ledger(Folder(folder)), time.process_time()
    for i in range(count):
        ledger.add(replace(row, item=f"images/{i:06d}.png"))
    return (time.process_time() - began) / count


def rates(count: int, wall: float, processor: float) -> dict[str, float]:
    return {"images": count, "images_per_second": count / wall, "processor_seconds_per_image": processor / count}


def batched(manifest: Path, count: int, how: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One batch run, with its memory and what its ledger says."""
    memory: list[float] = []

    def progress(done: int, total: int) -> None:
        if done % max(1, total // 100) == 0:
            memory.append(resident())

    began = time.process_time()
    summary = batch(manifest, folder, **how, **WORDS, progress=progress)
    spent = time.process_time() - began
    batch(manifest, folder, **how, **WORDS)  # nothing is left to do: what a start costs
    spent -= time.process_time() - began - spent
    rows = pd.read_parquet(folder / "ledger")
    ledger = sum(path.stat().st_size for path in (folder / "ledger").glob("*.parquet"))
    start = memory[len(memory) // 10]
    return {
        "images": count,
        "images_per_second": summary["images_per_second"],
        "processor_seconds_per_image": spent / count,
        "seconds_per_image": rows[["reading", "model", "writing"]].mean().to_dict(),
        "evaluations": float(rows["evaluations"].mean()),
        "bytes_per_image": {
            "input": sum((manifest.parent / path).stat().st_size for path in rows["item"]) / len(rows),
            "outputs": float(rows["bytes"].mean()),
            "ledger": ledger / len(rows),
            "ledger_in_memory": pq.read_table(folder / "ledger").nbytes / len(rows),
        },
        "files_per_image": float(rows["files"].map(len).mean()),
        "memory": {"after_a_tenth": start, "largest_after": max(memory[len(memory) // 10 :])},
        "failed": summary["failed"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--singles", type=int, default=20, help="images of the loop of single edits; 0 leaves it out")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--model", default="chest-world")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/batch_speed"))
    given = parser.parse_args()
    manifest = draw(given.work, given.n, given.size)
    report: dict[str, Any] = {"model": given.model, "device": given.device, "threads": torch.get_num_threads()}
    report |= {"size": given.size, "batch_size": given.batch_size, "workers": given.workers}
    report |= {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    for name in ("first", "singles", "batch", "adding"):
        shutil.rmtree(given.work / name, ignore_errors=True)
    how = {"model": given.model, "device": given.device, "batch_size": given.batch_size, "workers": given.workers}
    batch(draw(given.work, 1, given.size), given.work / "first", **how, **WORDS)  # what is imported when first used
    report["batch"] = batched(manifest, given.n, how, given.work / "batch")
    if given.singles:
        report["singles"] = singles(manifest, given.singles, given.model, given.device, given.work / "singles")
        report["ratio"] = report["batch"]["images_per_second"] / report["singles"]["images_per_second"]
    report |= {"operations": operations(manifest, given.model), "ledger_seconds": adding(given.work / "adding")}
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "results.json").write_text(json.dumps(report, indent=2) + "\n")
    if given.singles:
        (given.output / "results.md").write_text(measured(report))
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
