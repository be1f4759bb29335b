"""Editing methods. A method is a frozen dataclass of settings with one call; ``get`` finds it by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from counterscan.errors import WordsError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from counterscan.backbones.base import Backbone
    from counterscan.types import Edit

Progress = Callable[[int, int], None]

# name → where its class is; imported when asked for, because methods need torch
_METHODS = {
    "ddim": ("counterscan.methods.ddim", "Ddim"),
    "edit-friendly": ("counterscan.methods.edit_friendly", "EditFriendly"),
}


class Method(Protocol):
    """What every method is: settings, and one call that edits a batch of images with one edit."""

    name: ClassVar[str]

    def __call__(
        self,
        backbone: Backbone,
        image: Tensor,
        edit: Edit,
        *,
        generator: torch.Generator | Sequence[torch.Generator],
        progress: Progress | None = None,
    ) -> Tensor:
        """Image float32 (B, C, H, W) in [0, 1] → the edited image, same shape, before compositing."""


def names() -> list[str]:
    """The names ``get`` knows, sorted."""
    return sorted(_METHODS)


def get(name: str, **settings: Any) -> Method:
    """The method of that name with these settings. ``WordsError`` names the known methods, or the known settings."""
    if name not in _METHODS:
        near = get_close_matches(str(name), _METHODS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise WordsError(f"no method {name!r}: known are {', '.join(names())}{hint}")
    module, attribute = _METHODS[name]
    kind = getattr(importlib.import_module(module), attribute)
    known = [f.name for f in fields(kind)]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise WordsError(f"method {name!r} has no setting {unknown[0]!r}: known are {', '.join(known)}")
    return kind(**settings)
