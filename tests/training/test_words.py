"""A text encoder learns its words from captions alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import BertModel, BertTokenizer

from counterscan.backbones import compact
from counterscan.training.captions import CaptionSettings, Row, caption
from counterscan.training.words import facts, teach, tokens_of

ROWS = [
    Row("chest", (("pacemaker", "left", None, None),), ("cardiomegaly",)),
    Row("chest", (("pacemaker", "right", None, None), ("cardiomegaly", None, None, "mild")), ()),
    Row("chest", (), ("pacemaker", "cardiomegaly")),
]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", set()),
        ("chest radiograph, AP", {("", "chest"), ("", "radiograph"), ("", "AP")}),
        ("chest: no mass.", {("", "chest"), ("mass", "no")}),
        ("chest: , no mass, .", {("", "chest"), ("mass", "no")}),
        ("Impression:  ", {("", "Impression")}),
        (
            "chest: small left upper lung nodule, no support devices.",
            {
                ("", "chest"),
                *((("lung nodule"), w) for w in ("small", "left", "upper", "yes")),
                ("support devices", "no"),
            },
        ),
    ],
)
def test_facts_are_what_the_caption_says(text, said):
    assert facts(text) == said


def test_the_encoder_learns_to_tell_captions_apart(tmp_path):
    folder = compact.build(
        tmp_path / "m", words=["pacemaker", "cardiomegaly", "left", "right", "mild", "chest", "no"], resolution=32,
        vae_blocks=(8, 8), unet_blocks=(8, 16), text_hidden=32, text_layers=1, max_length=24,
    )  # fmt: skip
    text = BertModel.from_pretrained(folder / "text_encoder", add_pooling_layer=False)
    tokenizer = BertTokenizer.from_pretrained(folder / "tokenizer")
    pool = torch.nn.Sequential(torch.nn.Linear(32, 16))

    def pooled(tokens):
        return pool(tokens).mean(1)

    class Pool(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = pool

        def forward(self, tokens):
            return self.inner(tokens).mean(1)

    words = [caption(ROWS[i % 3], np.random.default_rng(i), CaptionSettings(drop=0)) for i in range(60)]
    tokens = text(*tokens_of(tokenizer, words)[:1], attention_mask=tokens_of(tokenizer, words)[1])[0]

    def draw(rng):
        return caption(ROWS[int(rng.integers(3))], rng, CaptionSettings())

    before = teach(text, Pool(), tokenizer, draw, steps=0).loss(tokens, pooled(tokens), words).item()
    reader = teach(text, Pool(), tokenizer, draw, steps=120, batch=24, rate=5e-3)
    tokens = text(*tokens_of(tokenizer, words)[:1], attention_mask=tokens_of(tokenizer, words)[1])[0]
    assert reader.loss(tokens, pooled(tokens), words).item() < 0.4 * before
