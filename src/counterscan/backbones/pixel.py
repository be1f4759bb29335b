"""Pixel-space U-Nets with any number of channels: unconditional, or conditional on a class with or without a null class.

On disk: diffusers' ``DDPMPipeline`` or ``DDIMPipeline`` folder (``unet`` a ``UNet2DModel``, ``scheduler``). What its classes
mean stands in the card: ``classes[i]`` are the words of class ``i``, such as "glioma", "no glioma", and "" for the class that
means nothing is known, which guidance leads away from.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from counterscan.backbones.card import Card
from counterscan.backbones.components import check_weights, open_diffusers, read_json, weight_files
from counterscan.backbones.quiet import quiet
from counterscan.diffusion import PredictionType, schedule_from_config, to_prediction
from counterscan.errors import ModelError, WordsError
from counterscan.types import Condition, Prediction


class Pixel:
    """The ``pixel`` family behind the ``Backbone`` waist. The latent is the image itself, in [-1, 1].

    ``Condition.tokens`` (B, 1, D) are rows of the class embedding; D is 0 for an unconditional model, which takes the
    prompt "" and refuses all others. ``evaluations`` counts U-Net evaluations per image.
    """

    family = "pixel"

    def __init__(self, folder: Path, unet: Any, scheduler: Mapping[str, Any], card: Card | None = None) -> None:
        self.folder, self.unet = folder, unet
        self.schedule = schedule_from_config(scheduler)
        self.scheduler_config = dict(scheduler)
        self.prediction_type: PredictionType = scheduler.get("prediction_type", "epsilon")
        self.card = card or _guess_card(folder, unet)
        self.device, self.dtype = unet.device, unet.dtype
        self.evaluations = 0
        self.classes = _classes(folder, self.card, unet)
        if self.classes:  # a class is looked up in ``embed``, so that an embedding can be anything there (null-text)
            unet.class_embedding.forward = lambda rows: rows

    @classmethod
    def open(cls, folder: Path, *, device: str = "cpu", dtype: torch.dtype | None = None) -> Pixel:
        """Open a local pipeline folder. Raises ``ModelError`` naming what is missing, unsafe, damaged or unfitting."""
        check_weights(folder / "unet")
        with quiet(), torch.random.fork_rng(devices=[]):
            from diffusers.models.unets.unet_2d import UNet2DModel

            unet = open_diffusers(UNet2DModel, folder / "unet")
            unet.to(device=device, dtype=dtype or torch.float32).eval().requires_grad_(False)
        scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
        try:
            return cls(folder, unet, scheduler, Card.read(folder))._checked()
        except ValueError as error:
            raise ModelError(f"{folder / 'scheduler' / 'scheduler_config.json'}: {error}") from error

    def __repr__(self) -> str:
        return f"<Pixel {self.card.name} {self.resolution}px {self.channels}ch {self.device}>"

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
        return self.unet.config.in_channels, self.resolution, self.resolution

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over the weights and the noise schedule."""
        digest = hashlib.sha256()
        for path in weight_files(self.folder / "unet"):
            digest.update(f"{path.name}:{path.stat().st_size}:".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        digest.update(json.dumps(self.scheduler_config, sort_keys=True, default=str).encode())
        return digest.hexdigest()[:16]

    def encode(self, image: Tensor) -> Tensor:
        """Image (B, C, H, W) in [0, 1] → the same in [-1, 1], float32."""
        if image.shape[1] != self.channels:
            raise ModelError(f"{self.card.name} takes images of {self.channels} channels, got {image.shape[1]}")
        return image.to(self.device, torch.float32) * 2 - 1

    def decode(self, z: Tensor) -> Tensor:
        """Latent → image (B, C, H, W) float32 in [0, 1]."""
        return (z.float() / 2 + 0.5).clamp(0, 1)

    def embed(self, prompts: Sequence[str]) -> Condition:
        """Prompts → one row of the class embedding each.

        Raises ``WordsError`` for words that no class has; warns, naming them, of words that a class leaves out.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        chosen = [self._class(prompt) for prompt in prompts]
        if not self.classes:
            return Condition(torch.zeros(len(prompts), 1, 0, device=self.device))
        return Condition(self.unet.class_embedding.weight[chosen][:, None])

    def predict(
        self, z: Tensor, t: Tensor | int, condition: Condition, *, level: Tensor | int | None = None
    ) -> Prediction:
        """ONE U-Net evaluation a row, differentiable in ``z`` and ``condition``. See ``Backbone.predict``."""
        rows = z.shape[0]
        if len(condition) not in (1, rows):
            raise ValueError(f"{len(condition)} condition rows for {rows} latents")
        times = torch.as_tensor(t, device=self.device).expand(rows)
        labels = None
        if self.classes:
            labels = condition.tokens[:, 0].to(self.device, self.dtype).expand(rows, -1)
        output = self.unet(z.to(self.device, self.dtype), times, class_labels=labels, return_dict=False)[0]
        self.evaluations += rows
        output = output[:, : z.shape[1]].float()  # a network that learned its variance puts that out behind
        signal, noise = self.schedule.coefficients(times if level is None else torch.as_tensor(level))
        return to_prediction(output, z.float().to(self.device), self.prediction_type, signal, noise)

    def _class(self, prompt: str) -> int:
        """The class of a prompt: that with the same phrases, whatever the head; "" without phrases."""
        asked = _phrases(prompt, self.card.template)
        known = [_phrases(words, "") for words in self.classes]
        if asked in known:
            return known.index(asked)
        if not self.classes:
            if asked:
                raise WordsError(
                    f"{self.card.name} is unconditional: it knows no words, so {prompt!r} means nothing to it"
                )
            return 0
        for index, phrases in enumerate(known):
            if len(asked) == len(phrases) > 0 and all(any(_says(a, k) for a in asked) for k in phrases):
                words = self.classes[index]
                warnings.warn(f"{self.card.name} knows {words!r} and no more: it cannot tell {prompt!r}", stacklevel=4)
                return index
        words = ", ".join(map(repr, self.classes))
        raise WordsError(f"{self.card.name} has no class for {prompt!r}; it has {words}")

    def _checked(self) -> Pixel:
        """The parts fit each other, or a ``ModelError`` that names what does not."""
        config = self.unet.config
        if config.in_channels != self.channels or config.out_channels not in (self.channels, 2 * self.channels):
            raise ModelError(
                f"{self.folder}: unet takes {config.in_channels} channels and gives {config.out_channels}, "
                f"the images have {self.channels}"
            )
        if self.prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise ModelError(f"{self.folder}/scheduler: prediction_type {self.prediction_type!r} is not known")
        return self


def _phrases(prompt: str, template: str) -> frozenset[str]:
    """The phrases behind a prompt's head ("brain mri, female: no glioma."); all of it where no head is."""
    text = " ".join(prompt.lower().split()).rstrip(".")
    _, colon, rest = text.rpartition(":")
    if not colon and template and text.split(",")[0] == template.lower():
        return frozenset()
    return frozenset(part for phrase in rest.split(",") if (part := phrase.strip()))


def _says(asked: str, known: str) -> bool:
    """What says "small left glioma" says "glioma" too; "no glioma" is another thing."""
    return asked == known or (asked.endswith(f" {known}") and not asked.startswith("no "))


def _classes(folder: Path, card: Card, unet: Any) -> tuple[str, ...]:
    """The words of every class; their numbers where no card has words; none for an unconditional network."""
    kind, number = unet.config.class_embed_type, unet.config.num_class_embeds
    if kind is not None:
        raise ModelError(f"{folder}: unet has class_embed_type {kind!r}; num_class_embeds alone is supported")
    if number is None:
        return ()
    words = card.classes or tuple(str(i) for i in range(number))
    if len(words) != number or len({_phrases(w, "") for w in words}) != number:
        raise ModelError(f"{folder}: the card names {len(words)} classes ({', '.join(words)}), unet has {number}")
    return words


def _guess_card(folder: Path, unet: Any) -> Card:
    """For a pipeline without a card: size and channels from the config, no findings."""
    side = unet.config.sample_size or 32
    side = side if isinstance(side, int) else side[0]
    return Card(folder.name, "pixel", channels=unet.config.in_channels, resolution=side)
