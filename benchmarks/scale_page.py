"""docs/scale.md in one command, from what ``benchmarks/batch_speed.py`` and ``benchmarks/batch_kill.py`` measured.

python benchmarks/scale_page.py -o docs/scale.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

IMAGES = 10_000_000
GPUS = (1, 8, 64)
RATES = (5, 20, 80)  # TFLOP/s that a GPU may really do on this work: no GPU was at hand
HEAD = """# Scale: a whole archive

```
counterscan batch manifest.csv --remove pacemaker -o out                          # this machine
counterscan batch manifest.csv --remove pacemaker -o out --ray local --workers 2  # copies of the model on this machine
counterscan batch manifest.csv --remove pacemaker -o out --ray ADDRESS            # a Ray cluster
counterscan batch manifest.csv --remove pacemaker -o s3://bucket/out              # outputs to any store that fsspec reaches
```

Run it again and it does what is missing or failed, and images that were replaced since (another size or time of change, as
`make` sees it), and nothing else; an image that is gone keeps its result. A method that the model cannot run is refused
before anything is written. `--json` prints the counts; the exit code is 1 when an item failed. An item's seed comes from
its path in the manifest and `--seed`, so its files do not depend on its neighbours, the order, the number of workers or Ray.

- **Stages.** Threads decode ahead and write behind while the model works on full batches of one shape. Each stage holds at
  most a few batches, so memory does not grow with the manifest.
