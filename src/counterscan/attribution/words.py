"""Where a word draws the model's attention: a second opinion on where a finding is (DAAM; Tang et al., ACL 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import WordsError

if TYPE_CHECKING:
    from torch import Tensor

    from counterscan.backbones.attention import Attention
    from counterscan.backbones.base import Backbone

DEPTHS = (0.2, 0.35, 0.5, 0.65, 0.8)  # shares of the noise schedule at which the model is asked
FINEST = 4  # attention of layers up to 1/4 of the latent's side is left out: it sees the whole image at once


def word_map(
    image: Any,
    *,
    finding: str,
    model: str | Path | Backbone = "chest-nih",
    depths: Sequence[float] = DEPTHS,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Attention (H, W) in [0, 1] of the image's pixels to the words of ``finding`` in a prompt that names it, at native size.

    The image is noised to each of ``depths`` and the network asked once; maps are averaged over heads, layers and depths.
    Costs ``len(depths)`` evaluations. It says what the model reads the word as, also where the finding is absent.

    Raises:
        WordsError: an unknown finding, or a model without attention to words.
    """
    import torch

    from counterscan.backbones.base import Attentive
    from counterscan.diffusion import draw
    from counterscan.editing import as_backbone, as_picture, to_tensor
    from counterscan.imaging import fit
    from counterscan.language import resolve

    picture, backbone = as_picture(image), as_backbone(model)
    if not isinstance(backbone, Attentive):
        raise WordsError(
            f"{backbone.card.name} ({backbone.family}) does not tell its attention to words; choose another model"
        )
    request = resolve(add=(finding,), card=backbone.card)
    places = _places(backbone.pieces(request.target), request.changes[0].finding, request.target)
    square, placement = fit(picture.unit(), backbone.resolution)
    seen = Heard(places)
    with torch.no_grad():
        z = backbone.encode(to_tensor(square, backbone.channels)[None].to(backbone.device))
        condition = backbone.embed([request.target])
        noise = draw(tuple(z.shape), [torch.Generator().manual_seed(seed)], 1, backbone.device)[0]
        last = int(backbone.schedule.timesteps(1000).max())
        for depth in depths:
            t = round(depth * last)
            signal, sigma = backbone.schedule.coefficients(t)
            with backbone.controlled(seen):
                backbone.predict(signal * z + sigma * noise, t, condition)
    heat = seen.map(square.shape[0])
    return np.asarray(placement.restore(heat))


class Heard:
    """An attention control that changes nothing and sums, for every layer, how much pixels look at the words at ``places``."""

    def __init__(self, places: Sequence[int]) -> None:
        self.places = list(places)
        self.sums: dict[int, Tensor] = {}  # pixels of the layer -> map (pixels,)
        self.counts: dict[int, int] = {}

    def __call__(self, layer: Attention) -> Tensor:
        """Answer one attention layer as it would itself."""
        if layer.words:
            text = layer.weights()[..., layer.pixels, layer.text]  # (rows, heads, pixels, words)
            heat = text[..., self.places].sum(-1).mean((0, 1))
            size = len(heat)
            self.sums[size] = self.sums.get(size, heat.new_zeros(size)) + heat
            self.counts[size] = self.counts.get(size, 0) + 1
        return layer.output()

    def map(self, side: int) -> NDArray[np.float32]:
        """(side, side) in [0, 1]: the mean over layers, each enlarged, the coarsest left out, from its least to its most."""
        import torch

        finest = max(self.sums)
        chosen = [size for size in self.sums if size * FINEST**2 >= finest] or [finest]
        total = torch.zeros(side, side)
        for size in chosen:
            rows = round(size**0.5)
            heat = self.sums[size].float().cpu().reshape(1, 1, rows, -1) * size / self.counts[size]
            total += torch.nn.functional.interpolate(heat, size=(side, side), mode="bilinear", align_corners=False)[
                0, 0
            ]
        total -= total.min()
        return (total / total.max().clamp_min(1e-12)).numpy()


def _places(pieces: Sequence[str], name: str, prompt: str) -> list[int]:
    """Where the finding's words stand among the pieces of the prompt."""
    plain = ["".join(c for c in piece.replace("</w>", "").lstrip("#").lower() if c.isalnum()) for piece in pieces]
    wanted = "".join(c for c in name.lower() if c.isalnum())
    for start in range(len(plain)):
        text, stop = "", start
        while stop < len(plain) and wanted.startswith(text + plain[stop]) and text != wanted:
            text, stop = text + plain[stop], stop + 1
        if text == wanted:
            return [k for k in range(start, stop) if plain[k]]
    raise WordsError(f"the words of {name!r} are not among the model's own in the prompt {prompt!r}")
