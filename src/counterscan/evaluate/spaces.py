"""Feature spaces: what two sets of images are compared in. A score is named after its space."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterscan.errors import ModelError, WordsError
from counterscan.robustness.opening import judges, locate

if TYPE_CHECKING:
    from torch import Tensor

KNOWN = (
    "a classifier (chest-nih-judge, a folder), inception:FILE, xrv:NAME, hf:MODEL, open_clip:MODEL or module:function"
)


@dataclass(frozen=True)
class Space:
    """``call`` maps float32 images (B, channels, size, size) in [0, 1] to features (B, dimensions).

    ``labels`` and ``read`` (features -> probabilities) are those of a classifier; ``texts`` maps prompts to features of a
    dual encoder. ``weights`` is the digest of a classifier's.
    """

    name: str
    size: int
    channels: int
    dimensions: int
    call: Callable[[Tensor], Tensor]
    labels: tuple[str, ...] = ()
    read: Callable[[Tensor], Tensor] | None = None
    texts: Callable[[Sequence[str]], Tensor] | None = None
    weights: str = ""

    def __call__(self, images: Tensor) -> Tensor:
        """Features (B, dimensions) float32."""
        import torch

        with torch.no_grad():
            return self.call(images).float()

    @cached_property
    def key(self) -> str:
        """8 hex digits that change with the weights: from the features of one fixed image."""
        import torch

        ramp = torch.linspace(0, 1, self.size)
        features = self((ramp[:, None] * ramp.flip(0)).expand(1, self.channels, -1, -1))
        return hashlib.sha256(features.numpy().round(2).tobytes()).hexdigest()[:8]

    @property
    def fingerprint(self) -> str:
        """What tells it from others of its name: of a classifier what ``counterscan models verify`` prints, else ``key``."""
        return self.weights or self.key


def open_space(spec: str | Space, *, offline: bool = False) -> Space:
    """The space that ``spec`` names; an open one is given back.

    A folder or built-in of :class:`~counterscan.robustness.classifier.Classifier`; ``inception:FILE`` with the TorchScript
    file ``inception-2015-12-05.pt`` (FID as its authors compute it, but for the resizing); ``xrv:NAME`` of torchxrayvision
    (FID_XRV); ``hf:MODEL``, a folder or hub id of a transformers image or dual encoder (RAD-DINO, CLIP); ``open_clip:MODEL``,
    one of an OpenCLIP dual encoder (BiomedCLIP); or ``module:function``, a Python callable on (B, 3, 224, 224).

    Raises:
        WordsError: no such space.
        ModelError: it cannot be opened, or a package that it needs is not installed.
    """
    if isinstance(spec, Space):
        return spec
    kind, colon, rest = spec.partition(":")
    if not colon or Path(spec).exists():
        return _classifier(classifier_folder(spec))
    if kind == "inception":
        return _inception(Path(rest))
    if kind == "xrv":
        return _xrv(rest)
    if kind == "hf":
        return _transformer(rest, offline)
    if kind == "open_clip":
        return _open_clip(rest, offline)
    try:
        call = getattr(importlib.import_module(kind), rest)
    except (ImportError, AttributeError, ValueError):
        raise WordsError(f"no feature space {spec!r}: name {KNOWN}") from None
    try:
        return _sized(rest, 224, 3, call)
    except ModelError:
        raise
    except Exception as error:  # somebody's code may raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise WordsError(f"{spec}: gives no features for images (2, 3, 224, 224) ({reason})") from None


def classifier_folder(spec: str | Path) -> Path:
    """The folder of a classifier, its own or that of a built-in one by its name. Raises ``WordsError`` where there is none."""
    folder = locate(spec)
    if folder is not None:
        return folder
    raise WordsError(
        f"no classifier {str(spec)!r}: name a built-in one ({', '.join(judges())}) or a folder of counterscan train-classifier"
    )


def _classifier(folder: Path) -> Space:
    from counterscan.robustness.classifier import Classifier

    model = Classifier.load(folder)
    name = model.facts.get("name", folder.name)
    width = model.head.in_features
    return Space(
        name, model.size, model.channels, width, model.features, model.labels, lambda x: model.head(x).sigmoid(),
        weights=model.fingerprint,
    )  # fmt: skip


def _inception(path: Path) -> Space:
    import torch

    try:
        model = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelError(
            f"{path}: no TorchScript Inception ({' '.join(str(error).split())[:120]}); "
            "the file is inception-2015-12-05.pt of StyleGAN2-ADA or clean-fid"
        ) from None
    return _sized("inception", 299, 3, lambda x: model((x * 255).round().to(torch.uint8), return_features=True))


def _xrv(name: str) -> Space:
    try:
        xrv: Any = importlib.import_module("torchxrayvision")
    except ImportError:
        raise ModelError(f"xrv:{name}: needs torchxrayvision; pip install torchxrayvision") from None
    model = xrv.models.get_model(name).eval()
    return _sized(f"xrv-{name}", 224, 1, lambda x: model.features2((2 * x - 1) * 1024))


def _transformer(spec: str, offline: bool) -> Space:
    """Images are padded to a square and scaled to the encoder's size, with its mean and deviation."""
    import torch
    import transformers
    from transformers.utils import cached_file

    try:
        model: Any = transformers.AutoModel.from_pretrained(spec, local_files_only=offline, use_safetensors=True).eval()
        facts = json.loads(
            Path(str(cached_file(spec, "preprocessor_config.json", local_files_only=offline))).read_text("utf-8")
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"hf:{spec}: cannot be opened ({' '.join(str(error).split())[:160]})") from None
    size = facts.get("crop_size") or facts.get("size") or 224
    if isinstance(size, dict):
        size = size.get("height") or size["shortest_edge"]
    normal = _normaliser(*(facts.get(key) or [0.5] * 3 for key in ("image_mean", "image_std")))
    dual = hasattr(model, "get_image_features")

    def call(images: Tensor) -> Tensor:
        pixels = normal(images)
        return _pooled(model.get_image_features(pixel_values=pixels) if dual else model(pixel_values=pixels))

    def texts(prompts: Sequence[str]) -> Tensor:
        tokenizer = transformers.AutoTokenizer.from_pretrained(spec, local_files_only=offline)
        with torch.no_grad():
            tokens = tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
            return _pooled(model.get_text_features(**tokens)).float()

    return replace(_sized(Path(spec).name, int(size), 3, call), texts=texts if dual else None)


