"""Kill a batch run (SIGKILL) at random moments and start it again: what is left equals an undisturbed run, to the byte.

    python benchmarks/batch_kill.py -n 2000 --kills 5 --method ddim --work WORK -o benchmarks/results/batch_kill

The images are drawn from the chest world; one in a hundred is cut in half, as a broken copy would be. Every run is a process
of its own, ``counterscan batch`` as users start it. The result counts the rows, their states and what differs, as JSON and as
the paragraph that ``benchmarks/scale_page.py`` puts into docs/scale.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
from batch_speed import draw
from scale_page import killed

BROKEN = 100  # one image in so many


def break_some(manifest: Path) -> list[str]:
    """Cut images in half, once; their names in the manifest."""
    names: list[str] = pd.read_csv(manifest)["path"].tolist()[BROKEN // 2 :: BROKEN]
    marked = manifest.with_suffix(".broken")
    if not marked.exists():
        for path in (manifest.parent / name for name in names):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        marked.write_text("\n".join(names))
    return names


def command(manifest: Path, folder: Path, o: argparse.Namespace) -> list[str]:
    words = ["batch", manifest, "--remove", "pleural effusion", "--model", o.model, "--offline", "-o", folder, "--json"]
    words += ["--method", o.method] if o.method else []
    return [sys.executable, "-m", "counterscan", *map(str, words)]


def finished(folder: Path) -> int:
    """Items whose files are whole, by their records, which are moved in last."""
    return sum(1 for _ in (folder / "items").rglob("*.json"))


def kill_after(started: list[str], folder: Path, items: int, delay: float) -> bool:
    """Start a run and kill it ``delay`` seconds after so many items are there; False where it ended before."""
    with subprocess.Popen(started, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and finished(folder) < items:
            time.sleep(0.2)
        time.sleep(delay)
        process.kill()
        return process.wait() == -9


def rows(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "ledger").sort_values("item", ignore_index=True)


def damaged(folder: Path, table: pd.DataFrame) -> list[str]:
    """Files that are absent or not what the ledger says."""
    files = [
        pair
        for files, sums in zip(table["files"], table["sha256"], strict=True)
        for pair in zip(files, sums, strict=True)
    ]
    return [
        name
        for name, digest in files
        if not (folder / name).is_file() or hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--model", default="chest-world")
    parser.add_argument("--method", help="the model's default otherwise")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/batch_kill"))
    o = parser.parse_args()
    manifest = draw(o.work, o.n, o.size)
    broken, chance = break_some(manifest), random.Random(o.seed)
    undisturbed, disturbed = o.work / "undisturbed", o.work / "disturbed"
    shutil.rmtree(disturbed, ignore_errors=True)
    subprocess.run(
        command(manifest, undisturbed, o), stdout=subprocess.DEVNULL, check=False
    )  # goes on where it stopped
    moments = sorted(chance.randrange(o.n - o.n // 10) for _ in range(o.kills))
    again = command(manifest, disturbed, o)
    kills = sum(kill_after(again, disturbed, moment, chance.uniform(0, 2)) for moment in moments)
    subprocess.run(again, stdout=subprocess.DEVNULL, check=False)
    ours, theirs = rows(disturbed), rows(undisturbed)
    same = ["item", "status", "reason", "seed", "evaluations", "changed", "mean_change", "largest_change", "bytes"]
    sums = [list(map(list, table["sha256"])) for table in (ours, theirs)]
    told: dict[str, Any] = {
        "images": o.n, "broken": len(broken), "kills": kills, "killed_after_items": moments,
        "rows": len(ours), "duplicates": int(ours["item"].duplicated().sum()),
        "done": int((ours["status"] == "done").sum()), "failed": int((ours["status"] == "failed").sum()),
        "failed_are_the_broken": set(ours.query("status == 'failed'")["item"]) == set(broken),
        "reasons": sorted(set(ours.query("status == 'failed'")["reason"].str.split(":").str[-1].str.strip()))[:5],
        "damaged_files": len(damaged(disturbed, ours)), "drafts_left": (disturbed / ".drafts").exists(),
        "equal_to_undisturbed": ours[same].equals(theirs[same]) and sums[0] == sums[1],
    }  # fmt: skip
    o.output.mkdir(parents=True, exist_ok=True)
    (o.output / "results.json").write_text(json.dumps(told, indent=2) + "\n")
    (o.output / "results.md").write_text(killed(told))
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
