"""A model where and in what it is asked to compute, as the command line names both. Imports no torch by itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from counterscan.errors import ModelError, WordsError

if TYPE_CHECKING:
    import torch

    from counterscan.backbones.base import Backbone

DTYPES = ("float32", "bfloat16", "float16")


def open_backbone(model: str | Path, device: str = "cpu", *, dtype: str = "float32", offline: bool = False) -> Backbone:
    """``counterscan.load`` on a device (``cpu``, ``openvino``, that is the CPU too, or ``cuda``, also ``cuda:1``), computing
    in one of ``DTYPES``.
    """
    from counterscan.backbones import load

    kind, _, number = device.partition(":")
    if not re.fullmatch(r"cpu|openvino|cuda(:\d+)?", device):
        raise WordsError(f"no device {device!r}: known are cpu, openvino and cuda, also as cuda:1")
    if dtype not in DTYPES:
        raise WordsError(f"no dtype {dtype!r}: known are {', '.join(DTYPES)}")
    if kind == "cuda" and int(number or 0) >= _gpus():
        raise ModelError(f"{device}: torch sees no such GPU here; use the device cpu or openvino")
    opened = load(model, device="cpu" if kind == "openvino" else device, dtype=_numbers(dtype), offline=offline)
    if kind != "openvino":
        return opened
    from counterscan.scale.openvino import OpenVino

    return OpenVino(opened)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _numbers(dtype: str) -> torch.dtype | None:
    """``None`` is float32: it leaves the import of torch to ``load``, which collects no garbage meanwhile."""
    if dtype == "float32":
        return None
    import torch

    found: torch.dtype = getattr(torch, dtype)
    return found
