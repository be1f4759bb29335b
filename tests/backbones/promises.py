"""What every family promises beside the waist (``check_backbone``), tried on a tiny model of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from counterscan import methods
from counterscan.backbones import load
from counterscan.errors import WordsError
from counterscan.generation import sample
from counterscan.methods.check import check_method
from counterscan.types import Edit

# what cannot work where, and the words of the refusal
REFUSED = {"prompt-to-prompt": "controls attention to words", "instruct": "a model that sees the image"}
EXACT = (
    "direct",
    "diffedit",
    "edit-friendly",
    "factored",
    "flow-edit",
    "instruct",
    "ledits",
    "masked",
    "noise-free",
    "prompt-to-prompt",
)
QUICK: dict[str, Any] = {"null-text": {"inner": 1}, "diffedit": {"maps": 2}, "flow-edit": {"steps": 3}}


def latents(model: Any, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, *model.latent_shape, generator=torch.Generator().manual_seed(0))


def image(model: Any, batch: int = 2) -> torch.Tensor:
    shape = (batch, model.channels, model.resolution, model.resolution)
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


def check_generation(model: Any, prompt: str) -> None:
    """Images in range, each from its own generator."""
    seeds = [torch.Generator().manual_seed(i) for i in range(2)]
    pictures = sample(model, prompt, seeds, steps=3, guidance=2.0)
    assert pictures.shape == image(model).shape
    assert pictures.isfinite().all()
    assert pictures.equal(pictures.clamp(0, 1))
    alone = sample(model, prompt, [torch.Generator().manual_seed(1)], steps=3, guidance=2.0)
    torch.testing.assert_close(alone, pictures[1:], atol=1e-3, rtol=0)


def check_editing(name: str, model: Any, edit: Edit) -> None:
    """The method keeps its promises on this family, or refuses before any work."""
    method = methods.get(name, **({"steps": 3} | QUICK.get(name, {})))
    refused = REFUSED.get(name) if not can(name, model) else None
    if refused is None:
        check_method(method, model, edit=edit, tolerance=1e-4, null_tolerance=1e-4 if name in EXACT else 1.0)
        return
    before = model.evaluations
    with pytest.raises(WordsError, match=refused):
        method(model, image(model), edit, generator=torch.Generator())
    assert model.evaluations == before


def can(name: str, model: Any) -> bool:
    """What the two methods that ask more than the waist need."""
    if name == "instruct":
        return bool(getattr(model, "sees_image", False))
    return name != "prompt-to-prompt" or hasattr(model, "controlled")


def check_openvino(folder: Path, prompts: list[str]) -> None:
    """The same answers from OpenVINO, for any number of rows: nothing is frozen when the network is traced."""
    pytest.importorskip("openvino")
    from counterscan.scale.openvino import OpenVino

    plain, compiled = load(folder), OpenVino(load(folder))
    for rows in (2, 1, 3):
        z, condition = latents(plain, rows), plain.embed(prompts)[[i % 2 for i in range(rows)]]
        with torch.no_grad():
            wanted, got = (model.predict(z, 500, condition).noise for model in (plain, compiled))
        torch.testing.assert_close(got, wanted, atol=1e-3, rtol=1e-3)


def check_half_precision(folder: Path, prompt: str) -> None:
    """bfloat16 is close to float32, and everything that leaves the waist is float32."""
    full, half = load(folder), load(folder, dtype=torch.bfloat16)
    z = latents(full)
    wanted, got = (m.predict(z, 500, m.embed([prompt])).noise for m in (full, half))
    assert got.dtype == torch.float32
    assert (got - wanted).abs().mean() < 0.02 * wanted.abs().mean().clamp(min=1)
    picture = image(full)
    there, here = (m.decode(m.encode(picture)) for m in (full, half))
    assert here.dtype == torch.float32
    assert (here - there).abs().mean() < 0.02
