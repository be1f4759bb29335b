"""The module that is trained: a batch in, one loss an image out. Every family is trained through its backbone alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from counterscan.diffusion import PredictionType, add_noise, column, training_target
from counterscan.training import objective
from counterscan.training.config import Autoencoder, Config, Objective
from counterscan.types import Condition, Prediction


@dataclass(frozen=True)
class Batch:
    """Images (B, C, H, W) in [0, 1] or their latents (B, c, h, w), one caption each, and the numbers that were drawn.

    ``quantile`` (B,) chooses the timesteps, ``noise`` has the shape of the latents. Of pairs, which ``paired`` (B,) tells,
    ``before`` holds the latents that stand beside; zeros elsewhere, ``None`` where there are none.
    """

    captions: Sequence[str]
    quantile: Tensor
    noise: Tensor
    images: Tensor | None = None
    latents: Tensor | None = None
    before: Tensor | None = None
    paired: Tensor | None = None


class Denoiser(nn.Module):
    """Trains whatever lies between a caption and a denoised latent, of any family behind the waist."""

    def __init__(self, backbone: Any, parts: dict[str, nn.Module], settings: Objective) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.settings, self.backbone = settings, backbone
        learns = any(name.startswith("text_encoder") for name in parts)
        self.ask: Callable[[Sequence[str]], Condition] = backbone._condition if learns else backbone.embed
        self.kind: PredictionType = getattr(
            backbone, "prediction_type", "velocity" if backbone.schedule.is_flow else "epsilon"
        )

    def forward(self, batch: Batch) -> Tensor:
        """The weighted loss of each image (B,)."""
        backbone = self.backbone
        z = backbone.encode(batch.images) if batch.latents is None else batch.latents
        z = z.to(backbone.device, torch.float32)
        words, noise = self.condition(batch.captions), batch.noise.to(z.device)
        t = objective.times(batch.quantile, self.settings, len(backbone.schedule)).to(z.device)
        if batch.before is None or batch.paired is None:
            signal, level = backbone.schedule.coefficients(t)
            prediction = backbone.predict(add_noise(z, noise, signal, level), t, words)
            return self._error(prediction, z, noise, signal, level)
        before = batch.before.to(z)
        seen = (objective.seen(batch.quantile, self.settings.seen) & batch.paired).to(z.device)
        t = torch.where(seen, objective.seen_times(batch.quantile, len(backbone.schedule)).to(z.device), t)
        signal, level = backbone.schedule.coefficients(t)
        shown = torch.where(seen.view(-1, 1, 1, 1), column(signal, z) * before, add_noise(z, noise, signal, level))
        prediction = backbone.predict(shown, t, words.beside(before))
        weight = objective.where_changed(before, z, batch.paired, self.settings.changed)
        after = objective.error_after(prediction.clean, z, level, self.settings.loss, weight)
        return torch.where(seen, after, self._error(prediction, z, noise, signal, level, weight))

    def _error(
        self,
        prediction: Prediction,
        z: Tensor,
        noise: Tensor,
        signal: Tensor,
        level: Tensor,
        weight: Tensor | float = 1.0,
    ) -> Tensor:
        target = training_target(z, noise, self.kind, signal, level)
        answer = objective.answer(prediction, self.kind, signal, level)
        error = objective.error(answer, target, self.settings.loss, weight)
        return error * objective.weights(self.kind, signal, level, self.settings.min_snr)

    def condition(self, captions: Sequence[str]) -> Condition:
        """What the captions become; with gradients where the text encoder learns. ``ask`` may be a store of them."""
        return self.ask(captions)


class Reconstruction(nn.Module):
    """Trains an autoencoder on images: error, structural similarity, and the divergence of the posterior.

    Leave out the perceptual loss that others add: it needs weights of another network, of photographs.
    """

    def __init__(self, backbone: Any, settings: Autoencoder, kind: str) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"vae": backbone.vae})
        self.settings, self.loss, self.backbone = settings, kind, backbone

    def forward(self, batch: Batch) -> Tensor:
        """The loss of each image (B,)."""
        vae: Any = self.parts["vae"]
        if batch.images is None:
            raise ValueError("an autoencoder is trained on images, not on latents")
        x = batch.images.to(self.backbone.device)
        x = x.expand(-1, vae.config.in_channels, -1, -1) if x.shape[1] == 1 else x
        encoded = vae.encode(x * 2 - 1)
        if hasattr(encoded, "latent_dist"):
            posterior = encoded.latent_dist
            z = posterior.mean + posterior.std * batch.noise.to(x.device)
            divergence = posterior.kl()
        else:
            z = encoded.latents + self.settings.noise * batch.noise.to(x.device)
            divergence = x.new_zeros(len(x))
        y = vae.decode(z).sample.float() / 2 + 0.5
        value = objective.error(y, x, self.loss)
        if self.settings.ssim:
            value = value + self.settings.ssim * (1 - objective.structural(y, x))
        if self.settings.edges:
            value = value + self.settings.edges * objective.edges(y - x)
        return value + self.settings.kl * divergence


def build(backbone: Any, parts: dict[str, nn.Module], config: Config) -> nn.Module:
    """The learner of a run."""
    if "vae" in parts:
        return Reconstruction(backbone, config.autoencoder, config.objective.loss)
    return Denoiser(backbone, parts, config.objective)
