"""Model families behind one waist. ``load`` opens a built-in name, a local folder or a hub id."""

from __future__ import annotations

import importlib
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterscan.errors import ModelError, WordsError

if TYPE_CHECKING:
    import torch

    from counterscan.backbones.base import Backbone

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# the folders of the components alone: beside them many models keep all their weights again in single files
HUB_FILES = ["model_index.json", "counterscan.json", "*/*.json", "*/*.txt", "*/*.safetensors", "*/*.model"]
HUB_SKIP = ["*.fp16.*", "*.non_ema.*", "safety_checker/*", "text_encoders/*", "vae_1_0/*", "*/openvino*", "*onnx*"]
# what the pipeline class of model_index.json begins with → where its family is; the first that fits
FAMILIES = {
    "StableDiffusionXL": ("sdxl", "Sdxl"),
    "StableDiffusion3": ("sd3", "Sd3"),
    "Flux": ("flux", "Flux"),
    "KandinskyV22": ("kandinsky", "Kandinsky"),
    "DDPM": ("pixel", "Pixel"),
    "DDIM": ("pixel", "Pixel"),
    "": ("stable_diffusion", "StableDiffusion"),
}


def names() -> list[str]:
    """The built-in models, sorted."""
    root = _models()
    return sorted(p.parent.name for p in root.glob("*/model_index.json")) if root.is_dir() else []


def load(
    model: str | Path, *, device: str = "cpu", dtype: torch.dtype | None = None, offline: bool = False
) -> Backbone:
    """Open a model: the name of a built-in one, a local diffusers folder, or a hub id ("owner/name").

    The network is used for a hub id only, and not at all with ``offline``. Raises ``WordsError`` for an unknown name
    and ``ModelError`` for a folder that cannot be used.
    """
    from counterscan.backbones.collecting import uncollected
    from counterscan.backbones.components import read_json

    folder = locate(model, offline=offline)
    index = read_json(folder / "model_index.json")
    made_by = str(index.get("_class_name", ""))
    if made_by == "KandinskyV22Pipeline" and not Path(model).exists():  # on the hub its prior is a model of its own
        locate(str(model).replace("decoder", "prior"), offline=offline)
    module, name = next(where for start, where in FAMILIES.items() if made_by.startswith(start))
    if module == "stable_diffusion" and "unet" not in index:
        known = ", ".join(sorted({family for family, _ in FAMILIES.values()}))
        raise ModelError(f"{folder}: a {made_by or 'pipeline without a name'} is of no known family: {known}")
    with uncollected():  # the first model of a process imports torch, diffusers and transformers here
        family: Any = getattr(importlib.import_module(f"counterscan.backbones.{module}"), name)
        opened: Backbone = family.open(folder, device=device, dtype=dtype)
    return opened


def locate(model: str | Path, *, offline: bool = False) -> Path:
    """The local folder of a model; fetches a hub id first unless ``offline``."""
    builtin = _models() / str(model)
    if str(model) in names():
        return builtin
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.suffix in (".ckpt", ".bin", ".pt", ".pth", ".safetensors"):
        raise ModelError(f"{path}: a model is a diffusers pipeline folder, not a single file; convert it first")
    if isinstance(model, str) and HUB_ID.fullmatch(model) and not model.startswith("."):
        return _fetch(model, offline)
    known = ", ".join(names()) or "none installed"
    raise WordsError(f"no model {str(model)!r}: not a built-in name ({known}), a folder or a hub id such as owner/name")


def check_name(model: str | Path, *, offline: bool = False) -> None:
    """Raise what :func:`locate` does for a name that can be no model. A hub id is asked for only ``offline``, in the cache."""
    if offline or Path(model).exists() or not (isinstance(model, str) and HUB_ID.fullmatch(model)):
        locate(model, offline=True)


def _fetch(model: str, offline: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(model, allow_patterns=HUB_FILES, ignore_patterns=HUB_SKIP, local_files_only=offline)
        )
    except Exception as error:  # the hub client has many error types, all meaning that the model is not here
        advice = (
            "it is not in the local cache and --offline was given" if offline else " ".join(str(error).split())[:300]
        )
        raise ModelError(f"{model}: not a local folder, and not fetched from the hub: {advice}") from error


def _models() -> Path:
    return Path(str(resources.files("counterscan"))) / "models"
