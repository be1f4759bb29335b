"""What is shipped is half the size, close to what was trained, and compresses."""

from __future__ import annotations

import json
import zlib

import torch
from safetensors.torch import load_file
from tests.models import tiny
from tests.training.small import config
from torch import Tensor

import counterscan
from counterscan.training.shipping import BITS, copy_as_half, plain_card, rounded
from counterscan.training.trainer import train


def test_rounding_is_to_the_nearest_and_leaves_zeros_at_the_end():
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    near = rounded(x)
    assert near.dtype == torch.float16
    assert ((near.float() - x.half().float()).abs() <= x.half().float().abs() * 2.0 ** -(BITS + 1) * 1.001).all()
    assert (near.view(torch.int16) & ((1 << (10 - BITS)) - 1) == 0).all()
    exact = torch.tensor([0.0, -0.0, 1.0, -1.5, 2.0])
    assert torch.equal(rounded(exact).float(), exact)
    small, plain = (len(zlib.compress(y.numpy().tobytes())) for y in (near, x.half()))
    assert small < 0.85 * plain


def test_only_the_denoiser_is_rounded_and_the_card_is_signed(tmp_path):
    start, out = tiny(tmp_path / "start"), tmp_path / "out"
    copy_as_half(start, out)
    for name, half in (("unet", rounded), ("vae", Tensor.half)):
        file = f"{name}/diffusion_pytorch_model.safetensors"
        before, kept = load_file(start / file), load_file(out / file)
        assert all(torch.equal(kept[key], half(value)) for key, value in before.items())
    signed = json.loads((out / "counterscan.json").read_text())["training"]["fingerprint"]
    assert signed == counterscan.load(out).fingerprint != counterscan.load(start).fingerprint


def test_of_a_run_only_the_model_is_shipped(tmp_path):
    result = train(config(tmp_path, steps=2))
    assert (result.folder / "checkpoints").is_dir()
    copy_as_half(result.folder, tmp_path / "out")
    plain_card(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    index = json.loads((tmp_path / "out/model_index.json").read_text())
    assert names <= {"model_index.json", "counterscan.json", *index} and "unet" in names
    assert str(tmp_path) not in (tmp_path / "out/counterscan.json").read_text()
    assert json.loads((tmp_path / "out/counterscan.json").read_text())["training"]["start"] == "model"
    assert counterscan.load(tmp_path / "out").card.name == "run"
