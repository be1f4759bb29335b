"""The editing pipelines that diffusers ships, as methods of the bench: the same checkpoint, prompts and scores as ours.

A peer is diffusers' own class for the model's family, put together from the loaded parts and called with the defaults of its
signature; the latents go in and come out by the model's own autoencoder, and the evaluations are counted at the network::

    diffusers:img2img     image-to-image of Stable Diffusion, SDXL, SD3, FLUX and Kandinsky 2.2: the target prompt
    diffusers:leditspp    LEDITS++ of Stable Diffusion and SDXL: the source prompt leaves, the target prompt comes
    diffusers:diffedit    StableDiffusionDiffEditPipeline: mask between both prompts, inversion under the source, the target
    diffusers:instruct    StableDiffusionInstructPix2PixPipeline: the target prompt, for models that see the image

A U-Net that sees an image is given nothing to see by the pipelines that know of none, as where it draws from text.

They are no methods of ``edit``: nothing here keeps what is not edited, or undoes a null edit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, Self

import diffusers
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddim_inverse import DDIMInverseScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from counterscan.backbones.base import sees_image
from counterscan.backbones.latent import Latent
from counterscan.backbones.quiet import quiet
from counterscan.diffusion import one_each
from counterscan.errors import WordsError

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone
    from counterscan.methods import Progress
    from counterscan.types import Edit

LATENT_CHANNELS = 4  # the pipelines but for those of flows take a tensor of as many channels for latents
LONGEST = 10_000  # tokens; a tokenizer that says more has not been told its length


@dataclass(frozen=True)
class Peer:
    """What every peer is: one pipeline call for one image, or a few. ``pipelines`` names diffusers' class for each family."""

    pipelines: ClassVar[Mapping[str, str]]
    defaults: ClassVar[Mapping[str, tuple[str, str]]] = {}  # a setting → the pipeline's call and its parameter
    name: ClassVar[str]
    sees: ClassVar[bool] = False  # whether it gives the U-Net an image beside the latent
    together: ClassVar[bool] = False  # False: the pipeline mixes the images of a batch (its masks are relative to all)

    def refusal(self, backbone: Backbone) -> str | None:
        """Why the pipeline cannot run on a model, in half a sentence; ``None`` where it can."""
        name = backbone.card.name
        if backbone.family not in self.pipelines:
            return f"it needs the {' or '.join(self.pipelines)} family, and {name} is {backbone.family}"
        if not isinstance(backbone, Latent):
            return f"it takes the parts of a model that runs in torch, and {name} runs in {type(backbone).__name__}"
        pipeline = self.pipelines[backbone.family]
        with quiet():
            shipped = hasattr(diffusers, pipeline)  # also imports it, so that no image's seconds count that
        if not shipped:
            return f"diffusers {diffusers.__version__} has no {pipeline}"
        channels = backbone.latent_shape[0]
        if channels != LATENT_CHANNELS and not backbone.schedule.is_flow:
            return f"it takes latents of {LATENT_CHANNELS} channels, and {name} has {channels}"
        return None

    def check(self, backbone: Backbone) -> None:
        """Raises ``WordsError`` with the reason, before any work."""
        reason = self.refusal(backbone)
        if reason is not None:
            raise WordsError(f"{self.name} cannot run here: {reason}; leave it out of --methods")

    def settled(self, backbone: Backbone) -> Self:
        """The same with the defaults of the pipeline of the model's family for what is left open; checked."""
        self.check(backbone)
        kind = getattr(diffusers, self.pipelines[backbone.family])
        theirs = {own: signature(getattr(kind, call)).parameters[name] for own, (call, name) in self.defaults.items()}
        return replace(self, **{own: told.default for own, told in theirs.items() if getattr(self, own) is None})

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
        peer = self.settled(backbone)
        assert isinstance(backbone, Latent)
        z = backbone.encode(image)
        generators = one_each(generator, len(z))
        size, out = len(z) if self.together else 1, []
        with quiet(), _counted(backbone):
            for start in range(0, len(z), size):
                some = slice(start, start + size)
                out.append(peer.latents(backbone, z[some].to(backbone.dtype), edit, generators[some]))
                if progress is not None:
                    progress(min(start + size, len(z)), len(z))
        return backbone.decode(torch.cat(out).float())

    def latents(self, backbone: Latent, z: Tensor, edit: Edit, generators: list[torch.Generator]) -> Tensor:
        """Latents (b, c, h, w) in and out, through the pipeline."""
        raise NotImplementedError

    def _pipe(self, backbone: Latent, **schedulers: Any) -> Any:
        """The pipeline of the loaded parts, without its progress bar. What it has no need of is left empty."""
        kind = getattr(diffusers, self.pipelines[backbone.family])
        wanted = [name for name in signature(kind.__init__).parameters if name != "self"]
        zeros = getattr(backbone, "zero_empty", None)
        given = {"add_watermarker": False, "force_zeros_for_empty_prompt": zeros} | schedulers
        parts: dict[str, Any] = {name: given.get(name, getattr(backbone, name, None)) for name in wanted}
        if sees_image(backbone) and not self.sees:
            # the same network to a pipeline that reads from its config how many channels latents have
            parts["unet"] = copy(parts["unet"])
            parts["unet"].register_to_config(in_channels=backbone.latent_shape[0])
        if "movq" in wanted:  # which encodes whatever it is given, also latents
            parts["movq"] = copy(backbone.vae)
            parts["movq"].encode = lambda z: {"latents": z}
        pipe = kind(**parts)
        pipe.set_progress_bar_config(disable=True)
        return pipe


