"""The small autoencoder: it begins as a good code, and a compact model may have it."""

from __future__ import annotations

import pytest
import torch

import counterscan
from counterscan.backbones import compact
from counterscan.backbones.tiny import build, start_as_wavelet, wavelet_code


def waves(channels: int, side: int) -> torch.Tensor:
    """A smooth picture (1, channels, side, side) in [-1, 1]: one full wave over its width, of another phase a channel."""
    x = torch.linspace(0, 2 * torch.pi, side)
    rows = [torch.sin(x + k)[None] * torch.cos(x / 2 - k)[:, None] for k in range(channels)]
    return 0.6 * torch.stack(rows)[None]


@pytest.mark.parametrize(("channels", "latent_channels"), [(1, 4), (3, 6), (3, 12), (4, 16)])
@pytest.mark.parametrize("levels", [3, 4])
def test_a_new_autoencoder_gives_a_smooth_image_back(channels, latent_channels, levels):
    vae = build(channels, latent_channels, 16, levels)
    start_as_wavelet(vae)
    image = waves(channels, 128)
    with torch.no_grad():
        z = vae.encode(image).latents
        again = vae.decode(z).sample
    reduction = 2 ** (levels - 1)
    assert z.shape == (1, latent_channels, 128 // reduction, 128 // reduction)
    inside = (slice(None), slice(None), slice(16, -16), slice(16, -16))  # a convolution's padding darkens the rim
    assert (again - image)[inside].abs().max() < 0.12
    assert (again - image)[inside].abs().mean() < 0.03


def test_the_code_of_colours_keeps_means_first_and_can_be_undone():
    code = wavelet_code(3, 12)
    assert torch.linalg.matrix_rank(code) == 12
    grey = torch.full((12,), 0.25)
    assert torch.allclose(code @ grey, torch.tensor([1.0] + [0.0] * 11), atol=1e-6)  # brightness, and nothing else
    assert torch.equal(wavelet_code(3, 6), code[:6])
    red = torch.tensor([1.0, 0, 0] * 4)
    assert (code[:3] @ red).abs().min() > 0 and (code[3:] @ red).abs().max() < 1e-6  # no details in an even colour


def test_a_width_too_small_for_the_colours_is_refused():
    with pytest.raises(ValueError, match="width of 12"):
        start_as_wavelet(build(3, 4, 8, 3))


def test_a_compact_model_with_a_tiny_autoencoder_opens_here_and_in_diffusers(tmp_path):
    from diffusers import StableDiffusionPipeline

    shape = {"unet_blocks": [16, 16], "unet_heads": 2, "text_hidden": 16, "text_heads": 2, "text_layers": 1}
    folder = compact.build(
        tmp_path / "m", words=["polyp"], channels=3, resolution=32, vae_kind="tiny", vae_blocks=[16] * 3, **shape
    )
    backbone = counterscan.load(folder)
    image = (waves(3, 32) / 2 + 0.5).clamp(0, 1)
    assert backbone.encode(image).shape == (1, 4, 8, 8)
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    assert type(pipe.vae).__name__ == "AutoencoderTiny"


@pytest.mark.parametrize("wrong", [{"vae_blocks": [16, 32, 32]}, {"vae_blocks": [16, 16]}, {"vae_kind": "big"}])
def test_a_tiny_autoencoder_of_unequal_levels_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="tiny"):
        compact.build(tmp_path / "m", words=[], **({"vae_kind": "tiny"} | wrong))
