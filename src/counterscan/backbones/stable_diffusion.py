"""Stable Diffusion 1.x and 2.x and everything saved in their format, with any Hugging Face text encoder for CLIP, and
InstructPix2Pix (Brooks et al. 2023), whose U-Net sees an image beside the noisy latent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from counterscan.backbones.attention import Control
from counterscan.backbones.card import Card
from counterscan.backbones.components import autoencoder_class, open_diffusers, open_text, open_tokenizer, read_json
from counterscan.backbones.control import controlled
from counterscan.backbones.latent import Latent
from counterscan.backbones.text import longest, token_ids, word_pieces
from counterscan.errors import ModelError
from counterscan.types import Condition


class StableDiffusion(Latent):
    """The ``stable_diffusion`` family behind the ``Backbone`` waist. Build it with ``counterscan.load`` or ``open``."""

    family = "stable_diffusion"
    components = ("vae", "unet", "text_encoder")

    def __init__(
        self,
        folder: Path,
        vae: Any,
        unet: Any,
        text_encoder: Any,
        tokenizer: Any,
        scheduler: Mapping[str, Any],
        card: Card | None = None,
    ) -> None:
        side = unet.config.sample_size
        super().__init__(folder, vae, unet, scheduler, card, side=side if isinstance(side, int) else side[0])
        self.unet, self.text_encoder, self.tokenizer = unet, text_encoder, tokenizer
        self.sees_image = unet.config.in_channels == 2 * vae.config.latent_channels

    @classmethod
    def _open(cls, index: Mapping[str, Any], folder: Path, dtype: torch.dtype | None) -> dict[str, Any]:
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        return {
            "vae": open_diffusers(autoencoder_class(index, folder), folder / "vae"),
            "unet": open_diffusers(UNet2DConditionModel, folder / "unet", dtype),
            "text_encoder": open_text(index, folder),
            "tokenizer": open_tokenizer(index, folder),
        }

    def pieces(self, prompt: str) -> list[str]:
        """The pieces of words the text encoder sees, one a token; "" for padding and other special tokens."""
        return word_pieces(self.tokenizer, prompt, self._max_length)

    def controlled(self, control: Control) -> AbstractContextManager[None]:
        """See ``counterscan.backbones.base.Attentive``. Cross-attention has words only, self-attention none."""
        return controlled(self.unet, lambda keys, text: slice(0, keys if text else 0), control)

    def _condition(self, prompts: Sequence[str]) -> Condition:
        rows = self._embed(prompts)
        masks = [mask for _, mask in rows if mask is not None]
        return Condition(torch.stack([tokens for tokens, _ in rows]), None, torch.stack(masks) if masks else None)

    def _embed(self, prompts: Sequence[str]) -> list[tuple[Tensor, Tensor | None]]:
        batch = token_ids(self.tokenizer, prompts, self._max_length, self.card.name).to(self.device)
        # The rule of diffusers' own pipeline: the padding mask counts only for encoders that ask for it.
        masked = bool(getattr(self.text_encoder.config, "use_attention_mask", False))
        mask = batch["attention_mask"] if masked else None
        tokens = self.text_encoder(batch["input_ids"], attention_mask=mask)[0]
        return [(tokens[i], None if mask is None else mask[i]) for i in range(len(prompts))]

    def _network(self, z: Tensor, times: Tensor, tokens: Tensor, pooled: Tensor | None) -> Tensor:
        output: Tensor = self.unet(z, times, encoder_hidden_states=tokens, return_dict=False)[0]
        return output

    @property
    def _max_length(self) -> int:
        return longest(self.tokenizer, self.text_encoder)

    def _checked(self) -> Self:
        config, latent = self.unet.config, self.vae.config.latent_channels
        text, wanted = self.text_encoder.config.hidden_size, config.encoder_hid_dim or config.cross_attention_dim
        if text != wanted:
            raise ModelError(f"{self.folder}: text_encoder gives {text} numbers a token, unet takes {wanted}")
        made_by = str(read_json(self.folder / "model_index.json").get("_class_name", ""))
        # Marigold and the latent upscaler take twice the channels too, but in another order, or for something else
        beside = latent if made_by.startswith("StableDiffusion") and config.out_channels == latent else 0
        if config.in_channels not in (latent, latent + beside):
            raise ModelError(f"{self.folder}: vae has {latent} latent channels, unet takes {config.in_channels}")
        return super()._checked()
