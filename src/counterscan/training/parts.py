"""Which parts of a model learn: whole modules, low-rank adapters, a new word, a text encoder in place of another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from counterscan.backbones import load, locate
from counterscan.backbones.compact import seeded
from counterscan.backbones.components import check_weights
from counterscan.backbones.quiet import quiet
from counterscan.backbones.text import longest
from counterscan.diffusion import schedule_from_config
from counterscan.errors import ModelError, WordsError
from counterscan.training.config import Config, Lora, Objective, Token


def readers(backbone: Any) -> dict[str, tuple[Any, Any]]:
    """The text encoders of a model, by the name of their folder, each as (tokenizer, encoder); none without words."""
    names = [f"text_encoder{n}" for n in ("", "_2", "_3")]
    if hasattr(backbone, "clip"):
        known = [*backbone.clip, backbone.t5 or (None, None)]
    else:
        tokenizers = [getattr(backbone, name.replace("text_encoder", "tokenizer"), None) for name in names]
        known = [(tokenizer, getattr(backbone, name, None)) for tokenizer, name in zip(tokenizers, names, strict=True)]
    return {name: pair for name, pair in zip(names, known, strict=True) if None not in pair}


def encoders(backbone: Any) -> list[tuple[Any, int]]:
    """The tokenizers of a model, and how many tokens the text encoder behind each takes; none of a model without words."""
    pairs = [
        pair for name, pair in readers(backbone).items() if name != "text_encoder_3"
    ]  # it takes more than the others
    return [(tokenizer, longest(tokenizer, encoder)) for tokenizer, encoder in pairs]


def denoiser_name(backbone: Any) -> str:
    """The component that denoises, as the diffusers folder calls it."""
    return "transformer" if hasattr(backbone, "transformer") else "unet"


def open_model(config: Config, start: Path, device: torch.device) -> Any:
    """The backbone to be trained, on the device, frozen; with its new text encoder and noise schedule if there are any."""
    narrow = torch.bfloat16 if config.frozen == "bfloat16" else torch.float32
    backbone: Any = load(start, device=str(device), dtype=narrow)
    if config.text_encoder is not None:
        swap_text_encoder(backbone, config.text_encoder, config.seed)
    change_schedule(backbone, config.objective)
    return backbone


def change_schedule(backbone: Any, objective: Objective) -> None:
    """Make the model predict something else, or end in pure noise; what is saved says so too."""
    if backbone.schedule.is_flow and (objective.min_snr or objective.prediction or objective.zero_snr):
        raise WordsError("objective: a flow-matching model has no min_snr, prediction or zero_snr; leave them out")
    if objective.prediction is None and not objective.zero_snr:
        return
    config = dict(backbone.scheduler_config)
    kind = objective.prediction or config.get("prediction_type", "epsilon")
    if objective.zero_snr and kind == "epsilon":
        raise WordsError("objective.zero_snr: the model predicts epsilon; set objective.prediction to v_prediction too")
    config["prediction_type"] = kind
    if objective.zero_snr:
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "_class_name": "DDIMScheduler"}
    backbone.scheduler_config, backbone.schedule = config, schedule_from_config(config)
    backbone.prediction_type = kind


def swap_text_encoder(backbone: Any, name: str, seed: int) -> None:
    """Put another Hugging Face encoder in the place of the model's own, behind a projection that is trained.

    The projection is diffusers' own (``encoder_hid_proj`` of the U-Net), so the result opens in plain diffusers; it
    begins as the identity where the two encoders are equally wide.
    """
    from diffusers.models.embeddings import TextTimeEmbedding

    if backbone.family != "stable_diffusion":
        raise WordsError(f"text_encoder: only a Stable Diffusion model takes another one, not {backbone.family}")
    backbone.text_encoder, backbone.tokenizer = _open_encoder(locate(name), backbone)
    unet, width = backbone.unet, backbone.text_encoder.config.hidden_size
    wanted, heads = unet.config.cross_attention_dim, unet.config.addition_embed_type_num_heads
    pooled = unet.config.addition_embed_type == "text"
    if pooled and width % heads:
        raise WordsError(f"text_encoder: its width {width} does not divide into the model's {heads} heads")
    with seeded(seed):
        unet.encoder_hid_proj = nn.Linear(width, wanted)
        if width == wanted:
            nn.init.eye_(unet.encoder_hid_proj.weight)
            nn.init.zeros_(unet.encoder_hid_proj.bias)
        if pooled:
            unet.add_embedding = TextTimeEmbedding(width, unet.add_embedding.proj.out_features, num_heads=heads)
    unet.register_to_config(encoder_hid_dim=width, encoder_hid_dim_type="text_proj")
    with quiet():  # of what should stay in float32, as everything here may
        unet.to(backbone.device, backbone.dtype).eval().requires_grad_(False)


def _open_encoder(folder: Path, backbone: Any) -> tuple[Any, Any]:
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    check_weights(folder)
    only_text: dict[str, Any] = {"t5": transformers.T5EncoderModel, "clip": transformers.CLIPTextModel}
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            known = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
            kind: Any = only_text.get(known.model_type) or MODEL_MAPPING[type(known)]
            # only the tokens are used; a pooler without weights would be noise
            options = {"add_pooling_layer": False} if "add_pooling_layer" in signature(kind.__init__).parameters else {}
            encoder = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, **options)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (ValueError, OSError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"{folder}: not a text encoder with its tokenizer: {' '.join(str(error).split())[:300]}"
        ) from error
    positions = getattr(encoder.config, "max_position_embeddings", 512)
    if known.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= 2  # the first two positions of these are never used
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions, 256)
    if known.model_type != "clip":
        encoder.config.use_attention_mask = True  # diffusers passes the padding mask only when this is set
    return encoder.to(backbone.device, backbone.dtype).eval().requires_grad_(False), tokenizer


def choose(backbone: Any, config: Config) -> dict[str, nn.Module]:
    """Let the configured parts learn. Returns the components that hold them, by their names in the folder."""
    name = denoiser_name(backbone)
    denoiser = getattr(backbone, name)
    parts: dict[str, nn.Module] = {}
    for part in config.train:
        if part == name:
            parts[name] = denoiser.requires_grad_(True).float()
        elif part == "lora":
            parts[name] = add_lora(denoiser, config.lora, config.seed)
        elif part == "token":
            parts |= add_token(backbone, config.token)
        else:
            if part not in getattr(backbone, "components", ()) or getattr(backbone, part, None) is None:
                raise WordsError(f"train: a {backbone.family} model has no {part} to train")
            parts[part] = getattr(backbone, part).requires_grad_(True).float()
    if config.text_encoder is not None:
        for reader in (denoiser.encoder_hid_proj, getattr(denoiser, "add_embedding", None)):
            if reader is not None:
                reader.requires_grad_(True).float()
        parts[name] = denoiser
    for module in parts.values():
        for name, parameter in module.named_parameters():
            if name.startswith("pooler."):
                parameter.requires_grad_(False)  # nothing reads it, and processes would wait for its gradient
        module.train()
        if config.checkpointing:
            ask = getattr(module, "enable_gradient_checkpointing", None) or getattr(
                module, "gradient_checkpointing_enable", None
            )
            if ask is not None:
                ask()
    return parts


def add_lora(denoiser: Any, lora: Lora, seed: int) -> nn.Module:
    """Low-rank adapters on the layers that ``lora.targets`` names; they alone learn, in float32."""
    from peft import LoraConfig, inject_adapter_in_model

    names = [n for n, m in denoiser.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    if not any(n == t or n.endswith("." + t) for n in names for t in lora.targets):
        last = sorted({n.rsplit(".", 2)[-1] if not n[-1].isdigit() else ".".join(n.split(".")[-2:]) for n in names})
        raise WordsError(f"lora.targets: no layer ends in {', '.join(lora.targets)}; there are {', '.join(last[:24])}")
    with seeded(seed):
        settings = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets))
        inject_adapter_in_model(settings, denoiser, "default")
    for name, parameter in denoiser.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return denoiser


class NewWords(nn.Module):
    """An embedding table of which only the rows ``ids`` learn."""

    def __init__(self, base_layer: nn.Embedding, ids: Tensor, start: Tensor) -> None:
        super().__init__()
        self.ids: Tensor
        self.base_layer, self.learned = base_layer, nn.Parameter(start.clone().float())
        self.register_buffer("ids", ids, persistent=False)

    @property
    def weight(self) -> Tensor:
        """The whole table (N, D), learned rows included."""
        return self.base_layer.weight.index_copy(0, self.ids, self.learned.to(self.base_layer.weight.dtype))

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (...,) → embeddings (..., D)."""
        place = (ids[..., None] == self.ids).long()  # (..., k): at most a single 1
        new = (place.to(self.learned.dtype) @ self.learned).to(self.base_layer.weight.dtype)
        return torch.where(place.any(-1, keepdim=True), new, self.base_layer(ids))