- **Contrasts.** Columns `path_T1`, `path_T2` … beside `path` are stacked for a model of as many channels; results are `.npy`.
- **Outputs** are written aside, hashed and moved in, the record last: a killed run leaves no torn file under its name.
- **Ledger.** `out/ledger` is a Parquet row an item: status, reason, seconds a stage, seed, scores, files and their SHA-256, size
  and time of change of the image's own files (`inputs`; a ledger without them is resumed). With `--judge CLASSIFIER` (`--labels`,
  `--size`, `--channels` as in [stress](robustness.md#stress)) also `judged`, the edited findings that it knows, and its
  probabilities of them `before` and `after`.
  `pandas.read_parquet("out/ledger")` reads it. Parts are only ever added and merged by 32.
- **Any store.** With a URL after `-o`, files go up under a temporary name and are moved, the ledger's parts too, and resuming
  lists the store; the files are the same. fsspec knows `s3`, `gs`, `az`, `sftp`, `hdfs`, `file` and more, each with its package
  (`pip install s3fs`; the message names it). Keys and endpoints come from that package's settings or
  [fsspec's](https://filesystem-spec.readthedocs.io/en/latest/features.html#configuration), so keep them out of the URL,
  which `run.json` records. A store that fails stops the run; the same command goes on. Nothing locks a URL: give each run its
  own. On stores without a rename, such as S3, moving costs a copy: at high rates raise `--workers`.
- **Bad images** are rows with a reason; they stop nothing. A full disk stops the run, with every finished item kept.
- **Ray.** Every worker loads the model once and gets 8 batches at a time. The process that was started reads the manifest and
  alone writes the ledger, so resuming knows nothing of Ray. A lost worker is started again and its portion repeated; what
  keeps killing workers is taken apart until one image is left, which is recorded as failed. Workers must see the output
  folder under the same path, or the URL.
"""
MEASURED = """## Measured

`benchmarks/batch_speed.py`: {images} images of {pixels} px, model `{name}`, {evaluations:.0f} evaluations an image, batches of
{batch_size}, device {device}, {threads} threads on {cores} cores, load {load:.1f} before the start.{caution}

| | an image |
| --- | --- |
| processor seconds, `batch` | {processor:.2f} |
| seconds on the clock, `batch` | {clock:.2f} |
| reading, model, writing (overlapped), seconds on the clock | {reading:.3f}, {model:.3f}, {writing:.3f} |
| processor seconds, a loop of {singles} single edits | {single_processor:.2f} |
| seconds on the clock, the same loop | {single_clock:.2f} |
| floating-point operations | {giga:,.0f} × 10⁹ |
| kB in, kB out | {source_kb:.0f}, {output_kb:.0f} |
| files | {files:.0f} |
| bytes of ledger on disk, in memory | {row:.0f}, {row_memory:.0f} |
| processor seconds of the process that writes the ledger | {ledger_seconds:.4f} |

{memory}
"""
MEMORY = "Memory: {after_a_tenth:.0f} MiB after a tenth of the images, at most {largest_after:.0f} MiB from there to the end."
FEW = "These were too few images to say whether memory stays flat: run it with `-n 2000`."
KILLED = """
`benchmarks/batch_kill.py`: {images} images, {broken} of them cut in half, {kills} kills (SIGKILL) after {moments}
items. After the last run: {rows} rows, {duplicates} duplicates, {done} done, {failed} failed ({these} the broken ones),
{damaged_files} damaged files, {equal} to an undisturbed run.
"""
PLAN = """## Throughput

The stages overlap, so the slowest of them sets the pace of a worker:

    images a second = min(1 / model, readers / reading, writers / writing)

and on a CPU all stages share the cores: at most cores / (processor seconds an image). N workers do N times as much, because
they share nothing, until one of two things is full: the storage, or the one process that writes the ledger.

## Ten million images

Extrapolated from the table above, line by line; nothing of this size was run.

- **CPU.** 10⁷ × {processor:.2f} s = {core_hours:,.0f} core-hours: {days:.1f} days on 64 cores.
- **Disk.** 10⁷ × {output_kb:.0f} kB = {output_tb:.2f} TB of outputs in {million_files:.0f} million files (look at the file
  system's limit), from {source_tb:.2f} TB of sources at {pixels} px. Larger images grow both.
- **Ledger.** 10⁷ × {row:.0f} B = {ledger_gb:.1f} GB on disk. Start and end of a run read all of it, {ledger_memory_gb:.0f} GB in
  memory, and at {ledger_ms:.1f} ms a row one process writes {limit:,.0f} rows a second at most. So split the manifest into a
  hundred, with a folder each: 10⁵ rows are {part_mb:.0f} MB in memory.
- **GPU.** 10⁷ × {giga:,.0f} × 10⁹ operations = {total:.2g} operations. No GPU was measured: the table says what follows if one
  really does 5, 20 or 80 TFLOP/s on this work. Measure yours with
  `python benchmarks/batch_speed.py --device cuda --batch-size 64 --work WORK -o RESULTS`.

| GPUs | TFLOP/s each | images a second | hours | MB/s read | MB/s written |
| --- | --- | --- | --- | --- | --- |
{lines}

Above {limit:,.0f} images a second run the parts of the manifest side by side, because one ledger takes no more. Reading and
writing need cores beside the GPUs: images a second × (reading + writing).
"""


def values(r: Mapping[str, Any]) -> dict[str, Any]:
    """What the page quotes, by its names there."""
    b, single = r["batch"], r["singles"]
    size = b["bytes_per_image"]
    busy = (
        " The machine\nwas busy with other work: trust processor seconds, not those on the clock."
        if r["load"] > 0.5
        else ""
    )
    seconds = b["processor_seconds_per_image"]
    facts = {key: r[key] for key in ("batch_size", "device", "threads", "cores", "load", "ledger_seconds")}
    facts |= {"images": b["images"], "pixels": r["size"], "name": r["model"], "evaluations": b["evaluations"]}
    facts |= {"caution": busy, "processor": seconds, "clock": 1 / b["images_per_second"], **b["seconds_per_image"]}
    facts |= {"singles": single["images"], "single_clock": 1 / single["images_per_second"]}
    facts |= {"single_processor": single["processor_seconds_per_image"], "giga": r["operations"] / 1e9}
    facts |= {"source_kb": size["input"] / 1e3, "output_kb": size["outputs"] / 1e3, "files": b["files_per_image"]}
    facts |= {"row": size["ledger"], "row_memory": size["ledger_in_memory"]}
    facts |= {"memory": MEMORY.format(**b["memory"]) if b["images"] >= 200 else FEW}
    facts |= {"core_hours": IMAGES * seconds / 3600, "days": IMAGES * seconds / 86400 / 64}
    facts |= {"output_tb": IMAGES * size["outputs"] / 1e12, "source_tb": IMAGES * size["input"] / 1e12}
    facts |= {"million_files": IMAGES * b["files_per_image"] / 1e6, "total": IMAGES * r["operations"]}
    facts |= {"ledger_gb": IMAGES * size["ledger"] / 1e9, "ledger_memory_gb": IMAGES * size["ledger_in_memory"] / 1e9}
    facts |= {"ledger_ms": r["ledger_seconds"] * 1e3, "limit": 1 / r["ledger_seconds"]}
    return facts | {"part_mb": size["ledger_in_memory"] * IMAGES / 100 / 1e6, "lines": "\n".join(gpu_lines(r))}


def gpu_lines(r: Mapping[str, Any]) -> list[str]:
    """Hours and traffic by number of GPUs and what each may do."""
    out, size = [], r["batch"]["bytes_per_image"]
    for gpus in GPUS:
        for rate in RATES:
            pace = gpus * rate * 1e12 / r["operations"]
            traffic = f"{pace * size['input'] / 1e6:,.1f} | {pace * size['outputs'] / 1e6:,.1f}"
            out.append(f"| {gpus} | {rate} | {pace:,.0f} | {IMAGES / pace / 3600:,.1f} | {traffic} |")
    return out


def measured(r: Mapping[str, Any]) -> str:
    """What ``batch_speed.py`` found."""
    return MEASURED.format(**values(r))


def killed(told: Mapping[str, Any]) -> str:
    """What ``batch_kill.py`` found."""
    words = {"these": "exactly" if told["failed_are_the_broken"] else "NOT"}
    words |= {"equal": "equal" if told["equal_to_undisturbed"] else "NOT equal"}
    return KILLED.format(**told, **words, moments=", ".join(map(str, told["killed_after_items"])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("-o", type=Path, default=Path("docs/scale.md"))
    o = parser.parse_args()
    speed = json.loads((o.results / "batch_speed" / "results.json").read_text())
    kills = o.results / "batch_kill" / "results.json"
    told = killed(json.loads(kills.read_text())) if kills.exists() else ""
    o.o.write_text("\n".join((HEAD, measured(speed) + told, PLAN.format(**values(speed)))))


if __name__ == "__main__":
    main()
