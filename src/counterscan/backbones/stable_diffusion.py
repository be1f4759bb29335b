"""Stable Diffusion 1.x and 2.x and everything saved in their format, with any Hugging Face text encoder for CLIP.

Components are opened one by one, so that neither the pipeline class nor what it drags in is imported.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from counterscan.backbones.card import Card
from counterscan.backbones.quiet import quiet
from counterscan.diffusion import PredictionType, schedule_from_config, to_prediction
from counterscan.errors import ModelError
from counterscan.types import Condition, Prediction

COMPONENTS = ("vae", "unet", "text_encoder")
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
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
        index = _read_json(folder / "model_index.json")
        for component in COMPONENTS:
            check_weights(folder / component)
        with quiet(), torch.random.fork_rng(devices=[]):
            from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

            vae = _open_diffusers(_autoencoder_class(index, folder), folder / "vae")
            unet = _open_diffusers(UNet2DConditionModel, folder / "unet")
            text_encoder = _open_text(index, folder)
            tokenizer = _open_tokenizer(index, folder)
            for module in (vae, unet, text_encoder):
                module.to(device=device, dtype=dtype or torch.float32).eval().requires_grad_(False)
        scheduler = _read_json(folder / "scheduler" / "scheduler_config.json")
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

    @torch.no_grad()
    def predict(
        self, z: Tensor, t: Tensor | int, condition: Condition, *, level: Tensor | int | None = None
    ) -> Prediction:
        """ONE U-Net evaluation a row. See ``Backbone.predict``."""
        rows = z.shape[0]
        if len(condition) not in (1, rows):
            raise ValueError(f"{len(condition)} condition rows for {rows} latents")
        times = torch.as_tensor(t, device=self.device).expand(rows)
        tokens = condition.tokens.to(self.device, self.dtype).expand(rows, -1, -1)
        output = self.unet(z.to(self.device, self.dtype), times, encoder_hidden_states=tokens, return_dict=False)[0]
        self.evaluations += rows
        signal, noise = self.schedule.coefficients(times if level is None else torch.as_tensor(level))
        return to_prediction(output.float(), z.float().to(self.device), self.prediction_type, signal, noise)

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
        text, cross = self.text_encoder.config.hidden_size, self.unet.config.cross_attention_dim
        if text != cross:
            raise ModelError(f"{self.folder}: text_encoder gives {text} numbers a token, unet takes {cross}")
        latent, wanted = self.vae.config.latent_channels, self.unet.config.in_channels
        if latent != wanted:
            raise ModelError(f"{self.folder}: vae has {latent} latent channels, unet takes {wanted}")
        if self.prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise ModelError(f"{self.folder}/scheduler: prediction_type {self.prediction_type!r} is not known")
        return self


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up a component: the plain ones, or a variant where there is nothing else."""
    files = sorted(folder.glob("*.safetensors"))
    plain = [f for f in files if not _variant(f)]
    return plain or [f for f in files if _variant(f) == "fp16"]


def check_weights(folder: Path) -> None:
    """Raises ``ModelError`` unless a component has a config and readable safetensors files; never opens a pickle."""
    from safetensors import SafetensorError, safe_open

    if not folder.is_dir():
        raise ModelError(f"{folder}: the model has no {folder.name}; a model is a diffusers pipeline folder")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder / 'config.json'}: missing")
    files = weight_files(folder)
    if not files:
        unsafe = sorted(f.name for f in folder.iterdir() if f.suffix in PICKLES)
        if unsafe:
            raise ModelError(
                f"{folder / unsafe[0]}: pickled weights can run code and are not opened; convert them to safetensors"
            )
        raise ModelError(f"{folder}: no .safetensors weights")
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                file.keys()
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path}: damaged ({error}); fetch or build the model again") from error


def _variant(path: Path) -> str:
    """``diffusion_pytorch_model.fp16.safetensors`` → "fp16"; "" for the plain file and its shards."""
    parts = path.name.split(".")[1:-1]
    return parts[-1].split("-")[0] if parts else ""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: missing; a model is a diffusers pipeline folder") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: expected a JSON object")
    return values


