"""One edit on a whole archive: streamed, resumable, on this machine or on a Ray cluster.

>>> from counterscan.scale import batch
>>> batch("manifest.csv", "out", remove="pacemaker")["failed"]
0
"""

from __future__ import annotations

from typing import Any

__all__ = ["batch"]


def __getattr__(name: str) -> Any:
    """Import ``batch`` when it is first used: the command line must start fast."""
    if name == "batch":
        from counterscan.scale.run import batch

        return batch
    raise AttributeError(f"module 'counterscan.scale' has no attribute {name!r}")
