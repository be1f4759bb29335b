"""The editing pipelines that diffusers ships, as methods of the bench: the same checkpoint, prompts and scores as ours.

A peer is diffusers' own class, put together from the loaded parts of a ``stable_diffusion`` model and called with the defaults
of its signature; the latents go in and come out by the model's own autoencoder, and the evaluations are counted at the U-Net::

    diffusers:img2img     StableDiffusionImg2ImgPipeline: the target prompt
    diffusers:leditspp    LEditsPPPipelineStableDiffusion: the source prompt leaves, the target prompt comes
    diffusers:diffedit    StableDiffusionDiffEditPipeline: mask between both prompts, inversion under the source, the target
    diffusers:instruct    StableDiffusionInstructPix2PixPipeline: the target prompt, for models that see the image

A U-Net that sees an image is given nothing to see by the pipelines that know of none, as where it draws from text.

They are no methods of ``edit``: nothing here keeps what is not edited, or undoes a null edit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import diffusers
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddim_inverse import DDIMInverseScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor

from counterscan.backbones.base import sees_image
from counterscan.backbones.quiet import quiet
from counterscan.backbones.stable_diffusion import StableDiffusion
from counterscan.diffusion import one_each
from counterscan.errors import WordsError

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone
    from counterscan.methods import Progress
    from counterscan.types import Edit

LATENT_CHANNELS = 4  # the pipelines take a tensor of as many channels for latents
LONGEST = 10_000  # tokens; a tokenizer that says more has not been told its length


@dataclass(frozen=True)
class Peer:
    """What every peer is: one pipeline call for one image, or a few. ``pipeline`` is the name of diffusers' class."""

    pipeline: ClassVar[str]
    name: ClassVar[str]
    sees: ClassVar[bool] = False  # whether it gives the U-Net an image beside the latent
    together: ClassVar[bool] = False  # False: the pipeline mixes the images of a batch (its masks are relative to all)

    def refusal(self, backbone: Backbone) -> str | None:
        """Why the pipeline cannot run on a model, in half a sentence; ``None`` where it can."""
        with quiet():
            shipped = hasattr(diffusers, self.pipeline)  # also imports it, so that no image's seconds count that
        if not shipped:
            return f"diffusers {diffusers.__version__} has no {self.pipeline}"
        if not isinstance(backbone, StableDiffusion):
            return f"it needs the stable_diffusion family, and {backbone.card.name} is {backbone.family}"
        channels = backbone.latent_shape[0]
        if channels != LATENT_CHANNELS:
            return f"it takes latents of {LATENT_CHANNELS} channels, and {backbone.card.name} has {channels}"
        return None

    def check(self, backbone: Backbone) -> None:
        """Raises ``WordsError`` with the reason, before any work."""
        reason = self.refusal(backbone)
        if reason is not None:
            raise WordsError(f"{self.name} cannot run here: {reason}; leave it out of --methods")

    @torch.no_grad()
    def __call__(
        self,
        backbone: Backbone,
        image: Tensor,
        edit: Edit,
        *,
        generator: torch.Generator | Sequence[torch.Generator],
        progress: Progress | None = None,
    ) -> Tensor:
        """See ``counterscan.methods.Method``."""
        self.check(backbone)
        assert isinstance(backbone, StableDiffusion)
        z = backbone.encode(image)
        generators = one_each(generator, len(z))
        size, out = len(z) if self.together else 1, []
        with quiet(), _counted(backbone):
            for start in range(0, len(z), size):
                some = slice(start, start + size)
                out.append(self.latents(backbone, z[some].to(backbone.dtype), edit, generators[some]))
                if progress is not None:
                    progress(min(start + size, len(z)), len(z))
        return backbone.decode(torch.cat(out).float())

    def latents(self, backbone: StableDiffusion, z: Tensor, edit: Edit, generators: list[torch.Generator]) -> Tensor:
        """Latents (b, 4, h, w) in and out, through the pipeline."""
        raise NotImplementedError

    def _pipe(self, backbone: StableDiffusion, **schedulers: Any) -> Any:
        """The pipeline of the loaded parts, without its progress bar."""
        parts = {name: getattr(backbone, name) for name in ("vae", "text_encoder", "tokenizer", "unet")}
        if not self.sees:  # the same network to a pipeline that reads from its config how many channels latents have
            parts["unet"] = copy(backbone.unet)
            parts["unet"].register_to_config(in_channels=backbone.latent_shape[0])
        none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipe = getattr(diffusers, self.pipeline)(**parts, **none, **schedulers)
        pipe.set_progress_bar_config(disable=True)
        return pipe


