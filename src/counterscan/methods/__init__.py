"""Editing methods. A method is a frozen dataclass of settings with one call; ``get`` finds it by name.

Wherever a method is named, settings may follow its name: ``prompt-to-prompt:inversion=null-text,blend=0.3``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, get_type_hints

from counterscan.errors import WordsError
from counterscan.methods.presets import PRESETS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from counterscan.backbones.base import Backbone
    from counterscan.backbones.card import Card
    from counterscan.types import Edit

Progress = Callable[[int, int], None]

# name → where its class is; imported when asked for, because methods need torch
_METHODS = {
    "ddim": ("counterscan.methods.ddim", "Ddim"),
    "diffedit": ("counterscan.methods.diffedit", "DiffEdit"),
    "direct": ("counterscan.methods.direct", "Direct"),
    "edit-friendly": ("counterscan.methods.edit_friendly", "EditFriendly"),
    "factored": ("counterscan.methods.factored", "Factored"),
    "flow-edit": ("counterscan.methods.flow_edit", "FlowEdit"),
    "implicit-guidance": ("counterscan.methods.implicit_guidance", "ImplicitGuidance"),
    "instruct": ("counterscan.methods.instruct", "Instruct"),
    "latent-drift": ("counterscan.methods.latent_drift", "LatentDrift"),
    "ledits": ("counterscan.methods.ledits", "Ledits"),
    "masked": ("counterscan.methods.masked", "Masked"),
    "noise-free": ("counterscan.methods.noise_free", "NoiseFree"),
    "null-text": ("counterscan.methods.null_text", "NullText"),
    "prompt-to-prompt": ("counterscan.methods.prompt_to_prompt", "PromptToPrompt"),
    "sdedit": ("counterscan.methods.sdedit", "SdEdit"),
}

# methods that are another one with something added, and take what a card says of that one for their own
_TWINS = {"factored": "flow-edit"}
_HEAR_OF_KEEP = ("edit-friendly", "flow-edit")


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
    """The names ``get`` knows, sorted: the methods, and the presets of papers."""
    return sorted([*_METHODS, *PRESETS])


def listed(text: str) -> list[str]:
    """The names in a comma-separated list; a comma before ``key=`` stands between the settings of one method."""
    return [name.strip() for name in re.split(r",(?!\s*\w+=)", text) if name.strip()]


def suited(card: Card, name: str | None = None, *, keep: bool = False) -> Method:
    """The method of that name, or the model's default, with the settings that its card found best for it or its twin.

    Settings that follow the name go before the card's. Where findings must stay (``keep``), a default that only hears of it
    in the prompts gives way to ``factored``.
    """
    if name is None:
        name = "factored" if keep and card.default_method in _HEAR_OF_KEEP else card.default_method
    known, plain = card.method_settings, name.partition(":")[0]
    return get(name, **known.get(plain, known.get(_TWINS.get(plain, ""), {})))


def get(name: str, **settings: Any) -> Method:
    """The method or preset of that name with these settings. ``WordsError`` names the known ones, or their settings.

    Settings that follow the name, ``ddim:steps=50,depth=0.8``, go before ``settings``.
    """
    name, _, spelled = str(name).partition(":")
    if name in PRESETS:
        preset = PRESETS[name]
        return get(f"{preset.method}:{spelled}", **{**preset.settings, **settings})
    if name not in _METHODS:
        near = get_close_matches(name, names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise WordsError(f"no method {name!r}: known are {', '.join(names())}{hint}")
    module, attribute = _METHODS[name]
    kind = getattr(importlib.import_module(module), attribute)
    known = list(signature(kind).parameters)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise WordsError(f"method {name!r} has no setting {unknown[0]!r}: known are {', '.join(known)}")
    made: Method = kind(**settings | _settings(kind, spelled))
    return made


def _settings(kind: Any, spelled: str) -> dict[str, Any]:
    """``key=value,key=value`` as settings of a method, each of its field's type; ``+`` stands between several values."""
    from pydantic import TypeAdapter, ValidationError

    own, types, settings = [field.name for field in fields(kind)], get_type_hints(kind), {}
    for part in filter(None, spelled.split(",")):
        key, equals, value = (word.strip() for word in part.partition("="))
        if key not in own or not equals:
            raise WordsError(
                f"method {kind.name!r} has no setting {part.strip()!r}: known are {', '.join(own)}, as key=value"
            )
        try:
            settings[key] = TypeAdapter(types[key]).validate_python(value.split("+") if "+" in value else value)
        except ValidationError as error:
            wanted = error.errors()[0]["msg"].removeprefix("Input ")
            raise WordsError(
                f"method {kind.name!r}: {key} {wanted}, got {value!r}; known are {', '.join(own)}"
            ) from None
    return settings


if TYPE_CHECKING:
    from counterscan.methods.check import check_method as check_method
else:

    def __getattr__(name: str) -> Any:
        """``check_method`` is imported when it is first used: it needs torch."""
        if name == "check_method":
            return importlib.import_module("counterscan.methods.check").check_method
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
