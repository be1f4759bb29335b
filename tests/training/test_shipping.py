"""What is shipped is half the size, close to what was trained, and compresses."""

from __future__ import annotations

import zlib

import torch
from safetensors.torch import load_file, save_file

from counterscan.training.shipping import BITS, copy_as_half, rounded


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


def test_only_the_denoiser_is_rounded(tmp_path):
    for name in ("unet", "vae"):
        (tmp_path / "start" / name).mkdir(parents=True)
        save_file({"w": torch.full((4,), 0.1)}, tmp_path / "start" / name / "x.safetensors")
    copy_as_half(tmp_path / "start", tmp_path / "out")
    kept = {name: load_file(tmp_path / "out" / name / "x.safetensors")["w"] for name in ("unet", "vae")}
    assert torch.equal(kept["vae"], torch.full((4,), 0.1).half())
    assert torch.equal(kept["unet"], rounded(torch.full((4,), 0.1)))
    assert not torch.equal(kept["unet"], kept["vae"])
