"""What every built-in model goes through before it is part of the package, and the fingerprint on a model's card.

    python -m counterscan.training.shipping RUN src/counterscan/models/NAME

puts the folder of a finished ``counterscan train`` there.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


BITS = 6  # of the 10 that float16 has after the point: weights move by 0.4 %, and history keeps a quarter less of each model


def copy_as_half(start: Path, out: Path) -> None:
    """Copy a pipeline folder with its weights in float16, the denoiser's rounded to :data:`BITS`: half the size, and read back as
    float32, and its card signed. Only what belongs to the pipeline goes along: drafts and the states of training stay behind.
    """
    from safetensors.torch import load_file, save_file
    from torch import Tensor

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    index = json.loads((start / "model_index.json").read_text(encoding="utf-8"))
    for name in ("model_index.json", "counterscan.json"):
        shutil.copyfile(start / name, out / name)
    for name in (name for name in index if (start / name).is_dir()):
        shutil.copytree(start / name, out / name, ignore=shutil.ignore_patterns("*state.safetensors", ".*"))
    for path in out.rglob("*.safetensors"):
        half = rounded if path.parent.name == "unet" else Tensor.half
        tensors = {name: half(value).contiguous() for name, value in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
    for path in out.rglob("config.json"):  # where it was trained is nobody's business
        config = {k: v for k, v in json.loads(path.read_text()).items() if k != "_name_or_path"}
        path.write_text(json.dumps(config, indent=2) + "\n")
    sign(out)


def sign(folder: Path) -> None:
    """Write a model's fingerprint onto its card, under ``training``, or onto that of a classifier.

    It is what ``counterscan models verify`` compares with. It is of weights and noise schedule: the card has no part in it.
    """
    from counterscan.backbones import load
    from counterscan.backbones.card import FILE
    from counterscan.imaging.files import digest
    from counterscan.robustness.classifier import CARD, WEIGHTS
    from counterscan.training.state import write_text

    path = folder / (CARD if (folder / CARD).is_file() else FILE)
    card = json.loads(path.read_text(encoding="utf-8"))
    if path.name == CARD:
        card["fingerprint"] = digest(folder / WEIGHTS)
    else:
        card["training"] = dict(card.get("training", {})) | {"fingerprint": load(folder, offline=True).fingerprint}
    write_text(path, json.dumps(card, indent=2) + "\n")


def rounded(value: Tensor) -> Tensor:
    """Float16 whose last bits are zero, rounded to nearest: what compresses."""
    import torch

    step = 1 << (10 - BITS)
    bits = value.half().view(torch.int16).int()
    size = ((bits & 0x7FFF) + step // 2) // step * step
    return ((bits & ~0x7FFF) | size).to(torch.int16).view(torch.half)


def plain_card(folder: Path) -> None:
    """Leave out of a card what only the machine of its training knows: of whole paths the names are kept."""
    from counterscan.backbones.card import FILE
    from counterscan.training.state import write_text

    card = json.loads((folder / FILE).read_text(encoding="utf-8"))
    write_text(folder / FILE, json.dumps(_named(card), indent=2) + "\n")


def _named(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _named(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_named(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


if __name__ == "__main__":
    copy_as_half(Path(sys.argv[1]), Path(sys.argv[2]))
    plain_card(Path(sys.argv[2]))
