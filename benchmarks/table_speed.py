"""How long a large manifest takes to check and to caption, without its images: processor seconds and peak memory.

Writes ``results.json`` and a table; ``load_average_before`` is what the machine did besides.

python benchmarks/table_speed.py -n 100000 -o benchmarks/results/table_speed
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measured import keep, machine

FINDINGS = ("pleural effusion", "cardiomegaly", "pneumothorax", "consolidation", "support devices")
COLUMNS = ("path", "patient", "split", "view", "age", "sex", *FINDINGS)


def write(path: Path, rows: int) -> None:
    """A table of images that do not exist, four a patient, drawn from seed 0."""
    rng = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for k in range(rows):
            patient = k // 4
            split = ("train", "train", "train", "val", "test")[patient % 5]
            labels = [rng.choices(("1", "0", "-1", ""), (15, 60, 5, 20))[0] for _ in FINDINGS]
            table.writerow(
                [f"{k:07d}.png", f"p{patient}", split, rng.choice(("PA", "AP")), 20 + patient % 70, "male", *labels]
            )


def measured(words: list[str]) -> dict[str, float]:
    """Processor seconds and peak memory (MiB) of one command, a process of its own."""
    child = subprocess.Popen([sys.executable, "-m", "counterscan", *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(
            f"table_speed.py: counterscan {' '.join(words)}: exit code {os.waitstatus_to_exitcode(status)}"
        )
    return {"processor_seconds": round(used.ru_utime + used.ru_stime, 1), "peak_mib": round(used.ru_maxrss / 1024)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=100_000, help="rows")
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results/table_speed"))
    o = parser.parse_args()
    now = machine()
    with tempfile.TemporaryDirectory() as place:
        table, folder = Path(place) / "table.csv", Path(place)
        write(table, o.n)
        result: dict[str, Any] = {"rows": o.n, "bytes": table.stat().st_size} | now
        result["check"] = measured(["data", "check", str(table), "--no-images", "-o", str(folder / "report")])
        result["caption"] = measured(["data", "caption", str(table), "-o", str(folder / "captioned.parquet")])
    lines = [f"| {k} | {result[k]['processor_seconds']} | {result[k]['peak_mib']} |" for k in ("check", "caption")]
    text = f"""A table of {o.n:,} rows, {now["cores"]} cores, load average {now["load_average_before"]} before.

| command | processor s | MiB |
| --- | --- | --- |
""" + "\n".join([*lines, ""])
    keep(o.o, result, text)
    print(text)


if __name__ == "__main__":
    main()
