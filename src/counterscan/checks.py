"""The public checkers: each tries what every method, world, reader or model promises. Run them on your own as well.

>>> from counterscan.checks import check_world
>>> check_world("chest")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from counterscan.backbones.check import check_backbone
    from counterscan.data.readers.check import check_reader
    from counterscan.methods.check import check_method
    from counterscan.worlds.check import check_world

_WHERE = {
    "check_backbone": "backbones",
    "check_method": "methods",
    "check_reader": "data.readers",
    "check_world": "worlds",
}

__all__ = ["check_backbone", "check_method", "check_reader", "check_world"]


def __getattr__(name: str) -> Any:
    """Import a checker when it is first used: each needs what it checks, torch or not."""
    if name in _WHERE:
        return getattr(import_module(f"counterscan.{_WHERE[name]}.check"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
