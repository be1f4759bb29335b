"""Stable Diffusion XL: two text encoders side by side, and a U-Net that is also told the size of the picture."""

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
from counterscan.backbones.latent import Latent
from counterscan.backbones.text import longest, token_ids, word_pieces
from counterscan.errors import ModelError
from counterscan.types import Condition


class Sdxl(Latent):
    """The ``sdxl`` family behind the ``Backbone`` waist. Build it with ``counterscan.load`` or ``open``.

    As in diffusers, the tokens are the last hidden layers but one of both encoders, the pooled vector is that of the second,
    and the empty prompt is zeros where the model says so. The U-Net is told the card's resolution, uncropped.
    """

    family = "sdxl"
    components = ("vae", "unet", "text_encoder", "text_encoder_2")

    def __init__(
        self,
        folder: Path,
        vae: Any,
        unet: Any,
        text_encoder: Any,
        text_encoder_2: Any,
        tokenizer: Any,
        tokenizer_2: Any,
        zero_empty: bool,
        scheduler: Mapping[str, Any],
        card: Card | None = None,
    ) -> None:
        super().__init__(folder, vae, unet, scheduler, card, side=unet.config.sample_size)
        self.unet, self.zero_empty = unet, zero_empty
        self.text_encoder, self.text_encoder_2 = text_encoder, text_encoder_2
        self.tokenizer, self.tokenizer_2 = tokenizer, tokenizer_2

    @classmethod
    def _open(cls, index: Mapping[str, Any], folder: Path, dtype: torch.dtype | None) -> dict[str, Any]:
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        if "text_encoder" not in cls.held(index):
            raise ModelError(f"{folder}: an SDXL refiner; only base models, with both text encoders, are supported")
        return {
            "vae": open_diffusers(autoencoder_class(index, folder), folder / "vae"),
            "unet": open_diffusers(UNet2DConditionModel, folder / "unet", dtype),
            "text_encoder": open_text(index, folder),
            "text_encoder_2": open_text(index, folder, "text_encoder_2"),
            "tokenizer": open_tokenizer(index, folder),
            "tokenizer_2": open_tokenizer(index, folder, "tokenizer_2"),
            "zero_empty": bool(index.get("force_zeros_for_empty_prompt", True)),
        }

    def pieces(self, prompt: str) -> list[str]:
        """The pieces of words the text encoders see, one a token; "" for padding and other special tokens."""
        return word_pieces(self.tokenizer, prompt, longest(self.tokenizer, self.text_encoder))

    def controlled(self, control: Control) -> AbstractContextManager[None]:
        """See ``counterscan.backbones.base.Attentive``. Cross-attention has words only, self-attention none."""
        return controlled(self.unet, lambda keys, text: slice(0, keys if text else 0), control)

    def _condition(self, prompts: Sequence[str]) -> Condition:
        tokens = []
        pairs = (self.tokenizer, self.text_encoder), (self.tokenizer_2, self.text_encoder_2)
        for tokenizer, encoder in pairs:
            batch = token_ids(tokenizer, prompts, longest(tokenizer, encoder), self.card.name)
            output = encoder(batch["input_ids"].to(self.device), output_hidden_states=True)
            tokens.append(output.hidden_states[-2])
        condition = Condition(torch.cat(tokens, -1), output.text_embeds)
        if not self.zero_empty:
            return condition
        said = torch.tensor([float(prompt != "") for prompt in prompts], device=self.device, dtype=self.dtype)
        return Condition(condition.tokens * said[:, None, None], output.text_embeds * said[:, None])

    def _network(self, z: Tensor, times: Tensor, tokens: Tensor, pooled: Tensor | None) -> Tensor:
        side = float(self.resolution)
        sizes = torch.tensor([side, side, 0, 0, side, side], device=self.device, dtype=self.dtype)
        added = {"text_embeds": pooled, "time_ids": sizes.expand(z.shape[0], -1)}
        output: Tensor = self.unet(z, times, encoder_hidden_states=tokens, added_cond_kwargs=added, return_dict=False)[
            0
        ]
        return output

    def _checked(self) -> Self:
        text = self.text_encoder.config.hidden_size + self.text_encoder_2.config.hidden_size
        config = self.unet.config
        if text != config.cross_attention_dim:
            raise ModelError(
                f"{self.folder}: both text encoders give {text} numbers a token, unet takes {config.cross_attention_dim}"
            )
        added = 6 * config.addition_time_embed_dim + self.text_encoder_2.config.projection_dim
        if added != config.projection_class_embeddings_input_dim:
            raise ModelError(
                f"{self.folder}: text_encoder_2 and six sizes make {added} numbers, "
                f"unet takes {config.projection_class_embeddings_input_dim}"
            )
        if self.vae.config.latent_channels != config.in_channels:
            raise ModelError(
                f"{self.folder}: vae has {self.vae.config.latent_channels} latent channels, unet takes {config.in_channels}"
            )
        return super()._checked()