def _open_clip(spec: str, offline: bool) -> Space:
    """Images as those of :func:`_transformer`. The folder holds ``open_clip_config.json``, weights and tokenizer."""
    import torch
    from huggingface_hub import snapshot_download

    try:
        package: Any = importlib.import_module("open_clip")
    except ImportError:
        raise ModelError(f"open_clip:{spec}: needs open-clip-torch; pip install 'counterscan[metrics]'") from None
    try:
        folder = Path(spec) if Path(spec).is_dir() else Path(snapshot_download(spec, local_files_only=offline))
        config = json.loads((folder / "open_clip_config.json").read_text("utf-8"))
        encoder = config["model_cfg"]["text_cfg"].get("hf_model_name")
        if offline and encoder and not Path(encoder).is_dir():  # open_clip would ask the hub for its configuration
            raise ValueError(
                f"its hf_model_name, {encoder}, is on the hub; name a folder there, or go without --offline"
            )
        named = f"local-dir:{folder}"
        model = package.create_model(named, require_pretrained=True, weights_only=True).eval()
        tokenizer = package.get_tokenizer(named)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"open_clip:{spec}: cannot be opened ({' '.join(str(error).split())[:160]})") from None
    told = model.visual.preprocess_cfg
    size, normal = told["size"], _normaliser(told["mean"], told["std"])

    def texts(prompts: Sequence[str]) -> Tensor:
        with torch.no_grad():
            found: Tensor = model.encode_text(tokenizer(list(prompts))).float()
        return found

    side = size if isinstance(size, int) else size[0]
    return replace(_sized(Path(spec).name, side, 3, lambda x: model.encode_image(normal(x))), texts=texts)


def _normaliser(mean: Sequence[float], deviation: Sequence[float]) -> Callable[[Tensor], Tensor]:
    """Images (B, 3, H, W) as an encoder was trained on them."""
    import torch

    centre, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, deviation))
    return lambda images: (images - centre) / scale


def _pooled(output: Any) -> Tensor:
    """One vector an image, whatever form the encoder gives it in."""
    if hasattr(output, "ndim"):
        return output
    pooled = getattr(output, "pooler_output", None)
    return output.last_hidden_state[:, 0] if pooled is None else pooled


def _sized(name: str, size: int, channels: int, call: Callable[[Tensor], Any]) -> Space:
    """The space of a callable, which is asked how many features it gives."""
    import torch

    with torch.no_grad():
        out = torch.as_tensor(call(torch.zeros(2, channels, size, size)))
    if out.ndim != 2 or len(out) != 2:
        raise ModelError(f"{name}: gives features of shape {tuple(out.shape)} for 2 images, (2, D) needed")
    return Space(name, size, channels, out.shape[1], lambda x: torch.as_tensor(call(x)))