def add_token(backbone: Any, token: Token) -> dict[str, nn.Module]:
    """Add a word to every tokenizer and text encoder of the model (textual inversion; Gal et al. 2022, arXiv 2208.01618).

    Its embeddings begin as those of ``token.start`` and alone learn. Returns the encoders by the names of their folders.
    """
    # Kandinsky's text encoder is its prior's, which makes an image's embedding of a prompt: the denoiser never sees words
    pairs = readers(backbone) if backbone.family != "kandinsky" else {}
    if not pairs:
        raise WordsError(f"train: a {backbone.family} model draws by no words that could learn a new one")
    for tokenizer, encoder in pairs.values():
        start = tokenizer(token.start, add_special_tokens=False)["input_ids"]
        if not start:
            raise WordsError(f"token.start: {token.start!r} is no word of the model's tokenizer")
        if tokenizer.add_tokens([token.word]) != 1:
            raise WordsError(f"token.word: the tokenizer knows {token.word!r} already; choose another")
        with torch.random.fork_rng(devices=[]), quiet():
            encoder.resize_token_embeddings(max(len(tokenizer), encoder.config.vocab_size), mean_resizing=False)
        table = encoder.get_input_embeddings()
        new = torch.tensor([tokenizer.convert_tokens_to_ids(token.word)], device=table.weight.device)
        first = table.weight.detach()[start].mean(0, keepdim=True)
        encoder.set_input_embeddings(NewWords(table.requires_grad_(False), new, first))
        read_its_end(encoder, tokenizer)
    return {name: encoder for name, (_, encoder) in pairs.items()}


