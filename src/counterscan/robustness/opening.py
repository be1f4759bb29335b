"""Any classifier as one callable: images float32 (B, C, H, W) in [0, 1] -> probabilities (B, K), with its labels."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterscan.errors import ModelError, WordsError

if TYPE_CHECKING:
    from torch import Tensor

PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib")
CARD = "classifier.json"
BUILT_IN = Path(__file__).parent.parent / "models"


def locate(spec: str | Path) -> Path | None:
    """The folder of a classifier, its own or that of a built-in one by its name; ``None`` where there is none."""
    own = Path(spec)
    if (own / CARD).is_file():
        return own
    named = not own.exists() and len(own.parts) == 1 and (BUILT_IN / own / CARD).is_file()
    return BUILT_IN / own if named else None


def judges() -> list[str]:
    """The built-in classifiers, sorted."""
    return sorted(path.parent.name for path in BUILT_IN.glob(f"*/{CARD}"))


@dataclass(frozen=True)
class Outputs:
    """A classifier under test. ``call`` maps float32 images (B, channels, size, size) to probabilities (B, K)."""

    name: str
    labels: tuple[str, ...]
    size: int
    channels: int
    call: Callable[[Tensor], Tensor]
    weights: str = ""

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with the labels and the weights: ``weights``, or what it says of a few fixed images."""
        import torch

        if self.weights:
            return self.weights
        shape = (4, self.channels, self.size, self.size)
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        said = self(images, batch=1).flatten().tolist()  # there are files that take no more at once
        told = repr((self.labels, [f"{p:.3g}" for p in said]))  # the last digits depend on the machine
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def __call__(self, images: Tensor, batch: int = 16) -> Tensor:
        """Probabilities (B, K) float32 of grey or colour images (B, C, H, W) of any size."""
        import torch

        if images.shape[-2:] != (self.size, self.size):
            shape = (self.size, self.size)
            images = torch.nn.functional.interpolate(images, size=shape, mode="bilinear", antialias=True)
        if images.shape[1] != self.channels:
            images = images.mean(1, keepdim=True).expand(-1, self.channels, -1, -1)
        with torch.no_grad():
            return torch.cat([self.call(part).float() for part in images.split(batch)])


def open_classifier(
    spec: str | Path, labels: Sequence[str] = (), *, size: int | None = None, channels: int | None = None
) -> Outputs:
    """A classifier by what ``spec`` names.

    A folder or built-in of :class:`~counterscan.robustness.classifier.Classifier`; a TorchScript archive (``.ts``,
    ``.torchscript``); an exported program (``.pt2``); an ONNX file; ``timm:NAME`` with its pretrained weights, also
    ``timm:hf-hub:OWNER/MODEL`` and ``timm:local-dir:FOLDER``; ``xrv:NAME`` of torchxrayvision; or ``module:function``, a Python
    callable that is imported. Files that run code on loading (pickles, also inside an exported program) are refused. Foreign
    models need ``labels`` and give probabilities (logits are recognised by values outside [0, 1]). They read images of ``size``
    pixels (224) and ``channels`` (1); those of timm and torchxrayvision, and ONNX files that fix them, say so themselves.

    Raises:
        ModelError: damaged, a pickle, or without a package that it needs; later, if it takes other images.
        WordsError: there is no such classifier, labels are missing, their number is not that of the outputs, or an ONNX file
            takes another size.
    """
    from counterscan.robustness.classifier import Classifier

    path, text = Path(spec), str(spec)
    if locate(path) is not None:
        model = Classifier.load(path)
        name = model.facts.get("name", path.name)
        return Outputs(name, model.labels, model.size, model.channels, model.probabilities, model.fingerprint)
    if text.startswith("xrv:"):
        return _xrv(text.removeprefix("xrv:"))
    if path.suffix.lower() in PICKLES:
        raise ModelError(
            f"{path.name}: may hold code that runs on loading; export it with torch.jit.save, torch.export or ONNX"
        )
    if ":" not in text and not path.is_file():
        raise WordsError(
            f"no classifier {text!r}: name a built-in one ({', '.join(judges())}), a folder of counterscan train-classifier, "
            "a .ts, .pt2 or .onnx file, timm:NAME, xrv:NAME or module:function"
        )
    if not labels:
        raise WordsError(f"{path.name}: name its outputs with --labels a,b,c")
    if text.startswith("timm:"):
        return _timm(text.removeprefix("timm:"), tuple(labels))
    fixed: tuple[int | None, int | None] = None, None
    if ":" in text and not path.exists():
        call = _imported(text)
    else:
        call, fixed = _file(path)
    channels = _agreed(path.name, "channels", channels, fixed[0]) or 1
    size = _agreed(path.name, "size", size, fixed[1]) or 224
    return Outputs(path.name, tuple(labels), size, channels, _checked(call, tuple(labels), path.name))


