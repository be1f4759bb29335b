"""The values that travel between language, methods and results. All frozen; shapes are in the field docs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

Direction = Literal["remove", "add"]
Sides = Literal["patient", "image"]  # whose left and right; the patient faces the reader


@dataclass(frozen=True)
class Change:
    """One finding that an edit changes, e.g. ``Change("pleural effusion", "add", side="left", severity="small")``."""

    finding: str
    direction: Direction
    side: str | None = None
    place: str | None = None
    severity: str | None = None


@dataclass(frozen=True)
class Edit:
    """What the user asked, resolved to prompts.

    ``source`` describes the image as it is (``""`` when nothing is known), ``target`` as it should become.
    ``region`` is the name of a body region; ``mask`` a bool tensor (H, W) at the factual's own size, or ``None``.
    ``keep`` lists findings that must stay; ``unkept`` is (source, target) without the words for them, ``None`` where nothing
    is kept, or only the words tell it from what changes (one side goes, the other stays).
    """

    source: str
    target: str
    changes: tuple[Change, ...] = ()
    region: str | None = None
    mask: Tensor | None = None
    keep: tuple[str, ...] = ()
    unkept: tuple[str, str] | None = None

    @property
    def is_null(self) -> bool:
        """True when source and target prompt are the same words."""
        return self.source == self.target

    def null(self) -> Edit:
        """The edit that changes nothing: source to source (its residue calibrates thresholds)."""
        return Edit(self.source, self.source, (), self.region, self.mask, self.keep)


@dataclass(frozen=True)
class Prediction:
    """One network evaluation, converted: both tensors have the latent's shape (B, C, h, w)."""

    clean: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Condition:
    """Everything a batch of prompts becomes. Indexing and ``Condition.cat`` work along the batch.

    ``tokens`` (B, L, D) text embeddings; ``pooled`` (B, P) or ``None``; ``mask`` (B, L) of 1 = real token, or ``None``;
    ``image`` (B, c, h, w), the latent of an image that the network sees beside the noisy one, or ``None``: only a backbone
    that ``sees_image`` heeds it.
    """

    tokens: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None
    image: Tensor | None = None

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Condition:
        if isinstance(index, int):
            index = [index]
        pick = lambda t: None if t is None else t[index]  # noqa: E731
        return Condition(self.tokens[index], pick(self.pooled), pick(self.mask), pick(self.image))

    def repeat(self, n: int) -> Condition:
        """Each row repeated ``n`` times in place: rows 0,0,1,1 for ``n = 2``."""
        rep = lambda t: None if t is None else t.repeat_interleave(n, 0)  # noqa: E731
        return Condition(self.tokens.repeat_interleave(n, 0), rep(self.pooled), rep(self.mask), rep(self.image))

    def beside(self, image: Tensor) -> Condition:
        """The condition with ``image`` (B, c, h, w) seen as well; a single row of words serves all of it."""
        words = self if len(self) == len(image) else self.repeat(len(image))
        return replace(words, image=image)

    @staticmethod
    def cat(conditions: Sequence[Condition]) -> Condition:
        """Conditions of the same family joined along the batch. ``ValueError`` where only some have an image."""
        return Condition(
            torch.cat([c.tokens for c in conditions]),
            _joined([c.pooled for c in conditions]),
            _joined([c.mask for c in conditions]),
            _joined([c.image for c in conditions]),
        )


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    if known and len(known) < len(parts):
        raise ValueError(f"{len(known)} of {len(parts)} conditions have a part that the others lack, such as an image")
    return torch.cat(known) if known else None


if TYPE_CHECKING:
    from counterscan.attribution import Attribution as Attribution
    from counterscan.result import Counterfactual as Counterfactual
else:

    def __getattr__(name: str) -> Any:
        """The answers are made in layers above: ``Counterfactual`` and ``Attribution`` are looked up when first asked for."""
        if name in ("Attribution", "Counterfactual"):
            return getattr(import_module("counterscan"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
