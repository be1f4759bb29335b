"""Small autoencoders without norms (diffusers' ``AutoencoderTiny``), begun as a wavelet code and not as noise.

A tiny autoencoder costs a fraction of an ``AutoencoderKL``: its layers at full resolution are single convolutions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

HAAR = torch.tensor([[1, 1, 1, 1], [-1, 1, -1, 1], [-1, -1, 1, 1], [1, -1, -1, 1]]) / 4
OPPONENT = torch.tensor([[1, 1, 1], [1.5, 0, -1.5], [-0.75, 1.5, -0.75]]) / 3  # brightness, red - blue, green


def build(channels: int, latent_channels: int, width: int, levels: int) -> Any:
    """An AutoencoderTiny that shrinks images by ``2 ** (levels - 1)``, ``width`` channels wide at each level.

    >>> build(1, 4, 8, 3).config.num_encoder_blocks
    (0, 1, 2)
    """
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    blocks = (*(0,) * (levels - 2), 1, 2)
    return AutoencoderTiny(
        in_channels=channels,
        out_channels=channels,
        encoder_block_out_channels=(width,) * levels,
        decoder_block_out_channels=(width,) * levels,
        num_encoder_blocks=blocks,
        num_decoder_blocks=(3, *blocks[-2::-1]),
        latent_channels=latent_channels,
    )


def wavelet_code(channels: int, latent_channels: int) -> Tensor:
    """The linear code (n, 4 * channels) of a 2 x 2 patch, its values ordered by place and then by channel.

    The means of all channels come first, then the details of the first, then those of the others; as many as
    ``latent_channels``. Colours become brightness and two differences. Each row is scaled to about unit variance.
    """
    colour = OPPONENT if channels == 3 else torch.eye(channels)
    rows = torch.kron(HAAR, colour)
    order = sorted(range(len(rows)), key=lambda r: r >= channels and r % channels > 0)
    means = torch.tensor([4.0] + [8.0 if channels == 3 else 4.0] * (channels - 1))
    gain = torch.cat([means, torch.full((3 * channels,), 24.0)])
    return (rows * gain[:, None])[order[:latent_channels]]


@torch.no_grad()
def start_as_wavelet(vae: Any) -> None:
    """Let a new autoencoder begin as a good linear code: averages over 2 x 2 pixels, then a 2 x 2 Haar transform.

    Residual blocks begin as the identity, so the first reconstruction is the image at twice the latents' resolution and
    training only has to add what a linear code cannot hold. Needs a reduction of 4 or more, and a width of four times the
    channels.
    """
    channels = vae.config.in_channels
    carried = 4 * channels
    if vae.config.encoder_block_out_channels[0] < carried:
        raise ValueError(f"an autoencoder of {channels} channels needs a width of {carried} or more")
    code = wavelet_code(channels, vae.config.latent_channels)
    for block in vae.modules():
        if type(block).__name__ == "AutoencoderTinyBlock":
            block.conv[-1].weight.zero_()
            block.conv[-1].bias.zero_()
    encoder: list[Any] = [m for m in vae.encoder.layers if isinstance(m, nn.Conv2d)]
    decoder: list[Any] = [m for m in vae.decoder.layers if isinstance(m, nn.Conv2d)]
    for conv in (*encoder[:-1], *decoder[:-1]):
        conv.weight[:carried] = 0
        if conv.bias is not None:
            conv.bias[:carried] = 0
    first, *averages, split, last = encoder
    last.weight.zero_()
    last.weight[: len(code), :carried, 1, 1] = code
    last.bias[: len(code)] = -0.5 * code.sum(1)
    into, double, *smooth, out = decoder
    into.weight[:carried, : len(code), 1, 1] = torch.linalg.pinv(code)
    into.bias[:carried] = 0.5
    out.weight.mul_(0.1)
    out.bias.zero_()
    # nearest-neighbour doubling repeats each phase twice; these taps pick the right one up to half a gradient
    unit, mean = torch.eye(2), torch.full((2,), 0.5)
    taps = torch.stack([unit[1] - mean, mean, unit[0] - mean], 1)  # (phase, tap)
    binomial = torch.tensor([0.25, 0.5, 0.25])
    for c in range(channels):
        first.weight[c, c, 1, 1] = 1
        for conv in averages:
            conv.weight[c, c, 1:, 1:] = 0.25
        for phase in range(4):
            split.weight[phase * channels + c, c, 1 + phase // 2, 1 + phase % 2] = 1
        double.weight[c, c:carried:channels] = torch.einsum("ay,bx->abyx", taps, taps).reshape(4, 3, 3)
        for conv in smooth:
            conv.weight[c, c] = binomial[:, None] * binomial
        out.weight[c, :channels] = 0
        out.weight[c, c, 1, 1] = 1
