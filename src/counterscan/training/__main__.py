"""``python -m counterscan.training CONFIG [key=value ...]``: the trainer for launchers of several processes.

torchrun --nproc_per_node 2 -m counterscan.training configs/prism-chexpert.yaml output=runs/prism
"""

from __future__ import annotations

import os
import sys
import time

from counterscan.errors import CounterscanError
from counterscan.training.config import read
from counterscan.training.trainer import Progress, train


def main(words: list[str]) -> int:
    """Train; returns the exit code of the command line. The first process reports every ten seconds."""
    if not words or words[0] in ("-h", "--help"):
        sys.stderr.write(__doc__ or "")
        return 0 if words else 2
    told = [0.0]

    def report(progress: Progress) -> None:
        if os.environ.get("RANK", "0") == "0" and (
            time.monotonic() - told[0] > 10 or progress.done in (1, progress.total)
        ):
            told[0] = time.monotonic()
            sys.stderr.write(line(progress) + "\n")

    try:
        result = train(read(words[0], words[1:]), report=report)
    except CounterscanError as error:
        sys.stderr.write(f"counterscan: {' '.join(str(error).split())}\n")
        return error.exit_code
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(f"{result.folder}: {result.steps} steps, loss {result.loss:.4f}\n")
    return 0


def line(progress: Progress) -> str:
    """Progress as one line of text."""
    if progress.doing == "latents":
        return f"latents {progress.done}/{progress.total}"
    left = f"{progress.seconds_left / 60:.0f} min left"
    pace = f"{progress.images_per_second:.2f} images/s"
    return f"step {progress.done}/{progress.total}  loss {progress.loss:.4f}  {pace}  {left}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
