"""What all families with an autoencoder share: images to latents and back, prompts by heart, and one evaluation a row.

Components are opened one by one, so that neither the pipeline class nor what it drags in is imported.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from counterscan.backbones.card import Card
from counterscan.backbones.components import check_weights, read_json, weight_files
from counterscan.backbones.quiet import quiet
from counterscan.diffusion import PredictionType, schedule_from_config, to_prediction
from counterscan.errors import ModelError
from counterscan.types import Condition, Prediction

CACHED_PROMPTS = 256


class Latent:
    """The ``Backbone`` of a latent diffusion model but for three things that each family adds.

    ``_open`` gives the family's components by name, ``_condition`` what prompts become, ``_network`` the network's raw
    output. ``evaluations`` counts evaluations of the denoiser per image: a batched call of k rows counts k.
    """

    family: str = "latent"
    sees_image: bool = False
    components: ClassVar[
        tuple[str, ...]
    ] = ()  # the folders that hold weights; those that the index leaves empty do not

    def __init__(
        self, folder: Path, vae: Any, network: Any, scheduler: Mapping[str, Any], card: Card | None, *, side: int
    ) -> None:
        self.folder, self.vae = folder, vae
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.scheduler_config = dict(scheduler)
        self.schedule = schedule_from_config(scheduler)
        self.prediction_type: PredictionType = (
            "velocity" if self.schedule.is_flow else scheduler.get("prediction_type", "epsilon")
        )
        # without a card: size and channels from the configs, no findings
        self.card = card or Card(
            folder.name, self.family, channels=vae.config.in_channels, resolution=side * self.factor
        )
        self.device, self.dtype = network.device, network.dtype
        self.evaluations = 0
        self._prompts: OrderedDict[str, Condition] = OrderedDict()

    @classmethod
    def open(cls, folder: Path, *, device: str = "cpu", dtype: torch.dtype | None = None) -> Self:
        """Open a local pipeline folder. Raises ``ModelError`` naming what is missing, unsafe, damaged or unfitting."""
        index = read_json(folder / "model_index.json")
        for name in cls.held(index):
            check_weights(folder / name)
        with quiet(), torch.random.fork_rng(devices=[]):
            parts = cls._open(index, folder, dtype)
            for module in parts.values():
                if isinstance(module, nn.Module):
                    module.to(device=device, dtype=_kind(module, dtype)).eval().requires_grad_(False)
        scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
        try:
            return cls(folder, scheduler=scheduler, card=Card.read(folder), **parts)._checked()
        except ValueError as error:
            raise ModelError(f"{folder / 'scheduler' / 'scheduler_config.json'}: {error}") from error

    @classmethod
    def held(cls, index: Mapping[str, Any]) -> list[str]:
        """The components that this model's ``model_index.json`` does not leave empty."""
        return [name for name in cls.components if index.get(name) != [None, None]]

    @classmethod
    def _open(cls, index: Mapping[str, Any], folder: Path, dtype: torch.dtype | None) -> dict[str, Any]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.card.name} {self.resolution}px {self.channels}ch {self.device}>"

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
        side = self.resolution // self.factor
        return self.vae.config.latent_channels, side, side

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over the weights and the noise schedule."""
        digest = hashlib.sha256()
        index = read_json(self.folder / "model_index.json")
        for path in [p for name in self.held(index) for p in weight_files(self.folder / name)]:
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
        encoded = self.vae.encode((image * 2 - 1).to(self.device, self.vae.dtype))
        # AutoencoderTiny and VQModel have no posterior: their latents are deterministic by design
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        shift, scale = self._affine
        return (latents.float() - shift) * scale

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Latent → image (B, C, H, W) float32 in [0, 1]; averaged over channels if the card says grey."""
        shift, scale = self._affine
        image = self._decoded((z / scale + shift).to(self.device, self.vae.dtype)).float()
        if self.channels == 1:
            image = image.mean(1, keepdim=True)
        return (image / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Condition:
        """Prompts → one row of condition each. Warns, naming the words, when a prompt is too long."""
        if isinstance(prompts, str):
            prompts = [prompts]
        fresh = [p for p in dict.fromkeys(prompts) if p not in self._prompts]
        if fresh:
            rows = self._condition(fresh)
            for i, prompt in enumerate(fresh):
                self._prompts[prompt] = rows[i]
        chosen = [self._prompts[p] for p in prompts]
        for prompt in prompts:
            self._prompts.move_to_end(prompt)
        while len(self._prompts) > CACHED_PROMPTS:
            self._prompts.popitem(last=False)
        return Condition.cat(chosen)

    def predict(
        self, z: Tensor, t: Tensor | int, condition: Condition, *, level: Tensor | int | None = None
    ) -> Prediction:
        """ONE evaluation of the denoiser a row, differentiable in ``z`` and ``condition``. See ``Backbone.predict``."""
        rows = z.shape[0]
        if len(condition) not in (1, rows):
            raise ValueError(f"{len(condition)} condition rows for {rows} latents")
        times = torch.as_tensor(t, device=self.device).expand(rows)
        tokens = condition.tokens.to(self.device, self.dtype).expand(rows, -1, -1)
        pooled = condition.pooled
        pooled = None if pooled is None else pooled.to(self.device, self.dtype).expand(rows, -1)
        shown = z if not self.sees_image else torch.cat([z, self._beside(z, condition.image)], 1)
        output = self._network(shown.to(self.device, self.dtype), times, tokens, pooled)
        self.evaluations += rows
        signal, noise = self.schedule.coefficients(times if level is None else torch.as_tensor(level))
        return to_prediction(output.float(), z.float().to(self.device), self.prediction_type, signal, noise)

    def _beside(self, z: Tensor, image: Tensor | None) -> Tensor:
        """What stands beside ``z``: the autoencoder's own latent, as diffusers' InstructPix2Pix pipeline gives it, or nothing."""
        if image is None:
            return torch.zeros_like(z)
        shift, scale = self._affine
        return image.to(z).expand_as(z) / scale + shift

    def _condition(self, prompts: Sequence[str]) -> Condition:
        raise NotImplementedError

    def _network(self, z: Tensor, times: Tensor, tokens: Tensor, pooled: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _decoded(self, z: Tensor) -> Tensor:
        decoded: Tensor = self.vae.decode(z).sample
        return decoded

    @property
    def _affine(self) -> tuple[float, float]:
        """(shift, scale): latent = (encoded - shift) * scale."""
        config = self.vae.config
        return getattr(config, "shift_factor", None) or 0.0, config.scaling_factor

    def _checked(self) -> Self:
        """The components fit each other, or a ``ModelError`` that names the two that do not."""
        known = ("epsilon", "v_prediction", "sample", "velocity")
        if self.prediction_type not in known:
            raise ModelError(f"{self.folder}/scheduler: prediction_type {self.prediction_type!r} is not known")
        return self


def _kind(module: nn.Module, dtype: torch.dtype | None) -> torch.dtype:
    """The number format of a component: float16 is too narrow for autoencoders that say so."""
    narrow = dtype == torch.float16 and getattr(module.config, "force_upcast", False)
    return torch.float32 if dtype is None or narrow else dtype