@dataclass(frozen=True)
class ImageToImage(Peer):
    """Image-to-image (SDEdit): 2 evaluations for each of ``steps * strength`` steps."""

    steps: int = 50
    strength: float = 0.8
    guidance: float = 7.5
    pipeline: ClassVar[str] = "StableDiffusionImg2ImgPipeline"
    name: ClassVar[str] = "diffusers:img2img"
    together: ClassVar[bool] = True

    def latents(self, backbone: StableDiffusion, z: Tensor, edit: Edit, generators: list[torch.Generator]) -> Tensor:
        """See ``Peer``."""
        pipe = self._pipe(backbone, scheduler=DDIMScheduler.from_config(backbone.scheduler_config))
        settings = {"num_inference_steps": self.steps, "strength": self.strength, "guidance_scale": self.guidance}
        words = _towards_target(backbone, edit, len(z))
        result: Tensor = pipe(image=z, generator=generators, output_type="latent", **settings, **words).images
        return result


@dataclass(frozen=True)
class LeditsPp(Peer):
    """LEDITS++ with its default solver (sde-dpmsolver++): ``steps`` evaluations up, 3 ``steps`` down."""

    steps: int = 30
    skip: float = 0.15
    guidance: float = 5.0
    threshold: float = 0.9
    pipeline: ClassVar[str] = "LEditsPPPipelineStableDiffusion"
    name: ClassVar[str] = "diffusers:leditspp"

    def refusal(self, backbone: Backbone) -> str | None:
        """See ``Peer``. Its masks read the cross-attention at a quarter of the latent's size."""
        reason = super().refusal(backbone)
        if reason is not None or not isinstance(backbone, StableDiffusion):
            return reason
        blocks = backbone.unet.config.down_block_types[2:3]
        if not any("CrossAttn" in block for block in blocks):
            return f"the U-Net of {backbone.card.name} reads no words at a quarter of the latent's size"
        if backbone.tokenizer.model_max_length > LONGEST:
            return f"the tokenizer of {backbone.card.name} names no model_max_length, to which it pads"
        return None

    def latents(self, backbone: StableDiffusion, z: Tensor, edit: Edit, generators: list[torch.Generator]) -> Tensor:
        """See ``Peer``."""
        settings = {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}
        solver = DPMSolverMultistepScheduler.from_config(backbone.scheduler_config, **settings)
        pipe = self._pipe(backbone, scheduler=solver)
        pipe.encode_image = lambda image, **_: (image, image)  # its own knows AutoencoderKL only
        pipe.invert(image=z, num_inversion_steps=self.steps, skip=self.skip, generator=generators)
        result: Tensor = pipe(
            editing_prompt=[edit.source, edit.target],
            reverse_editing_direction=[True, False],
            edit_guidance_scale=self.guidance,
            edit_threshold=self.threshold,
            generator=generators,
            output_type="latent",
        ).images
        return result


