"""The Fréchet distance of many features from a file, in one stream: how long, and how much memory.

Both sets are streamed, 2 n features in all. On a machine that others load, ``processor_seconds`` is what the work takes.

python benchmarks/frechet_speed.py -n 50000 -d 2048
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from counterscan.metrics.distribution import frechet_distance, moments
from counterscan.metrics.neighbours import blocks


def write(path: Path, n: int, d: int, shift: float) -> Path:
    """Features on disk whose covariance is known: independent with deviations from 0.5 to 1.5."""
    rng = np.random.default_rng(int(shift * 10))
    scale = np.linspace(0.5, 1.5, d, dtype=np.float32)
    with path.open("wb") as file:
        for part in blocks(n):
            file.write((rng.standard_normal((part.stop - part.start, d), np.float32) * scale + shift).tobytes())
    return path


def stream(path: Path, n: int, d: int) -> Iterator[np.ndarray]:
    """The features, block by block, read and not mapped, so that what memory grows by is the computation's."""
    with path.open("rb") as file:
        for part in blocks(n):
            rows = part.stop - part.start
            yield np.fromfile(file, np.float32, rows * d).reshape(rows, d)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=50_000)
    parser.add_argument("-d", type=int, default=2048)
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results/frechet_speed"))
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        a, b = (write(Path(folder) / name, o.n, o.d, shift) for name, shift in (("a", 0.0), ("b", 0.1)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began, spent = time.perf_counter(), time.process_time()
        told = [moments(stream(x, o.n, o.d)) for x in (a, b)]
        streamed = time.perf_counter() - began
        distance = frechet_distance(*told)
        seconds, processor = time.perf_counter() - began, time.process_time() - spent
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    facts = {
        "features": [o.n, o.d],
        "distance": distance,
        "distance_of_the_true_distributions": o.d * 0.1**2,
        "seconds": round(seconds, 2),
        "seconds_streaming_both": round(streamed, 2),
        "processor_seconds": round(processor, 2),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "memory_grown_mb": round(grown / 1024),
        "one_set_mb": round(o.n * o.d * 4 / 2**20),
    }
    o.o.mkdir(parents=True, exist_ok=True)
    (o.o / "results.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