def read_its_end(encoder: Any, tokenizer: Any) -> None:
    """Let a CLIP that takes the highest id for the end of a text look for the end instead: new words have higher ones."""
    if encoder.config.model_type == "clip_text_model" and encoder.config.eos_token_id == 2:
        for part in (encoder.config, encoder, getattr(encoder, "text_model", encoder)):
            if hasattr(part, "eos_token_id"):
                part.eos_token_id = tokenizer.eos_token_id


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """The weights of a component under the names of its plain class: adapters merged, new words in their table."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: list[Any] = [m for m in module.modules() if isinstance(m, BaseTunerLayer)]
    for layer in layers:
        layer.merge()
    state = {
        k: v.detach().to("cpu", copy=True).contiguous() for k, v in module.state_dict().items() if "lora_" not in k
    }
    for layer in layers:
        layer.unmerge()
    for name, inner in module.named_modules(remove_duplicate=False):  # T5 has its table in two places
        if isinstance(inner, NewWords):
            del state[f"{name}.learned"]
            state[f"{name}.base_layer.weight"] = inner.weight.detach().cpu().contiguous()
    return {name.replace(".base_layer.", "."): value for name, value in state.items()}


def learned(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


class Average:
    """An exponential moving average of the trained parameters, with the usual short memory in the first steps."""

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: dict[str, nn.Parameter], step: int) -> None:
        """After step ``step``, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.values.values()), [parameters[n].detach() for n in self.values], 1 - decay)


@contextmanager
def using(average: Average | None, parameters: dict[str, nn.Parameter]) -> Iterator[None]:
    """Inside, the modules hold the averaged weights, where there are any."""
    if average is None:
        yield
        return
    kept = {name: p.detach().clone() for name, p in parameters.items()}
    try:
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(average.values[name])
        yield
    finally:
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(kept[name])