@dataclass(frozen=True)
class DiffEdit(Peer):
    """DiffEdit, which diffusers keeps among its deprecated pipelines: 4 ``maps`` evaluations for the mask, 2 for each of
    ``steps * strength`` steps up, and again down.
    """

    steps: int = 50
    strength: float = 0.8
    guidance: float = 7.5
    maps: int = 10
    pipeline: ClassVar[str] = "StableDiffusionDiffEditPipeline"
    name: ClassVar[str] = "diffusers:diffedit"

    def latents(self, backbone: StableDiffusion, z: Tensor, edit: Edit, generators: list[torch.Generator]) -> Tensor:
        """See ``Peer``."""
        up, down = (kind.from_config(backbone.scheduler_config) for kind in (DDIMInverseScheduler, DDIMScheduler))
        pipe = self._pipe(backbone, scheduler=down, inverse_scheduler=up)
        source, target, nothing = (backbone.embed([words]).tokens for words in (edit.source, edit.target, ""))
        settings = {"num_inference_steps": self.steps, "guidance_scale": self.guidance}
        up_and_down = settings | {"inpaint_strength": self.strength, "negative_prompt_embeds": nothing}
        mask = pipe.generate_mask(
            image=z, source_prompt_embeds=source, target_prompt_embeds=target, source_negative_prompt_embeds=nothing,
            target_negative_prompt_embeds=nothing, num_maps_per_mask=self.maps, generator=generators[0], **settings,
        )  # fmt: skip
        inverted = pipe.invert(image=z, prompt_embeds=source, **up_and_down).latents
        result: Tensor = pipe(
            mask_image=mask, image_latents=inverted, prompt_embeds=target, output_type="latent", **up_and_down
        ).images
        return result


@dataclass(frozen=True)
class InstructPix2Pix(Peer):
    """InstructPix2Pix: 3 evaluations a step, under prompt and image, image alone, and neither."""

    steps: int = 100
    guidance: float = 7.5
    image_guidance: float = 1.5
    pipeline: ClassVar[str] = "StableDiffusionInstructPix2PixPipeline"
    name: ClassVar[str] = "diffusers:instruct"
    sees: ClassVar[bool] = True
    together: ClassVar[bool] = True

    def refusal(self, backbone: Backbone) -> str | None:
        """See ``Peer``."""
        reason = super().refusal(backbone)
        if reason is None and not sees_image(backbone):
            return f"the U-Net of {backbone.card.name} sees no image"
        return reason

    def latents(self, backbone: StableDiffusion, z: Tensor, edit: Edit, generators: list[torch.Generator]) -> Tensor:
        """See ``Peer``. Latents of an image go in as its own autoencoder gives them."""
        pipe = self._pipe(backbone, scheduler=DDIMScheduler.from_config(backbone.scheduler_config))
        settings: dict[str, Any] = {"guidance_scale": self.guidance, "image_guidance_scale": self.image_guidance}
        words = _towards_target(backbone, edit, len(z))
        settings |= {"image": backbone._beside(z, z), "num_inference_steps": self.steps}
        result: Tensor = pipe(generator=generators, output_type="latent", **settings, **words).images
        return result


def _towards_target(backbone: StableDiffusion, edit: Edit, rows: int) -> dict[str, Tensor]:
    """The target prompt, led to from no prompt, as pipelines take embeddings."""
    target, nothing = (backbone.embed([words] * rows).tokens for words in (edit.target, ""))
    return {"prompt_embeds": target, "negative_prompt_embeds": nothing}


PEERS: dict[str, type[Peer]] = {kind.name: kind for kind in (ImageToImage, LeditsPp, DiffEdit, InstructPix2Pix)}


def get(name: str) -> Peer:
    """The peer of that name, with the defaults of its pipeline. ``WordsError`` names the known ones."""
    if name not in PEERS:
        raise WordsError(f"no pipeline {name!r}: known are {', '.join(PEERS)}")
    return PEERS[name]()


@contextmanager
def _counted(backbone: StableDiffusion) -> Iterator[None]:
    """Inside, rows that the U-Net is asked count as evaluations, and one that sees an image sees nothing where it is given none;
    afterwards its attention is as it was.
    """

    def count(module: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        z, *others = given
        backbone.evaluations += len(z)
        if z.shape[1] < backbone.unet.config.in_channels:
            z = torch.cat([z, torch.zeros_like(z)], 1)
        return z, *others

    processors, hook = backbone.unet.attn_processors, backbone.unet.register_forward_pre_hook(count)
    try:
        yield
    finally:
        hook.remove()
        backbone.unet.set_attn_processor(processors)
