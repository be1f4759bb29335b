"""A process that runs an evaluation and dies of SIGKILL after so many of its images. Started by the tests.

python killed.py NAME COUNT KEYWORDS-AS-JSON
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from pathlib import Path

name, count, words = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
for key in words.pop("paths"):
    words[key] = [Path(p) for p in words[key]] if isinstance(words[key], list) else Path(words[key])


def progress(done, total):
    if done >= count:
        os.kill(os.getpid(), signal.SIGKILL)


run = getattr(importlib.import_module(f"counterscan.evaluate.{name}"), name)
run(**words, progress=progress)
