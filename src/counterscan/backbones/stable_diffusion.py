"""Stable Diffusion 1.x and 2.x and everything saved in their format, with any Hugging Face text encoder for CLIP.

Components are opened one by one, so that neither the pipeline class nor what it drags in is imported.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from counterscan.backbones.attention import Control
from counterscan.backbones.card import Card
from counterscan.backbones.components import (
    autoencoder_class,
    check_weights,
    open_diffusers,
    open_text,
    open_tokenizer,
    read_json,
    weight_files,
    word_pieces,
)
from counterscan.backbones.control import controlled
from counterscan.backbones.quiet import quiet
from counterscan.diffusion import PredictionType, schedule_from_config, to_prediction
from counterscan.errors import ModelError
from counterscan.types import Condition, Prediction

COMPONENTS = ("vae", "unet", "text_encoder")
CACHED_PROMPTS = 256


class StableDiffusion:
    """The ``stable_diffusion`` family behind the ``Backbone`` waist. Build it with ``counterscan.load`` or ``open``.

    ``evaluations`` counts U-Net evaluations per image: a batched call of k rows counts k.
    """

    family = "stable_diffusion"

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
        self.folder, self.vae, self.unet, self.text_encoder, self.tokenizer = folder, vae, unet, text_encoder, tokenizer
        self.schedule = schedule_from_config(scheduler)
        self.scheduler_config = dict(scheduler)
        self.prediction_type: PredictionType = scheduler.get("prediction_type", "epsilon")
        self.card = card or _guess_card(folder, vae, unet)
        self.device, self.dtype = unet.device, unet.dtype
        self.evaluations = 0
        self._prompts: OrderedDict[str, tuple[Tensor, Tensor | None]] = OrderedDict()

    @classmethod
    def open(cls, folder: Path, *, device: str = "cpu", dtype: torch.dtype | None = None) -> StableDiffusion:
        """Open a local pipeline folder. Raises ``ModelError`` naming what is missing, unsafe, damaged or unfitting."""
        index = read_json(folder / "model_index.json")
        for component in COMPONENTS:
            check_weights(folder / component)
        with quiet(), torch.random.fork_rng(devices=[]):
            from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

            vae = open_diffusers(autoencoder_class(index, folder), folder / "vae")
            unet = open_diffusers(UNet2DConditionModel, folder / "unet")
            text_encoder = open_text(index, folder)
            tokenizer = open_tokenizer(index, folder)
            for module in (vae, unet, text_encoder):
                module.to(device=device, dtype=dtype or torch.float32).eval().requires_grad_(False)
        scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
        try:
            return cls(folder, vae, unet, text_encoder, tokenizer, scheduler, Card.read(folder))._checked()
        except ValueError as error:
            raise ModelError(f"{folder / 'scheduler' / 'scheduler_config.json'}: {error}") from error

    def __repr__(self) -> str:
        return f"<StableDiffusion {self.card.name} {self.resolution}px {self.channels}ch {self.device}>"

    @property
    def resolution(self) -> int:
        """Side of the square images that ``encode`` takes, in pixels."""
        return self.card.resolution

    @property
    def channels(self) -> int:
        """Channels of the images that ``decode`` returns."""
        return self.card.channels

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one latent."""
        side = self.resolution // 2 ** (len(self.vae.config.block_out_channels) - 1)
        return self.vae.config.latent_channels, side, side

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over the weights and the noise schedule."""
        digest = hashlib.sha256()
        for path in [p for c in COMPONENTS for p in weight_files(self.folder / c)]:
            digest.update(f"{path.parent.name}/{path.name}:{path.stat().st_size}:".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        digest.update(json.dumps(self.scheduler_config, sort_keys=True, default=str).encode())
        return digest.hexdigest()[:16]

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Image (B, C, H, W) in [0, 1] → scaled posterior mean. A grey image is repeated for a colour model."""
        wanted = self.vae.config.in_channels
        if image.shape[1] == 1 and wanted != 1:
            image = image.expand(-1, wanted, -1, -1)
        if image.shape[1] != wanted:
            raise ModelError(f"{self.card.name} takes images of {wanted} channels, got {image.shape[1]}")
        encoded = self.vae.encode((image * 2 - 1).to(self.device, self.dtype))
        # AutoencoderTiny has no posterior: its latents are deterministic by design
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return (latents.float() - shift) * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Latent → image (B, C, H, W) float32 in [0, 1]; averaged over channels if the card says grey."""
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        z = z / self.vae.config.scaling_factor + shift
        image = self.vae.decode(z.to(self.device, self.dtype)).sample.float()
        if self.channels == 1:
            image = image.mean(1, keepdim=True)
        return (image / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Condition:
        """Prompts → token embeddings, one row each. Warns, naming the words, when a prompt is too long."""
        if isinstance(prompts, str):
            prompts = [prompts]
        fresh = [p for p in dict.fromkeys(prompts) if p not in self._prompts]
        if fresh:
            for prompt, row in zip(fresh, self._embed(fresh), strict=True):
                self._prompts[prompt] = row
        rows = [self._prompts[p] for p in prompts]
        for prompt in prompts:
            self._prompts.move_to_end(prompt)
        while len(self._prompts) > CACHED_PROMPTS:
            self._prompts.popitem(last=False)
        tokens = torch.stack([tokens for tokens, _ in rows])
        mask = None if rows[0][1] is None else torch.stack([mask for _, mask in rows if mask is not None])
        return Condition(tokens, None, mask)

    def predict(
        self, z: Tensor, t: Tensor | int, condition: Condition, *, level: Tensor | int | None = None
    ) -> Prediction:
        """ONE U-Net evaluation a row, differentiable in ``z`` and ``condition``. See ``Backbone.predict``."""
        rows = z.shape[0]
        if len(condition) not in (1, rows):
            raise ValueError(f"{len(condition)} condition rows for {rows} latents")
        times = torch.as_tensor(t, device=self.device).expand(rows)
        tokens = condition.tokens.to(self.device, self.dtype).expand(rows, -1, -1)
        output = self.unet(z.to(self.device, self.dtype), times, encoder_hidden_states=tokens, return_dict=False)[0]
        self.evaluations += rows
        signal, noise = self.schedule.coefficients(times if level is None else torch.as_tensor(level))
        return to_prediction(output.float(), z.float().to(self.device), self.prediction_type, signal, noise)

    def pieces(self, prompt: str) -> list[str]:
        """The pieces of words the text encoder sees, one a token; "" for padding and other special tokens."""
        return word_pieces(self.tokenizer, prompt, self._max_length)

    def controlled(self, control: Control) -> AbstractContextManager[None]:
        """See ``counterscan.backbones.base.Attentive``. Cross-attention has words only, self-attention none."""
        return controlled(self.unet, lambda keys, text: slice(0, keys if text else 0), control)

    def _embed(self, prompts: Sequence[str]) -> list[tuple[Tensor, Tensor | None]]:
        limit = self._max_length
        for prompt in prompts:
            ids = self.tokenizer(prompt, truncation=False, verbose=False)["input_ids"]
            if len(ids) > limit:
                cut = self.tokenizer.decode(ids[limit - 1 : -1])
                warnings.warn(
                    f"the prompt is too long for {self.card.name} ({len(ids)} of {limit} tokens); cut: {cut!r}",
                    stacklevel=3,
                )
        batch = self.tokenizer(
            list(prompts), padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
        ).to(self.device)
        # The rule of diffusers' own pipeline: the padding mask counts only for encoders that ask for it.
        masked = bool(getattr(self.text_encoder.config, "use_attention_mask", False))
        mask = batch["attention_mask"] if masked else None
        tokens = self.text_encoder(batch["input_ids"], attention_mask=mask)[0]
        return [(tokens[i], None if mask is None else mask[i]) for i in range(len(prompts))]

    @property
    def _max_length(self) -> int:
        positions = getattr(self.text_encoder.config, "max_position_embeddings", 77)
        return int(min(self.tokenizer.model_max_length, positions))

    def _checked(self) -> StableDiffusion:
        """The components fit each other, or a ``ModelError`` that names the two that do not."""
        text = self.text_encoder.config.hidden_size
        cross = self.unet.config.encoder_hid_dim or self.unet.config.cross_attention_dim  # a projection may lie between
        if text != cross:
            raise ModelError(f"{self.folder}: text_encoder gives {text} numbers a token, unet takes {cross}")
        latent, wanted = self.vae.config.latent_channels, self.unet.config.in_channels
        if latent != wanted:
            raise ModelError(f"{self.folder}: vae has {latent} latent channels, unet takes {wanted}")
        if self.prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise ModelError(f"{self.folder}/scheduler: prediction_type {self.prediction_type!r} is not known")
        return self


def _guess_card(folder: Path, vae: Any, unet: Any) -> Card:
    """For a pipeline without a card: size and channels from the configs, no findings."""
    side = unet.config.sample_size
    side = side if isinstance(side, int) else side[0]
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    return Card(folder.name, channels=vae.config.in_channels, resolution=side * factor)
