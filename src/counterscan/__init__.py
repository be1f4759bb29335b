"""Counterscan asks a medical image *what if*, in words, and answers with an image. Not for diagnosis.

>>> import counterscan
>>> result = counterscan.edit("chest.png", remove="pacemaker")
>>> result.save("out")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from counterscan import _quiet  # noqa: F401  before any library it silences

__version__ = "0.1.0"

if TYPE_CHECKING:
    from counterscan.attribution import Attribution, attribute
    from counterscan.backbones import load
    from counterscan.editing import edit
    from counterscan.errors import CounterscanError
    from counterscan.generation import generate
    from counterscan.imaging import Picture
    from counterscan.result import Counterfactual
    from counterscan.types import Change, Edit

_WHERE = {
    "Attribution": "attribution",
    "Change": "types",
    "Counterfactual": "result",
    "CounterscanError": "errors",
    "Edit": "types",
    "Picture": "imaging",
    "attribute": "attribution",
    "edit": "editing",
    "generate": "generation",
    "load": "backbones",
}

__all__ = [
    "Attribution",
    "Change",
    "Counterfactual",
    "CounterscanError",
    "Edit",
    "Picture",
    "__version__",
    "attribute",
    "edit",
    "generate",
    "load",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import counterscan`` costs nothing."""
    if name in _WHERE:
        return getattr(import_module(f"counterscan.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'counterscan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
