"""The attention of a word: on layers with known maps, and on a real (tiny) model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.models import tiny

import counterscan
from counterscan.attribution.words import Heard, _places, word_map
from counterscan.backbones.attention import Attention
from counterscan.errors import WordsError


def test_attention_to_the_word_is_summed_and_nothing_is_changed():
    query, key = torch.zeros(1, 2, 16, 4), torch.zeros(1, 2, 3, 4)
    query[:, :, 5, 0], key[:, :, 1, 0] = 40.0, 1.0  # pixel (1, 1) of 4 x 4 looks at the second word alone
    layer = Attention(query, key, torch.rand(1, 2, 3, 4), slice(0, 3))
    heard = Heard([1])
    assert torch.equal(heard(layer), layer.output())
    heat = heard.map(4)
    assert np.unravel_index(heat.argmax(), heat.shape) == (1, 1)
    assert heat.max() == pytest.approx(1) and heat.min() == 0
    assert heat[3, 3] < 0.05


def test_pieces_of_words_are_found():
    pieces = ["", "chest</w>", "pleu", "##ral", "effusion", ".", "", ""]
    assert _places(pieces, "pleural effusion", "") == [2, 3, 4]
    with pytest.raises(WordsError, match="hernia"):
        _places(pieces, "hernia", "chest")


def test_a_map_of_the_images_own_size(tmp_path):
    backbone = counterscan.load(tiny(tmp_path / "tiny"))
    image = np.random.default_rng(0).integers(0, 255, (80, 60)).astype(np.uint8)
    before = backbone.evaluations
    heat = word_map(image, finding="pacemaker", model=backbone, depths=(0.3, 0.6))
    assert heat.shape == (80, 60) and 0 <= heat.min() < heat.max() <= 1
    assert backbone.evaluations - before == 2
    assert np.array_equal(heat, word_map(image, finding="pacemaker", model=backbone, depths=(0.3, 0.6)))
