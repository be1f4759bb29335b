"""OpenVINO beside eager torch on the CPU: error and speed of one network evaluation and of an edit.

    python benchmarks/openvino_speed.py --model chest-nih -o benchmarks/results/openvino_speed

The two take turns and the fastest of the rounds counts, because other work on the machine only ever adds time. Prints one
JSON object, and writes it with a table: seconds of each (``_cpu``: of the processor), their ``ratio`` (eager / OpenVINO), and
the largest absolute difference. ``load_average_before`` is what the machine did besides.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measured import keep, machine

from counterscan import load
from counterscan.scale.openvino import OpenVino


def turns(first: Callable[[], Any], second: Callable[[], Any], rounds: int) -> dict[str, float]:
    """The fastest of the rounds of each, in wall and in processor seconds, after one of each unmeasured."""
    first(), second()
    times: list[list[tuple[float, float]]] = [[], []]
    for _ in range(rounds):
        for work, spent in zip((first, second), times, strict=True):
            wall, processor = time.perf_counter(), time.process_time()
            work()
            spent.append((time.perf_counter() - wall, time.process_time() - processor))
    (a, a_cpu), (b, b_cpu) = ((min(s[0] for s in spent), min(s[1] for s in spent)) for spent in times)
    return {
        "eager": a,
        "openvino": b,
        "ratio": a / b,
        "eager_cpu": a_cpu,
        "openvino_cpu": b_cpu,
        "ratio_cpu": a_cpu / b_cpu,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="chest-nih")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results/openvino_speed"))
    arguments = parser.parse_args()
    now = machine()
    eager = load(arguments.model)
    fast = OpenVino(eager)
    rows, generator = arguments.rows, torch.Generator().manual_seed(0)
    z = torch.randn(rows, *eager.latent_shape, generator=generator)
    image = torch.rand(rows, eager.channels, eager.resolution, eager.resolution, generator=generator)
    condition = eager.embed([f"{eager.card.template}."]).repeat(rows)
    report: dict[str, Any] = {"model": arguments.model, "rows": rows, "threads": torch.get_num_threads()} | now
    began = time.perf_counter()
    with torch.no_grad():
        fast.predict(z, 500, condition), fast.encode(image), fast.decode(z)
        report["seconds_to_compile"] = time.perf_counter() - began
        for name, work in {
            "predict": lambda b: b.predict(z, 500, condition).noise,
            "encode": lambda b: b.encode(image),
            "decode": lambda b: b.decode(z),
        }.items():
            error = float((work(eager) - work(fast)).abs().max())
            seconds = turns(lambda w=work: w(eager), lambda w=work: w(fast), arguments.rounds)
            report[name] = {"error": error, **seconds}
    print(json.dumps(report, indent=2))
    keep(arguments.o, report, markdown(report))


def markdown(report: dict[str, Any]) -> str:
    """The times as a page."""
    columns = ("eager", "openvino", "ratio", "ratio_cpu", "error")
    rows = (
        f"| {name} | " + " | ".join(f"{report[name][column]:.3g}" for column in columns) + " |"
        for name in ("predict", "encode", "decode")
    )
    return f"""# OpenVINO beside eager torch

`{report["model"]}`, {report["rows"]} images at a time, {report["threads"]} threads of {report["cores"]} cores with a load
average of {report["load_average_before"]} before. Seconds are the fastest round's; `ratio_cpu` is of processor seconds.

| | eager s | OpenVINO s | ratio | ratio_cpu | largest difference |
| --- | --- | --- | --- | --- | --- |
""" + "\n".join([*rows, ""])


if __name__ == "__main__":
    main()
