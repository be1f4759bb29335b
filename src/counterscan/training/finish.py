"""What a run gives: images drawn on the way, and at the end a model folder that opens here and in plain diffusers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from counterscan.backbones.card import Card
from counterscan.errors import WorkError
from counterscan.training.config import Config
from counterscan.training.corpus import Corpus
from counterscan.training.parts import plain_state, readers
from counterscan.training.pictures import read_row
from counterscan.training.shipping import sign
from counterscan.training.state import write_text
from counterscan.training.validation import last

LATENT_IMAGES = 64


def draw_samples(backbone: Any, config: Config, step: int) -> Path:
    """One image a prompt, side by side, in ``samples/``; always from the same noise."""
    from PIL import Image

    from counterscan.generation import sample

    settings = config.samples
    getattr(backbone, "_prompts", {}).clear()  # what they became under the weights of an earlier step
    generators = [torch.Generator().manual_seed(config.seed + i) for i in range(len(settings.prompts))]
    images = sample(backbone, settings.prompts, generators, steps=settings.steps, guidance=settings.guidance)
    strip = (torch.cat(list(images), -1).permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)
    path = config.output / "samples" / f"step-{step:07d}.png"
    path.parent.mkdir(exist_ok=True)
    draft = path.with_name(f".{path.name}")
    Image.fromarray(strip[..., 0] if strip.shape[-1] != 3 else strip).save(draft, format="PNG")
    os.replace(draft, path)
    return path


def save_model(
    backbone: Any,
    parts: dict[str, nn.Module],
    start: Path,
    config: Config,
    corpus: Corpus,
    losses: Sequence[float],
    processes: int = 1,
) -> Path:
    """Write the pipeline into ``config.output``: what was trained anew, the rest as it was, and a card.

    ``model_index.json`` is written last, so a folder that has one is complete; then the card is signed.
    """
    out = config.output
    index = json.loads((start / "model_index.json").read_text(encoding="utf-8"))
    if index.get("_class_name") == "KandinskyV22Pipeline":
        index |= place_prior(index, start, out)
    if "vae" in parts and config.compact is not None:
        rescale(backbone, corpus)
    fresh = dict(parts)
    if config.text_encoder is not None:
        fresh.setdefault("text_encoder", backbone.text_encoder)
        index["text_encoder"] = ["transformers", type(backbone.text_encoder).__name__]
        index["tokenizer"] = ["transformers", type(backbone.tokenizer).__name__]
    try:
        for child in sorted(start.iterdir()):
            if child.is_dir() and child.name in index and child.name not in fresh:
                place(child, out / child.name)
        for name, module in fresh.items():
            write_component(module, out / name)
        if config.text_encoder is not None or "token" in config.train:
            for part, (tokenizer, _) in readers(backbone).items():
                tokenizer.save_pretrained(out / part.replace("text_encoder", "tokenizer"))
        if "lora" in config.train:
            save_lora(parts, config, out)
        if config.objective.prediction or config.objective.zero_snr:
            index["scheduler"] = ["diffusers", backbone.scheduler_config["_class_name"]]
            write_text(
                out / "scheduler" / "scheduler_config.json", json.dumps(backbone.scheduler_config, indent=2) + "\n"
            )
        card_of(backbone, config, corpus, losses, processes).write(out)
        write_text(out / "model_index.json", json.dumps(index, indent=2) + "\n")
        sign(out)
    except OSError as error:
        raise WorkError(
            f"{out}: the model cannot be written ({error.strerror}); make room and run the same command"
        ) from error
    return out


def card_of(backbone: Any, config: Config, corpus: Corpus, losses: Sequence[float], processes: int) -> Card:
    """The card of the trained model: the old one, with what was learned here."""
    names = corpus.findings if config.data.captions.source != "caption" else ()
    training = {
        "data": f"{config.data.manifest.name}: {len(corpus)} images, split {config.data.split or 'all'}",
        "start": config.model or "nothing",
        "trained": list(config.train),
        "steps": config.steps,
        "images_seen": config.steps * config.batch,
        "processes": processes,
        "loss": round(sum(losses) / len(losses), 6) if losses else None,
        "settings": json.loads(config.model_dump_json(exclude={"output", "data"})),
        "earlier": dict(backbone.card.training),
    }
    captions = config.data.captions
    of_findings = captions.source in ("findings", "either") or (captions.source == "auto" and not any(corpus.captions))
    return replace(
        backbone.card,
        name=config.name or config.output.name,
        family=backbone.family,
        findings=tuple(dict.fromkeys([*(names if of_findings else ()), *backbone.card.findings])),
        template=captions.template if of_findings else backbone.card.template,
        training=training,
        scores=last(config),
        null_change={},
        default_method=config.default_method or ("instruct" if corpus.paired else backbone.card.default_method),
        sides=config.sides or backbone.card.sides,
        credit=config.credit or backbone.card.credit,
    )


@torch.no_grad()
def rescale(backbone: Any, corpus: Corpus) -> None:
    """Set the autoencoder's scaling factor so that its latents have unit variance, as a U-Net from nothing needs them."""
    vae = backbone.vae.eval()
    vae.register_to_config(scaling_factor=1.0)
    latents = []
    for i in range(min(LATENT_IMAGES, len(corpus))):
        image = read_row(corpus.files[i], corpus.where(i), backbone.channels, backbone.resolution)
        latents.append(backbone.encode(image[None]).cpu())
    vae.register_to_config(scaling_factor=float(1 / torch.cat(latents).std().clamp(min=1e-6)))


