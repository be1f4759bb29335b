"""The parts of a pipeline folder, opened one by one and checked: every fault is a ``ModelError`` that names it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from counterscan.errors import ModelError

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: missing; a model is a diffusers pipeline folder") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: expected a JSON object")
    return values


def open_diffusers(kind: Any, folder: Path, dtype: Any = None) -> Any:
    """A diffusers model; every weight must be there, of the right shape, and none left over.

    ``dtype`` spares the memory of large networks that will be used in half precision anyway.
    """
    variant = _variant(weight_files(folder)[0]) or None
    try:
        model, info = kind.from_pretrained(
            folder,
            variant=variant,
            torch_dtype=dtype,
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


def autoencoder_class(index: Mapping[str, Any], folder: Path) -> Any:
    """AutoencoderKL, or AutoencoderTiny where model_index.json says so."""
    name = (index.get("vae") or [None, "AutoencoderKL"])[-1]
    if name == "AutoencoderKL":
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        return AutoencoderKL
    if name == "AutoencoderTiny":
        from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

        return AutoencoderTiny
    raise ModelError(f"{folder / 'model_index.json'}: vae is {name}; AutoencoderKL and AutoencoderTiny are supported")


def open_text(index: Mapping[str, Any], folder: Path, name: str = "text_encoder", *, pooled: bool = False) -> Any:
    """The text encoder (or another transformers component ``name``) of the class that ``model_index.json`` names."""
    import transformers

    kind = _transformers_class(transformers, index, name, folder)
    path = folder / name
    options = {}
    if not pooled and "add_pooling_layer" in inspect.signature(kind.__init__).parameters:
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
    missing = [k for k in info["missing_keys"] if (pooled or not k.startswith("pooler")) and "position_ids" not in k]
    if missing:
        raise ModelError(f"{path}: the weights lack {_some(missing)}")
    return model


def open_tokenizer(index: Mapping[str, Any], folder: Path, name: str = "tokenizer") -> Any:
    """The tokenizer of the class that ``model_index.json`` names."""
    import transformers

    kind = _transformers_class(transformers, index, name, folder)
    path = folder / name
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__


def _some(names: Any) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