@dataclass(frozen=True)
class ImageToImage(Peer):
    """Image-to-image (SDEdit): 2 evaluations for each of ``steps * strength`` steps; 1 for FLUX, which is told its guidance."""

    steps: int | None = None
    strength: float | None = None
    guidance: float | None = None
    pipelines: ClassVar[Mapping[str, str]] = {
        "stable_diffusion": "StableDiffusionImg2ImgPipeline",
        "sdxl": "StableDiffusionXLImg2ImgPipeline",
        "sd3": "StableDiffusion3Img2ImgPipeline",
        "flux": "FluxImg2ImgPipeline",
        "kandinsky": "KandinskyV22Img2ImgPipeline",
    }
    defaults: ClassVar[Mapping[str, tuple[str, str]]] = {
        "steps": ("__call__", "num_inference_steps"),
        "strength": ("__call__", "strength"),
        "guidance": ("__call__", "guidance_scale"),
    }
    name: ClassVar[str] = "diffusers:img2img"
    together: ClassVar[bool] = True

    def latents(self, backbone: Latent, z: Tensor, edit: Edit, generators: list[torch.Generator]) -> Tensor:
        """See ``Peer``."""
        pipe, side = self._pipe(backbone, scheduler=_sampler(backbone)), backbone.resolution
        settings = {"num_inference_steps": self.steps, "strength": self.strength, "guidance_scale": self.guidance}
        size = {name: side for name in ("height", "width") if name in signature(pipe.__call__).parameters}
        words = _towards_target(backbone, edit, len(z))
        result: Tensor = pipe(image=z, generator=generators, output_type="latent", **settings, **size, **words).images
        if backbone.family == "flux":  # in patches
            result = pipe._unpack_latents(result, side, side, pipe.vae_scale_factor)
        return result


