"""Images of several contrasts: which files a model sees, in which order, and as what picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from counterscan.backbones.card import Card
from counterscan.data.contrasts import files_of, read, seen_by
from counterscan.errors import ImageError

ROW = {"patient": "P", "path": "c.png", "path_T1": "a.png", "path_T2": "", "mask": "m.png", "path_FLAIR": "d.png"}
FILES = {"path": Path("at/c.png"), "path_T1": Path("at/a.png"), "path_FLAIR": Path("at/d.png")}


def test_the_files_of_a_row():
    assert files_of(ROW, Path("at")) == FILES
    assert list(files_of({"path_T1": "a", "path": "/c"}, Path("at"))) == ["path", "path_T1"]


def test_a_model_sees_as_many_as_it_has_channels():
    def order(channels, *contrasts):
        return list(seen_by(Card("m", channels=channels, contrasts=contrasts), FILES))

    assert order(1) == order(4) == order(4, "T1", "T1c", "T2", "FLAIR") == ["path"]
    assert order(3) == ["path", "path_T1", "path_FLAIR"]
    assert order(3, "T1", "T1c", "FLAIR") == ["path_T1", "path", "path_FLAIR"]
    with pytest.raises(ImageError, match=r"its contrasts are path_T1, path_FLAIR; the model's T1, T1c, T2"):
        order(3, "T1", "T1c", "T2")


def test_files_are_stacked_in_their_order_without_loss(tmp_path):
    rng, pixels = np.random.default_rng(0), {}
    for name in "abc":
        pixels[name] = rng.integers(0, 65535, (20, 24), np.uint16, endpoint=True)
        Image.fromarray(pixels[name]).save(tmp_path / f"{name}.png")
    Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)).save(tmp_path / "colour.png")
    Image.fromarray(rng.integers(0, 255, (24, 20), np.uint8)).save(tmp_path / "tall.png")
    files = [tmp_path / f"{name}.png" for name in ("b", "a", "c", "colour")]
    picture = read(files)
    assert picture.pixels.dtype == np.uint16 and picture.pixels.shape == (20, 24, 4)
    for k, name in enumerate("bac"):
        assert np.array_equal(picture.pixels[..., k], pixels[name])
    assert picture.unit()[..., 3] == pytest.approx(read(files[3:]).unit().mean(2), abs=1e-4)
    assert np.array_equal(read(files[:1]).pixels, pixels["b"]) and read(files[:1]).path == files[0]
    with pytest.raises(ImageError, match=r"tall.png: it and b.png are 20x24 and 24x20"):
        read([files[0], tmp_path / "tall.png"])
    with pytest.raises(ImageError, match="absent.png"):
        read([files[0], tmp_path / "absent.png"])
