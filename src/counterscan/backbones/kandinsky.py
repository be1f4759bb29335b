"""Kandinsky 2.2: a prior turns the prompt into an image embedding, which is all that the decoder's U-Net is told.

On disk: the folder of diffusers' ``KandinskyV22CombinedPipeline``; or that of the decoder (``KandinskyV22Pipeline``) beside the
folder of the prior (``KandinskyV22PriorPipeline``), named alike but for "decoder" and "prior", as on the hub.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from counterscan.backbones.card import Card
from counterscan.backbones.components import check_weights, open_diffusers, open_text, open_tokenizer, read_json
from counterscan.backbones.latent import Latent
from counterscan.backbones.text import longest, token_ids
from counterscan.errors import ModelError
from counterscan.types import Condition

PRIOR_STEPS, PRIOR_GUIDANCE = 25, 4.0  # diffusers' defaults
PRIOR = ("prior", "image_encoder", "text_encoder", "tokenizer", "scheduler")


class Kandinsky(Latent):
    """The ``kandinsky`` family behind the ``Backbone`` waist. Build it with ``counterscan.load`` or ``open``.

    ``Condition.tokens`` (B, 1, D) are image embeddings. The prior draws them from noise: always from the same, so that equal
    prompts give equal embeddings and two prompts differ by their words alone. "" is the embedding of a black image, as
    in diffusers. ``evaluations`` counts those of the decoder; a new prompt costs 50 of the small prior besides.
    """

    family = "kandinsky"
    components = ("unet", "movq", "prior_prior", "prior_text_encoder", "prior_image_encoder")

    def __init__(
        self, folder: Path, movq: Any, unet: Any, scheduler: Mapping[str, Any], card: Card | None, **prior: Any
    ) -> None:
        super().__init__(folder, movq, unet, scheduler, card, side=unet.config.sample_size)
        self.unet, self.prior, self.prior_scheduler = unet, prior["prior"], prior["prior_scheduler"]
        self.text_encoder, self.tokenizer = prior["text_encoder"], prior["tokenizer"]
        self.image_encoder = prior["image_encoder"]

    @classmethod
    def held(cls, index: Mapping[str, Any]) -> list[str]:
        """The components of this folder; those of a prior beside it are not among them."""
        return [name for name in cls.components if name in index]

    @classmethod
    def _open(cls, index: Mapping[str, Any], folder: Path, dtype: torch.dtype | None) -> dict[str, Any]:
        from diffusers.models.autoencoders.vq_model import VQModel
        from diffusers.models.transformers.prior_transformer import PriorTransformer
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
        from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler

        beside, start = _prior(index, folder)
        known = read_json(beside / "model_index.json")
        for name in ("prior", "image_encoder", "text_encoder"):
            check_weights(beside / f"{start}{name}")
        return {
            "movq": open_diffusers(VQModel, folder / "movq"),
            "unet": open_diffusers(UNet2DConditionModel, folder / "unet", dtype),
            "prior": open_diffusers(PriorTransformer, beside / f"{start}prior", dtype),
            "image_encoder": open_text(known, beside, f"{start}image_encoder", pooled=True),
            "text_encoder": open_text(known, beside, f"{start}text_encoder", pooled=True),
            "tokenizer": open_tokenizer(known, beside, f"{start}tokenizer"),
            "prior_scheduler": UnCLIPScheduler.from_config(
                read_json(beside / f"{start}scheduler" / "scheduler_config.json")
            ),
        }

    def _condition(self, prompts: Sequence[str]) -> Condition:
        rows = [self._imagined(prompt) if prompt else self._nothing() for prompt in prompts]
        return Condition(torch.stack(rows))

    def _nothing(self) -> Tensor:
        side = self.image_encoder.config.image_size
        black = torch.zeros(1, 3, side, side, device=self.device, dtype=self.dtype)
        embedding: Tensor = self.image_encoder(black).image_embeds
        return embedding

    def _imagined(self, prompt: str) -> Tensor:
        """The image embedding (1, D) of a prompt, as diffusers' prior pipeline draws it with a generator seeded by 0."""
        generator, scheduler = torch.Generator().manual_seed(0), self.prior_scheduler
        length = longest(self.tokenizer, self.text_encoder)
        batch = token_ids(self.tokenizer, ["", prompt], length, self.card.name).to(self.device)
        text = self.text_encoder(batch["input_ids"])
        shape = (1, self.prior.config.embedding_dim)
        x = torch.randn(shape, generator=generator, dtype=self.dtype).to(self.device)
        scheduler.set_timesteps(PRIOR_STEPS)
        times = scheduler.timesteps.tolist()
        for t, below in zip(times, [*times[1:], None], strict=True):
            away, towards = self.prior(
                torch.cat([x, x]),
                timestep=t,
                proj_embedding=text.text_embeds,
                encoder_hidden_states=text.last_hidden_state,
                attention_mask=batch["attention_mask"].bool(),
            ).predicted_image_embedding.chunk(2)
            guided = away + PRIOR_GUIDANCE * (towards - away)
            x = scheduler.step(guided, timestep=t, sample=x, generator=generator, prev_timestep=below).prev_sample
        embedding: Tensor = self.prior.post_process_latents(x)
        return embedding

    def _network(self, z: Tensor, times: Tensor, tokens: Tensor, pooled: Tensor | None) -> Tensor:
        added = {"image_embeds": tokens[:, 0]}
        output = self.unet(z, times, encoder_hidden_states=None, added_cond_kwargs=added, return_dict=False)[0]
        noise: Tensor = output[:, : z.shape[1]]  # behind it is the variance that the network learned
        return noise

    def _decoded(self, z: Tensor) -> Tensor:
        decoded: Tensor = self.vae.decode(z, force_not_quantize=True).sample
        return decoded

    @property
    def _affine(self) -> tuple[float, float]:
        return 0.0, 1.0

    def _checked(self) -> Self:
        config, image = self.unet.config, self.prior.config.clip_embed_dim or self.prior.config.embedding_dim
        if image != config.encoder_hid_dim:
            raise ModelError(f"{self.folder}: the prior gives {image} numbers, unet takes {config.encoder_hid_dim}")
        if self.vae.config.latent_channels != config.in_channels:
            raise ModelError(
                f"{self.folder}: movq has {self.vae.config.latent_channels} latent channels, unet takes {config.in_channels}"
            )
        return super()._checked()


def _prior(index: Mapping[str, Any], folder: Path) -> tuple[Path, str]:
    """Where the prior is, and what its components' names start with there."""
    if "prior_prior" in index:
        return folder, "prior_"
    beside = folder.with_name(folder.name.replace("decoder", "prior"))
    if folder.parent.name == "snapshots":  # the cache of the hub: a folder a model, and in it one a version
        model = folder.parents[1]
        versions = sorted(model.with_name(model.name.replace("decoder", "prior")).glob("snapshots/*"))
        beside = versions[-1] if versions else folder
    if beside == folder or not beside.is_dir():
        raise ModelError(
            f"{folder}: a decoder without its prior; put the prior's folder beside it, named alike but for "
            "'decoder' and 'prior', or save both together (KandinskyV22CombinedPipeline)"
        )
    return beside, ""
