"""FLUX.1: flow matching in a transformer over patches of 2 x 2 latents, with T5 for the words and CLIP for the whole prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from counterscan.backbones.attention import Control
from counterscan.backbones.card import Card
from counterscan.backbones.components import autoencoder_class, open_diffusers, open_text, open_tokenizer
from counterscan.backbones.control import controlled
from counterscan.backbones.flow import shifted_schedule
from counterscan.backbones.latent import Latent
from counterscan.backbones.text import longest, token_ids, word_pieces
from counterscan.errors import ModelError
from counterscan.types import Condition

SIDE = 128  # latents a side of the images that the family was trained on; its configs do not say
DISTILLED = 3.5  # the guidance that a distilled model ("dev") is told; the methods' own guidance comes on top


class Flux(Latent):
    """The ``flux`` family behind the ``Backbone`` waist. Build it with ``counterscan.load`` or ``open``.

    ``Condition.tokens`` are T5's, ``pooled`` is CLIP's.
    """

    family = "flux"
    components = ("vae", "transformer", "text_encoder", "text_encoder_2")

    def __init__(
        self,
        folder: Path,
        vae: Any,
        transformer: Any,
        text_encoder: Any,
        text_encoder_2: Any,
        tokenizer: Any,
        tokenizer_2: Any,
        scheduler: Mapping[str, Any],
        card: Card | None = None,
    ) -> None:
        super().__init__(folder, vae, transformer, scheduler, card, side=SIDE)
        self.schedule = shifted_schedule(scheduler, (self.latent_shape[1] // 2) ** 2)
        self.transformer = transformer
        self.text_encoder, self.text_encoder_2 = text_encoder, text_encoder_2
        self.tokenizer, self.tokenizer_2 = tokenizer, tokenizer_2

    @classmethod
    def _open(cls, index: Mapping[str, Any], folder: Path, dtype: torch.dtype | None) -> dict[str, Any]:
        from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

        return {
            "vae": open_diffusers(autoencoder_class(index, folder), folder / "vae"),
            "transformer": open_diffusers(FluxTransformer2DModel, folder / "transformer", dtype),
            "text_encoder": open_text(index, folder, pooled=True),
            "text_encoder_2": open_text(index, folder, "text_encoder_2"),
            "tokenizer": open_tokenizer(index, folder),
            "tokenizer_2": open_tokenizer(index, folder, "tokenizer_2"),
        }

    def pieces(self, prompt: str) -> list[str]:
        """The pieces of words that T5 sees, one a token; "" for padding and other special tokens."""
        return word_pieces(self.tokenizer_2, prompt, self._length)

    def controlled(self, control: Control) -> AbstractContextManager[None]:
        """See ``counterscan.backbones.base.Attentive``. All layers have the words first, then the image."""
        return controlled(self.transformer, lambda keys, text: slice(0, self._length), control)

    @property
    def _length(self) -> int:
        return longest(self.tokenizer_2, self.text_encoder_2)

    def _condition(self, prompts: Sequence[str]) -> Condition:
        name = self.card.name
        short = token_ids(self.tokenizer, prompts, longest(self.tokenizer, self.text_encoder), name)["input_ids"]
        ids = token_ids(self.tokenizer_2, prompts, self._length, name)["input_ids"]
        pooled = self.text_encoder(short.to(self.device)).pooler_output
        return Condition(self.text_encoder_2(ids.to(self.device))[0], pooled)

    def _network(self, z: Tensor, times: Tensor, tokens: Tensor, pooled: Tensor | None) -> Tensor:
        height, width = z.shape[2] // 2, z.shape[3] // 2
        patches = z.unflatten(2, (height, 2)).unflatten(4, (width, 2)).permute(0, 2, 4, 1, 3, 5)
        places = torch.zeros(height, width, 3, device=self.device)
        places[..., 1] = torch.arange(height, device=self.device)[:, None]
        places[..., 2] = torch.arange(width, device=self.device)
        guided = self.transformer.config.guidance_embeds
        output: Tensor = self.transformer(
            hidden_states=patches.flatten(3).flatten(1, 2),
            timestep=self.schedule.coefficients(times)[1],  # the network counts its time by the noise level
            guidance=torch.full_like(times, DISTILLED, dtype=torch.float32) if guided else None,
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
            txt_ids=torch.zeros(tokens.shape[1], 3, device=self.device),
            img_ids=places.flatten(0, 1),
            return_dict=False,
        )[0]
        image = output.unflatten(1, (height, width)).unflatten(3, (-1, 2, 2)).permute(0, 3, 1, 4, 2, 5)
        return image.flatten(4).flatten(2, 3)

    def _checked(self) -> Self:
        config, latent = self.transformer.config, self.vae.config.latent_channels
        if 4 * latent != config.in_channels:
            raise ModelError(
                f"{self.folder}: vae has {latent} latent channels, transformer takes {config.in_channels / 4:g}"
            )
        words, whole = self.text_encoder_2.config.d_model, self.text_encoder.config.hidden_size
        if words != config.joint_attention_dim:
            raise ModelError(
                f"{self.folder}: text_encoder_2 gives {words} numbers a token, transformer takes {config.joint_attention_dim}"
            )
        if whole != config.pooled_projection_dim:
            raise ModelError(
                f"{self.folder}: text_encoder pools to {whole} numbers, transformer takes {config.pooled_projection_dim}"
            )
        return super()._checked()
