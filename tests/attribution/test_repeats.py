"""Looks at an image from slightly moved frames: answers that hang on the network's grid are told apart from those that do not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from tests.models import tiny

import counterscan
from counterscan.attribution.repeats import REACH, looks, moved, offset
from counterscan.editing import as_picture
from counterscan.errors import WordsError


@dataclass(frozen=True)
class Gridded:
    """Stands in for a method without random numbers: darkens what is bright, in whole cells of 4 pixels."""

    name: ClassVar[str] = "gridded"

    def __call__(self, backbone: Any, image: Any, edit: Any, *, generator: Any, progress: Any = None) -> torch.Tensor:
        bright = torch.nn.functional.avg_pool2d(image, 4).gt(0.6).float()
        where = torch.nn.functional.interpolate(bright, scale_factor=4)
        return backbone.decode(backbone.encode(image)) - 0.5 * where * (not edit.is_null)


@pytest.fixture
def backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    found = counterscan.load(tiny(tmp_path / "tiny"))
    monkeypatch.setattr(type(found), "decode", lambda self, z: z.clone())
    monkeypatch.setattr(type(found), "encode", lambda self, x: x)
    return found


def image(size: int) -> np.ndarray:
    pixels = np.full((size, size), 60, np.uint8)
    pixels[size // 4 : size // 2 + 3, size // 4 : size // 2 + 3] = 230
    return pixels


def test_the_first_look_is_at_the_image_and_the_others_around_it() -> None:
    assert offset(0, (300, 200)) == (0, 0)
    others = [offset(k, (960, 480)) for k in range(1, 9)]
    assert len(set(others)) == 8
    assert all(abs(np.hypot(*at) - 960 * REACH) < 1 for at in others)
    assert np.abs(np.mean(others, axis=0)).max() < 6  # they surround it


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 3)])
def test_what_is_moved_comes_back(shape: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).random(shape)
    there = moved(picture, 3, -5)
    assert there.shape == shape and (there[10, 10] == picture[7, 15]).all()
    assert (moved(there, -3, 5)[3:-3, 5:-5] == picture[3:-3, 5:-5]).all()
    assert (moved(picture, 0, 0) == picture).all()


def test_repeats_of_a_method_without_noise_differ_where_its_answer_hangs_on_the_grid(backbone: Any) -> None:
    asked: dict[str, Any] = {"finding": "pacemaker", "method": Gridded(), "model": backbone}
    once = counterscan.attribute(image(96), **asked)
    found = counterscan.attribute(image(96), **asked, repeats=4)
    assert not once.spread.any() and once.uncertainty is None
    assert found.uncertainty is not None and found.uncertainty > 0
    rim = np.zeros((96, 96), bool)
    rim[20:55, 20:55], rim[30:45, 30:45] = True, False
    assert found.spread[rim].mean() > 10 * found.spread[32:43, 32:43].mean(), (
        "the border is in doubt, the middle is not"
    )
    assert found.map[32:43, 32:43].mean() == pytest.approx(-0.5, abs=0.02)


def test_every_picture_has_its_own_frame(backbone: Any) -> None:
    pictures = [as_picture(image(size)) for size in (96, 64)]
    both = looks(pictures, "pacemaker", [Gridded()], 3, backbone, 0)  # type: ignore[list-item]
    assert [[look.map.shape for look in seen] for seen in both] == [[(96, 96)] * 3, [(64, 64)] * 3]
    alone = looks(pictures[1:], "pacemaker", [Gridded()], 3, backbone, 0)  # type: ignore[list-item]
    assert all((a.map == b.map).all() for a, b in zip(both[1], alone[0], strict=True))
    with pytest.raises(WordsError, match="repeats"):
        looks(pictures, "pacemaker", [Gridded()], 0, backbone, 0)  # type: ignore[list-item]
