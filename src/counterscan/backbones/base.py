"""The narrow waist: the only thing an editing method sees of a model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from counterscan.backbones.attention import Control
from counterscan.backbones.card import Card
from counterscan.diffusion import Schedule
from counterscan.types import Condition, Prediction


@runtime_checkable
class Backbone(Protocol):
    """A diffusion model of any family, reduced to six verbs and a few facts."""

    family: str
    card: Card
    schedule: Schedule
    device: torch.device
    dtype: torch.dtype

    @property
    def resolution(self) -> int:
        """Side of the square images that ``encode`` takes, in pixels."""

    @property
    def channels(self) -> int:
        """Channels of the images that ``decode`` returns."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one latent."""

    @property
    def evaluations(self) -> int:
        """Network evaluations spent so far, counted per image: one ``predict`` of k rows counts k."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change when the weights do."""

    def encode(self, image: Tensor) -> Tensor:
        """Image float32 (B, C, H, W) in [0, 1] → latent float32 (B, c, h, w). Deterministic."""

    def decode(self, z: Tensor) -> Tensor:
        """Latent → image float32 (B, C, H, W), clamped to [0, 1]."""

    def embed(self, prompts: Sequence[str]) -> Condition:
        """One row of condition a prompt."""

    def predict(
        self, z: Tensor, t: Tensor | int, condition: Condition, *, level: Tensor | int | None = None
    ) -> Prediction:
        """ONE network evaluation a row of ``z`` (B, c, h, w) at timestep ``t``, scalar or (B,).

        One condition row serves all of ``z``.
        ``level`` is the timestep whose coefficients ``z`` really has, where that is not ``t``: inversion asks the
        network about the next timestep while holding the latent of the one before.
        """


@runtime_checkable
class Attentive(Protocol):
    """A backbone that also lets its attention be controlled: what prompt-to-prompt needs beyond the waist."""

    def pieces(self, prompt: str) -> list[str]:
        """The pieces of words a prompt becomes, one for each of ``Condition.tokens``; "" is padding and the like."""

    def controlled(self, control: Control) -> AbstractContextManager[None]:
        """Inside, ``control`` answers every attention layer of ``predict``; ``Attention.output`` is no change."""


def sees_image(backbone: Backbone) -> bool:
    """Whether ``predict`` heeds ``Condition.image`` (InstructPix2Pix): what a backbone may say beyond the waist."""
    return bool(getattr(backbone, "sees_image", False))
