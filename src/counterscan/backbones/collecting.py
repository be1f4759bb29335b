"""Python's garbage collector, out of the way while libraries are imported."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, no garbage is collected; afterwards what was made counts as old, so that only a full collection visits it.

    An import makes objects that stay, and the collector goes through them again and again: torch, diffusers and
    transformers have so many that this took a sixth of a short command. A collector that is off already stays off.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # what somebody else has frozen must not thaw
            gc.freeze()
            gc.unfreeze()  # into the oldest generation, without a look at any object
        gc.enable()
