"""A process that runs a batch again and again, killing it in between. Started by ``test_batch.py``.

It imports everything once and forks for each run, before torch has started any thread.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading

from counterscan import (
    editing,  # noqa: F401  what a run imports, imported once
    methods,
)
from counterscan.backbones import stable_diffusion  # noqa: F401
from counterscan.scale import batch


def run(arguments, items=None, delay=0.0):
    """Run in a child of its own, killed ``delay`` seconds after so many items. True when it was killed."""
    child = os.fork()
    if child == 0:

        def progress(done, total):
            if done == items:
                threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

        batch(**arguments, method=methods.get("ddim", steps=2, depth=1.0), progress=progress)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


if __name__ == "__main__":
    arguments, undisturbed, chance = json.loads(sys.argv[1]), sys.argv[2], random.Random(int(sys.argv[3]))
    run(arguments | {"folder": undisturbed})
    kills = sum(run(arguments, chance.randint(1, 4), chance.uniform(0, 0.2)) for _ in range(5))
    run(arguments)
    print(kills)
