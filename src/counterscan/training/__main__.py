"""``python -m counterscan.training CONFIG [key=value ...]``: the trainer for launchers of several processes.

torchrun --nproc_per_node 2 -m counterscan.training configs/prism-chexpert.yaml output=runs/prism
"""

from __future__ import annotations

import os
import sys
import time

from counterscan.errors import CounterscanError
from counterscan.training.config import read
from counterscan.training.session import Progress
from counterscan.training.trainer import train

EVERY = 10.0  # seconds between two lines


def main(words: list[str]) -> int:
    """Train; returns the exit code of the command line. The first process reports."""
    if not words or words[0] in ("-h", "--help"):
        sys.stderr.write(__doc__ or "")
        return 0 if words else 2
    first, told = os.environ.get("RANK", "0") == "0", 0.0

    def report(progress: Progress) -> None:
        nonlocal told
        if first and (time.monotonic() - told > EVERY or progress.done in (1, progress.total)):
            told = time.monotonic()
            sys.stderr.write(f"{progress}\n")

    try:
        result = train(read(words[0], words[1:]), report=report)
    except CounterscanError as error:
        sys.stderr.write(f"counterscan: {' '.join(str(error).split())}\n")
        return error.exit_code
    if first:
        sys.stdout.write(f"{result.folder}: {result.steps} steps, loss {result.loss:.4f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