def _agreed(name: str, what: str, asked: int | None, fixed: int | None) -> int | None:
    if asked and fixed and asked != fixed:
        raise WordsError(f"{name}: its {what} is fixed to {fixed}, not {asked}; leave --{what} out")
    return asked or fixed


def _checked(call: Callable[[Tensor], Any], labels: tuple[str, ...], name: str) -> Callable[[Tensor], Tensor]:
    def probabilities(images: Tensor) -> Tensor:
        import torch

        try:
            out = torch.as_tensor(call(images))
        except Exception as error:  # each format has errors of its own for images that it does not take
            shape, reason = " x ".join(map(str, images.shape[1:])), " ".join(str(error).split())[:160]
            raise ModelError(
                f"{name}: fails on images of {shape} ({reason}); say what it takes with --channels and --size"
            ) from error
        out = out[:, None] if out.ndim == 1 else out
        if out.ndim != 2 or out.shape[1] != len(labels):
            raise WordsError(f"{name}: has outputs of shape {tuple(out.shape)}, --labels names {len(labels)}")
        return out if out.min() >= 0 and out.max() <= 1 else out.sigmoid()

    return probabilities


def _file(path: Path) -> tuple[Callable[[Tensor], Any], tuple[int | None, int | None]]:
    """What a file holds, and the channels and the size that it fixes."""
    import torch

    try:
        if path.suffix.lower() == ".onnx":
            return _onnx(path)
        if path.suffix.lower() == ".pt2":
            _without_pickles(path)
            return torch.export.load(path).module(), (None, None)
        return torch.jit.load(str(path), map_location="cpu").eval(), (None, None)
    except ModelError:
        raise
    except Exception as error:  # each format has errors of its own for a damaged file
        raise ModelError(f"{path.name}: cannot be opened ({' '.join(str(error).split())[:160]})") from None


def _without_pickles(path: Path) -> None:
    """Refuse an exported program with parts that run on loading: pickled objects and compiled libraries.

    Read by torch's own reader, so that nothing is in it for one reader and not for the other.
    """
    import torch
    from torch.export.pt2_archive import PT2ArchiveReader

    refused = ModelError(f"{path.name}: holds pickled objects or compiled code; export a module of plain tensors")
    with PT2ArchiveReader(str(path)) as archive:
        for name in archive.get_file_names():
            parts = []
            if name.endswith("_config.json"):
                parts = list(json.loads(archive.read_string(name))["config"].values())
            elif name.endswith(".pt"):
                try:
                    torch.load(io.BytesIO(archive.read_bytes(name)), weights_only=True)
                except Exception:  # whatever is wrong with it, torch.export would try again with pickle
                    raise refused from None
            plain = all(p["path_name"].startswith(("weight_", "tensor_")) and not p["use_pickle"] for p in parts)
            if name.startswith("data/aotinductor/") or not plain:
                raise refused


def _onnx(path: Path) -> tuple[Callable[[Tensor], Any], tuple[int | None, int | None]]:
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        raise ModelError(f"{path.name}: ONNX files need onnxruntime; pip install onnxruntime") from None
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    asked = session.get_inputs()[0]
    sides = [side if isinstance(side, int) else None for side in asked.shape]  # a side that is not fixed has a name
    if len(sides) != 4 or sides[2] != sides[3]:
        raise ModelError(f"{path.name}: its input is {asked.shape}; (batch, channels, size, size) needed")
    return lambda images: session.run(None, {asked.name: images.numpy()})[0], (sides[1], sides[2])


def _imported(text: str) -> Callable[[Tensor], Any]:
    module, _, function = text.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(f"{text}: cannot be imported ({error})") from None


def _timm(name: str, labels: tuple[str, ...]) -> Outputs:
    import torch

    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise ModelError(f"timm:{name}: needs timm; pip install timm") from None
    try:
        model = timm.create_model(name, pretrained=True).eval()
    except Exception as error:  # of the hub, of the file, or of timm
        raise ModelError(f"timm:{name}: cannot be opened ({' '.join(str(error).split())[:160]})") from None
    facts = model.pretrained_cfg
    channels, _, size = facts["input_size"]
    mean, deviation = (torch.tensor(facts[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    call = _checked(lambda x: model((x - mean) / deviation), labels, f"timm:{name}")
    return Outputs(f"timm:{name}", labels, size, channels, call)


def _xrv(name: str) -> Outputs:
    try:
        xrv = importlib.import_module("torchxrayvision")
    except ImportError:
        raise ModelError(f"xrv:{name}: needs torchxrayvision; pip install torchxrayvision") from None
    model = xrv.models.get_model(name).eval()
    return Outputs(f"xrv:{name}", tuple(model.pathologies), 224, 1, lambda x: model((2 * x - 1) * 1024))
