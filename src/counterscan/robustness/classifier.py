"""A small convolutional classifier of images, on disk as safetensors with a card: the judge of edits, and a feature space.

Five strided residual stages (He et al. 2016), then the mean and the maximum over a 2 x 2 grid of the last maps, so that
"left" can be told from "right" and one small lesion is not averaged away.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from counterscan.errors import ModelError
from counterscan.imaging.files import digest
from counterscan.robustness.opening import CARD, locate

WEIGHTS = "model.safetensors"


class Block(nn.Module):
    """Two 3 x 3 convolutions; the first halves the image, the shortcut is a mean of 2 x 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / 2, W / 2)."""
        y = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(self.norms[1](self.second(y)) + self.shortcut(nn.functional.avg_pool2d(x, 2)))


class Classifier(nn.Module):
    """Images float32 (B, channels, H, W) in [0, 1] -> logits (B, labels), one independent question a label."""

    def __init__(self, labels: Sequence[str], *, channels: int = 1, size: int = 256, width: int = 16) -> None:
        super().__init__()
        self.labels, self.channels, self.size, self.width = tuple(labels), channels, size, width
        widths = [width, 2 * width, 4 * width, 6 * width, 8 * width]
        self.stem = nn.Conv2d(channels, width, 5, stride=2, padding=2)
        self.blocks = nn.ModuleList(Block(a, b) for a, b in itertools.pairwise(widths))
        self.head = nn.Linear(8 * widths[-1], len(self.labels))
        self.facts: dict[str, Any] = {}
        self.fingerprint = ""  # of the weights as they were read

    def features(self, images: Tensor) -> Tensor:
        """(B, C, H, W) of any size -> (B, D): what the labels are read from."""
        if images.shape[-2:] != (self.size, self.size):
            size = (self.size, self.size)
            images = nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True)
        if images.shape[1] != self.channels:
            images = images.mean(1, keepdim=True).expand(-1, self.channels, -1, -1)
        x = torch.relu(self.stem(images * 4 - 2))
        for block in self.blocks:
            x = block(x)
        pools = nn.functional.adaptive_avg_pool2d(x, 2), nn.functional.adaptive_max_pool2d(x, 2)
        return torch.cat([p.flatten(1) for p in pools], 1)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.head(self.features(images))

    @torch.no_grad()
    def probabilities(self, images: Tensor, batch: int = 16) -> Tensor:
        """(B, labels) in [0, 1]."""
        self.eval()
        return torch.cat([self(part).sigmoid() for part in images.split(batch)])

    def save(self, folder: str | Path, facts: Mapping[str, Any]) -> Path:
        """Write weights (float16) and card into ``folder``; ``facts`` are training data, command, seed and scores."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in self.state_dict().items()}
        draft = folder / f".{WEIGHTS}.{os.getpid()}"
        save_file({k: v.contiguous() for k, v in tensors.items()}, draft, metadata={"format": "pt"})
        os.replace(draft, folder / WEIGHTS)
        card = {key: getattr(self, key) for key in ("labels", "channels", "size", "width")} | dict(facts)
        draft = folder / f".{CARD}.{os.getpid()}"
        draft.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        os.replace(draft, folder / CARD)
        return folder

    @staticmethod
    def load(folder: str | Path) -> Classifier:
        """Read what ``save`` wrote, or a built-in by its name. ``ModelError`` says what is missing or does not fit."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = locate(folder) or Path(folder)
        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
            model = Classifier(card["labels"], **{key: int(card[key]) for key in ("channels", "size", "width")})
            model.load_state_dict(
                {k: v.float() if v.is_floating_point() else v for k, v in load_file(folder / WEIGHTS).items()}
            )
            model.fingerprint = digest(folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{folder}: no classifier ({error})") from None
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ModelError(f"{folder}: damaged classifier ({' '.join(str(error).split())[:200]})") from None
        model.facts = card
        return model.eval()
