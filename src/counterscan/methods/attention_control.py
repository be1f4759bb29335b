"""What prompt-to-prompt does to attention (Hertz et al. 2022): whose map a word of the target follows, and local blend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch
from torch import Tensor
from torch.nn import functional

from counterscan.backbones.attention import Attention
from counterscan.backbones.base import Attentive, Backbone
from counterscan.errors import WordsError

LARGEST_SELF = 32**2  # finer self-attention is left alone, as in the paper's code; joint attention has one size only
BLEND_FROM = 0.2  # local blend begins after this share of the steps, as in the paper's code


def attentive(backbone: Backbone, method: str) -> Attentive:
    """The backbone, if its attention to words can be controlled; ``WordsError`` before any work otherwise."""
    if not isinstance(backbone, Attentive):
        raise WordsError(
            f"method {method!r} controls attention to words, which {backbone.card.name} ({backbone.family}) "
            "does not offer; choose another method, or a model that reads words by attention"
        )
    return backbone


@dataclass(frozen=True)
class Alignment:
    """Which word of the source each word of the target follows.

    ``mapping`` (S, T) carries a source map to the target's words; ``own`` (T,) bool are the words that keep their own map.
    ``left`` (S,) and ``came`` (T,) bool are the words that only the source, only the target has.
    """

    mapping: Tensor
    own: Tensor
    left: Tensor
    came: Tensor

    @staticmethod
    def of(source: Sequence[str], target: Sequence[str], *, replace: bool) -> Alignment:
        """Align two prompts piece by piece; "" is padding. ``replace`` lets exchanged words follow those they replace.

        Several pieces share the map of those they replace, as in the paper's code.
        """
        mapping = torch.zeros(len(source), len(target))
        own, left, came = (torch.ones(n, dtype=torch.bool) for n in (len(target), len(source), len(target)))
        for kind, a, b, c, d in SequenceMatcher(a=source, b=target, autojunk=False).get_opcodes():
            if kind == "equal":
                mapping[range(a, b), range(c, d)] = 1
                left[a:b], came[c:d] = False, False
            elif kind == "replace" and replace:
                mapping[a:b, c:d] = 1 / (d - c)
            if mapping[a:b, c:d].any():
                own[c:d] = False
        words = lambda pieces: torch.tensor([piece != "" for piece in pieces])  # noqa: E731
        return Alignment(mapping, own, left & words(source), came & words(target))


class Steering:
    """The control of one way down with rows (source, negative, target), each ``batch`` images.

    ``cross`` and ``self_`` are the shares of the steps in which the target follows the source's maps; ``weight`` scales
    the maps of new words. Call ``at(progress)`` before every step; ``mask`` gives the local blend afterwards.
    """

    def __init__(self, alignment: Alignment, batch: int, *, cross: float, self_: float, weight: float) -> None:
        self.alignment, self.cross, self.self_, self.weight = alignment, cross, self_, weight
        self.source, self.target = slice(0, batch), slice(2 * batch, 3 * batch)
        self.progress = 0.0
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}  # pixels → maps (B, pixels) of words that left and came

    def at(self, progress: float) -> None:
        """A step begins that lies at this share of the way, in [0, 1)."""
        self.progress = progress

    def __call__(self, layer: Attention) -> Tensor:
        """Answer one attention layer (``counterscan.backbones.attention.Control``)."""
        keys = layer.key.shape[2]
        coarse = layer.words > 0 or layer.query.shape[2] <= LARGEST_SELF
        if layer.words < keys and coarse and self.progress < self.self_:
            layer = layer.with_image_of(self.source, self.target)
        if layer.words == 0:
            return layer.output()
        weights, pixels = layer.weights(), layer.pixels
        before = weights[self.source][:, :, pixels, layer.text]
        after = weights[self.target][:, :, pixels, layer.text]
        if self.progress < self.cross:
            after = self._led(before, after)
            block = weights[self.target]
            block[:, :, pixels, layer.text] = after
        self._note(before, after)
        return layer.follow(weights)

    def _led(self, before: Tensor, after: Tensor) -> Tensor:
        """The target's word maps (B, heads, pixels, T) under the source's."""
        own, came = (part.to(after.device) for part in (self.alignment.own, self.alignment.came))
        led = torch.where(own, after, before @ self.alignment.mapping.to(before))
        return torch.where(came, self.weight * led, led)

    def _note(self, before: Tensor, after: Tensor) -> None:
        left, came = (part.to(after.device) for part in (self.alignment.left, self.alignment.came))
        maps = before.mean(1)[..., left].sum(-1), after.mean(1)[..., came].sum(-1)
        size = maps[0].shape[1]
        old = self.seen.get(size, (torch.zeros_like(maps[0]), torch.zeros_like(maps[1])))
        self.seen[size] = old[0] + maps[0], old[1] + maps[1]

    def mask(self, like: Tensor, threshold: float) -> Tensor:
        """Where the words that differ draw attention, (B, 1, h, w) bool for latents ``like`` (B, c, h, w).

        As in the paper: maps of a quarter of the latent's side, grown by a pixel, above ``threshold`` of their largest.
        """
        height, width = like.shape[-2:]
        size = min(self.seen, key=lambda pixels: abs(pixels - height * width / 16))
        area = torch.zeros(len(like), 1, height, width, dtype=torch.bool, device=like.device)
        for words in self.seen[size]:
            map_ = words.reshape(len(like), 1, round(size**0.5), -1)
            map_ = functional.interpolate(functional.max_pool2d(map_, 3, stride=1, padding=1), size=(height, width))
            area |= map_ > threshold * map_.amax((1, 2, 3), keepdim=True)
        return area
