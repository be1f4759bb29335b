"""Stable Diffusion 3 and 3.5: flow matching in a transformer that reads the words of two CLIP encoders and of T5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from counterscan.backbones.attention import Control
from counterscan.backbones.card import Card
from counterscan.backbones.components import autoencoder_class, open_diffusers, open_text, open_tokenizer
from counterscan.backbones.control import controlled
from counterscan.backbones.flow import shifted_schedule
from counterscan.backbones.latent import Latent
from counterscan.backbones.text import longest, token_ids, word_pieces
from counterscan.errors import ModelError
from counterscan.types import Condition

T5_TOKENS = 256  # diffusers' default for this family


class Sd3(Latent):
    """The ``sd3`` family behind the ``Backbone`` waist. Build it with ``counterscan.load`` or ``open``.

    As in diffusers, the tokens are those of both CLIP encoders side by side, then those of T5, for which zeros stand where a
    folder has no ``text_encoder_3``; the pooled vector is that of both CLIP encoders.
    """

    family = "sd3"
    components = ("vae", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")

    def __init__(
        self, folder: Path, vae: Any, transformer: Any, scheduler: Mapping[str, Any], card: Card | None, **text: Any
    ) -> None:
        super().__init__(folder, vae, transformer, scheduler, card, side=transformer.config.sample_size)
        patches = (self.latent_shape[1] // transformer.config.patch_size) ** 2
        self.schedule = shifted_schedule(scheduler, patches)
        self.transformer = transformer
        self.clip = [(text["tokenizer"], text["text_encoder"]), (text["tokenizer_2"], text["text_encoder_2"])]
        self.t5: tuple[Any, Any] | None = (
            (text["tokenizer_3"], text["text_encoder_3"]) if text.get("text_encoder_3") is not None else None
        )

    @classmethod
    def _open(cls, index: Mapping[str, Any], folder: Path, dtype: torch.dtype | None) -> dict[str, Any]:
        from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

        parts: dict[str, Any] = {
            "vae": open_diffusers(autoencoder_class(index, folder), folder / "vae"),
            "transformer": open_diffusers(SD3Transformer2DModel, folder / "transformer", dtype),
        }
        for number in ("", "_2", "_3"):
            if f"text_encoder{number}" in cls.held(index):
                parts[f"text_encoder{number}"] = open_text(index, folder, f"text_encoder{number}")
                parts[f"tokenizer{number}"] = open_tokenizer(index, folder, f"tokenizer{number}")
            elif number != "_3":
                raise ModelError(f"{folder}: text_encoder{number} is missing; only T5 (text_encoder_3) may be left out")
        return parts

    def pieces(self, prompt: str) -> list[str]:
        """The pieces of words for CLIP, then those for T5; "" for padding and other special tokens."""
        tokenizer, encoder = self.clip[0]
        clip = word_pieces(tokenizer, prompt, longest(tokenizer, encoder))
        return clip + (word_pieces(self.t5[0], prompt, T5_TOKENS) if self.t5 else [""] * T5_TOKENS)

    def controlled(self, control: Control) -> AbstractContextManager[None]:
        """See ``counterscan.backbones.base.Attentive``. Joint attention has the image first, then the words."""
        return controlled(self.transformer, lambda keys, text: slice(keys - (text or 0), keys), control)

    def _condition(self, prompts: Sequence[str]) -> Condition:
        tokens, pooled = [], []
        for tokenizer, encoder in self.clip:
            ids = token_ids(tokenizer, prompts, longest(tokenizer, encoder), self.card.name)["input_ids"]
            output = encoder(ids.to(self.device), output_hidden_states=True)
            tokens.append(output.hidden_states[-2])
            pooled.append(output.text_embeds)
        clip = torch.cat(tokens, -1)
        width = self.transformer.config.joint_attention_dim
        clip = functional.pad(clip, (0, width - clip.shape[-1]))
        if self.t5:
            tokenizer, encoder = self.t5
            ids = token_ids(tokenizer, prompts, T5_TOKENS, self.card.name)["input_ids"]
            t5 = encoder(ids.to(self.device))[0].to(clip.dtype)
        else:
            t5 = clip.new_zeros(len(prompts), T5_TOKENS, width)
        return Condition(torch.cat([clip, t5], 1), torch.cat(pooled, -1))

    def _network(self, z: Tensor, times: Tensor, tokens: Tensor, pooled: Tensor | None) -> Tensor:
        # the network counts its time by the noise level, in thousandths
        level = self.schedule.coefficients(times)[1] * 1000
        output: Tensor = self.transformer(
            hidden_states=z,
            timestep=level,
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
            return_dict=False,
        )[0]
        return output

    def _checked(self) -> Self:
        config = self.transformer.config
        clip = [encoder.config for _, encoder in self.clip]
        pooled = sum(c.projection_dim for c in clip)
        if pooled != config.pooled_projection_dim:
            raise ModelError(
                f"{self.folder}: both CLIP encoders pool to {pooled} numbers, "
                f"transformer takes {config.pooled_projection_dim}"
            )
        wide = self.t5[1].config.d_model if self.t5 else config.joint_attention_dim
        if wide != config.joint_attention_dim or sum(c.hidden_size for c in clip) > wide:
            raise ModelError(
                f"{self.folder}: text_encoder_3 gives {wide} numbers a token and the other two "
                f"{sum(c.hidden_size for c in clip)}, transformer takes {config.joint_attention_dim}"
            )
        if self.vae.config.latent_channels != config.in_channels:
            raise ModelError(
                f"{self.folder}: vae has {self.vae.config.latent_channels} latent channels, "
                f"transformer takes {config.in_channels}"
            )
        return super()._checked()
