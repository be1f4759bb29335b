"""What an attention layer is to those who control it: queries, keys and values, and which of them belong to words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Attention:
    """One layer attending: ``query``, ``key``, ``value`` (rows, heads, positions, width); ``mask`` is added to scores.

    ``text`` are the keys that belong to the prompt: all in cross-attention, none in self-attention, some in joint
    attention. ``pixels`` are the queries that belong to the image.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    text: slice
    mask: Tensor | None = None
    scale: float | None = None

    @property
    def words(self) -> int:
        """How many keys belong to the prompt."""
        return self.text.stop - self.text.start

    @property
    def pixels(self) -> Tensor:
        """Indices of the queries that belong to the image; in self- and joint attention also of the image's keys."""
        queries, keys = self.query.shape[2], self.key.shape[2]
        image = torch.ones(queries, dtype=torch.bool, device=self.query.device)
        if self.words < keys == queries:
            image[self.text] = False
        return image.nonzero()[:, 0]

    def output(self) -> Tensor:
        """What the layer answers of itself: (rows, heads, queries, width)."""
        return functional.scaled_dot_product_attention(
            self.query, self.key, self.value, attn_mask=self.mask, scale=self.scale
        )

    def weights(self) -> Tensor:
        """The attention map (rows, heads, queries, keys), float32 or better; every query's sums to 1."""
        scale = self.query.shape[-1] ** -0.5 if self.scale is None else self.scale
        kind = torch.promote_types(self.query.dtype, torch.float32)
        scores = (self.query @ self.key.transpose(-1, -2)).to(kind) * scale
        if self.mask is not None:
            scores = scores.masked_fill(~self.mask, -torch.inf) if self.mask.dtype == torch.bool else scores + self.mask
        return scores.softmax(-1)

    def follow(self, weights: Tensor) -> Tensor:
        """What the layer answers under the given map."""
        return weights.to(self.value.dtype) @ self.value

    def with_image_of(self, source: slice, target: slice) -> Attention:
        """The rows of ``target`` look at the image as those of ``source`` do: their self-attention is the source's."""
        at, query, key = self.pixels, self.query.clone(), self.key.clone()
        query[target, :, at], key[target, :, at] = query[source, :, at], key[source, :, at]
        return replace(self, query=query, key=key)


Control = Callable[[Attention], Tensor]