@dataclass(frozen=True)
class LeditsPp(Peer):
    """LEDITS++ with its default solver (sde-dpmsolver++): ``steps`` evaluations up, 3 ``steps`` down."""

    steps: int | None = None
    skip: float = 0.15
    guidance: float = 5.0
    threshold: float = 0.9
    pipelines: ClassVar[Mapping[str, str]] = {
        "stable_diffusion": "LEditsPPPipelineStableDiffusion",
        "sdxl": "LEditsPPPipelineStableDiffusionXL",
    }
    defaults: ClassVar[Mapping[str, tuple[str, str]]] = {"steps": ("invert", "num_inversion_steps")}
    name: ClassVar[str] = "diffusers:leditspp"

    def refusal(self, backbone: Backbone) -> str | None:
        """See ``Peer``. The masks of Stable Diffusion read the cross-attention at a quarter of the latent's size."""
        reason = super().refusal(backbone)
        if reason is not None or not isinstance(backbone, Latent):
            return reason
        blocks = _network(backbone).config.down_block_types[2:3]
        if backbone.family == "stable_diffusion" and not any("CrossAttn" in block for block in blocks):
            return f"the U-Net of {backbone.card.name} reads no words at a quarter of the latent's size"
        tokenizers = (getattr(backbone, name, None) for name in ("tokenizer", "tokenizer_2"))
        if any(tokenizer.model_max_length > LONGEST for tokenizer in tokenizers if tokenizer is not None):
            return f"the tokenizer of {backbone.card.name} names no model_max_length, to which it pads"
        return None

    def latents(self, backbone: Latent, z: Tensor, edit: Edit, generators: list[torch.Generator]) -> Tensor:
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
    pipelines: ClassVar[Mapping[str, str]] = {"stable_diffusion": "StableDiffusionDiffEditPipeline"}
    name: ClassVar[str] = "diffusers:diffedit"

    def latents(self, backbone: Latent, z: Tensor, edit: Edit, generators: list[torch.Generator]) -> Tensor:
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
    pipelines: ClassVar[Mapping[str, str]] = {"stable_diffusion": "StableDiffusionInstructPix2PixPipeline"}
    name: ClassVar[str] = "diffusers:instruct"
    sees: ClassVar[bool] = True
    together: ClassVar[bool] = True

    def refusal(self, backbone: Backbone) -> str | None:
        """See ``Peer``."""
        reason = super().refusal(backbone)
        if reason is None and not sees_image(backbone):
            return f"the U-Net of {backbone.card.name} sees no image"
        return reason

    def latents(self, backbone: Latent, z: Tensor, edit: Edit, generators: list[torch.Generator]) -> Tensor:
        """See ``Peer``. Latents of an image go in as its own autoencoder gives them."""
        pipe = self._pipe(backbone, scheduler=_sampler(backbone))
        settings: dict[str, Any] = {"guidance_scale": self.guidance, "image_guidance_scale": self.image_guidance}
        words = _towards_target(backbone, edit, len(z))
        settings |= {"image": backbone._beside(z, z), "num_inference_steps": self.steps}
        result: Tensor = pipe(generator=generators, output_type="latent", **settings, **words).images
        return result


def _sampler(backbone: Latent) -> Any:
    """The model's schedule with the deterministic sampler of its kind: Euler's for flows, else DDIM."""
    if backbone.schedule.is_flow:
        return FlowMatchEulerDiscreteScheduler.from_config(backbone.scheduler_config)
    # latents have no bounds to be clipped to, and DDIM does not use the variance that Kandinsky's network learned
    known = {key: value for key, value in backbone.scheduler_config.items() if key != "variance_type"}
    return DDIMScheduler.from_config({"clip_sample": False} | known)


def _towards_target(backbone: Latent, edit: Edit, rows: int) -> dict[str, Tensor]:
    """The target prompt, led to from no prompt, as pipelines take embeddings."""
    target, nothing = (backbone.embed([words] * rows) for words in (edit.target, ""))
    if backbone.family == "kandinsky":
        return {"image_embeds": target.tokens[:, 0], "negative_image_embeds": nothing.tokens[:, 0]}
    words = {"prompt_embeds": target.tokens, "negative_prompt_embeds": nothing.tokens}
    if target.pooled is not None and nothing.pooled is not None:
        words |= {"pooled_prompt_embeds": target.pooled, "negative_pooled_prompt_embeds": nothing.pooled}
    return words


def _network(backbone: Latent) -> Any:
    """The denoiser: a U-Net, or a transformer."""
    return getattr(backbone, "unet", getattr(backbone, "transformer", None))


PEERS: dict[str, type[Peer]] = {kind.name: kind for kind in (ImageToImage, LeditsPp, DiffEdit, InstructPix2Pix)}


def get(name: str) -> Peer:
    """The peer of that name, with the defaults of its pipeline. ``WordsError`` names the known ones."""
    if name not in PEERS:
        raise WordsError(f"no pipeline {name!r}: known are {', '.join(PEERS)}")
    return PEERS[name]()


@contextmanager
def _counted(backbone: Latent) -> Iterator[None]:
    """Inside, rows that the network is asked count as evaluations, and one that sees an image sees nothing where it is given
    none; afterwards its attention is as it was.
    """
    network = _network(backbone)

    def count(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
        name = next((key for key in ("sample", "hidden_states") if key in named), None)
        z = named[name] if name else given[0]
        backbone.evaluations += len(z)
        if sees_image(backbone) and z.shape[1] < network.config.in_channels:
            z = torch.cat([z, torch.zeros_like(z)], 1)
        return (given, named | {name: z}) if name else ((z, *given[1:]), named)

    processors, hook = network.attn_processors, network.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
        network.set_attn_processor(processors)