def write_component(module: Any, folder: Path) -> None:
    """Weights and config of a component, in the format of its own library."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    of_diffusers = hasattr(module, "save_config")
    config = (
        json.loads(module.to_json_string())
        if of_diffusers
        else json.loads(module.config.to_json_string(use_diff=False))
    )
    config = {k: v for k, v in config.items() if k not in ("_name_or_path", "_use_default_values")}
    name = "diffusion_pytorch_model.safetensors" if of_diffusers else "model.safetensors"
    for stale in folder.glob("*.safetensors*"):
        if stale.name != name:
            stale.unlink()
    draft = folder / f".{name}"
    save_file(plain_state(module), draft, metadata={"format": "pt"})
    os.replace(draft, folder / name)
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")


def save_lora(parts: dict[str, nn.Module], config: Config, out: Path) -> None:
    """The adapters alone, as ``pytorch_lora_weights.safetensors``, for ``pipeline.load_lora_weights``."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    name = next(n for n in parts if n in ("unet", "transformer"))
    state: dict[str, Tensor] = get_peft_model_state_dict(parts[name], adapter_name="default")
    tensors = {f"{name}.{k}": v.detach().cpu().contiguous() for k, v in state.items() if "lora_" in k}
    lora = config.lora
    facts = {f"{name}.r": lora.rank, f"{name}.lora_alpha": lora.alpha, f"{name}.target_modules": list(lora.targets)}
    path = out / "pytorch_lora_weights.safetensors"
    draft = path.with_name(f".{path.name}")
    save_file(tensors, draft, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(facts)})
    os.replace(draft, path)


def place(source: Path, target: Path) -> None:
    """Copy a folder; weights, which nothing writes in place, share their disk blocks where the file system can."""
    shutil.copytree(source, target, dirs_exist_ok=True, copy_function=_link)


def place_prior(index: dict[str, Any], decoder: Path, out: Path) -> dict[str, Any]:
    """Copy the prior of a Kandinsky decoder beside its decoder, as one folder; returns what the index then says."""
    from counterscan.backbones.kandinsky import _prior

    beside, _ = _prior(index, decoder)
    known = json.loads((beside / "model_index.json").read_text(encoding="utf-8"))
    parts = {name: entry for name, entry in known.items() if (beside / name).is_dir() and isinstance(entry, list)}
    for name in parts:
        place(beside / name, out / f"prior_{name}")
    return {"_class_name": "KandinskyV22CombinedPipeline"} | {f"prior_{name}": entry for name, entry in parts.items()}


def _link(source: str, target: str) -> None:
    real = os.path.realpath(source)
    if os.path.exists(target):
        os.unlink(target)
    if real.endswith(".safetensors"):
        try:
            os.link(real, target)
            return
        except OSError:
            pass  # another file system
    shutil.copyfile(real, target)