def _open_diffusers(kind: Any, folder: Path) -> Any:
    variant = _variant(weight_files(folder)[0]) or None
    try:
        model, info = kind.from_pretrained(
            folder,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    except (ValueError, RuntimeError, TypeError, OSError, KeyError) as error:
        raise ModelError(f"{folder}: {_one_line(error)}") from error
    if info["missing_keys"]:
        raise ModelError(f"{folder}: the weights lack {_some(info['missing_keys'])}")
    if info.get("unexpected_keys"):
        raise ModelError(f"{folder}: the weights hold {_some(info['unexpected_keys'])}, which config.json does not")
    return model


def _autoencoder_class(index: Mapping[str, Any], folder: Path) -> Any:
    """AutoencoderKL, or AutoencoderTiny where model_index.json says so."""
    name = (index.get("vae") or [None, "AutoencoderKL"])[-1]
    if name == "AutoencoderKL":
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        return AutoencoderKL
    if name == "AutoencoderTiny":
        from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

        return AutoencoderTiny
    raise ModelError(f"{folder / 'model_index.json'}: vae is {name}; AutoencoderKL and AutoencoderTiny are supported")


def _open_text(index: Mapping[str, Any], folder: Path) -> Any:
    import transformers

    kind = _transformers_class(transformers, index, "text_encoder", folder)
    path = folder / "text_encoder"
    options = {}
    if "add_pooling_layer" in inspect.signature(kind.__init__).parameters:
        options["add_pooling_layer"] = False  # only the tokens are used; a pooler without weights would be noise
    try:
        model, info = kind.from_pretrained(
            path,
            use_safetensors=True,
            local_files_only=True,
            variant=_variant(weight_files(path)[0]) or None,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **options,
        )
    except (ValueError, RuntimeError, TypeError, OSError, KeyError) as error:
        raise ModelError(f"{path}: {_one_line(error)}") from error
    if info.get("mismatched_keys"):
        raise ModelError(f"{path}: wrong shape: {_some(str(k) for k in info['mismatched_keys'])}")
    missing = [k for k in info["missing_keys"] if not k.startswith("pooler") and "position_ids" not in k]
    if missing:
        raise ModelError(f"{path}: the weights lack {_some(missing)}")
    return model


def _open_tokenizer(index: Mapping[str, Any], folder: Path) -> Any:
    import transformers

    kind = _transformers_class(transformers, index, "tokenizer", folder)
    path = folder / "tokenizer"
    if not path.is_dir():
        raise ModelError(f"{path}: missing; a model is a diffusers pipeline folder")
    try:
        return kind.from_pretrained(path, local_files_only=True)
    except (ValueError, RuntimeError, TypeError, OSError, KeyError) as error:
        raise ModelError(f"{path}: {_one_line(error)}") from error


def _transformers_class(library: Any, index: Mapping[str, Any], component: str, folder: Path) -> Any:
    """The class that model_index.json names. Only classes of transformers itself: a model folder brings no code."""
    entry = index.get(component)
    if not isinstance(entry, list) or len(entry) != 2 or entry[0] != "transformers":
        raise ModelError(f"{folder / 'model_index.json'}: {component} must be a transformers class, got {entry}")
    kind = getattr(library, str(entry[1]), None)
    if not inspect.isclass(kind) or not hasattr(kind, "from_pretrained"):
        raise ModelError(f"{folder / 'model_index.json'}: transformers has no class {entry[1]!r} for {component}")
    return kind


def _guess_card(folder: Path, vae: Any, unet: Any) -> Card:
    """For a pipeline without a card: size and channels from the configs, no findings."""
    side = unet.config.sample_size
    side = side if isinstance(side, int) else side[0]
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    return Card(folder.name, channels=vae.config.in_channels, resolution=side * factor)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__


def _some(names: Any) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
