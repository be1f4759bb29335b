"""Text encoders other than CLIP in Stable Diffusion folders: T5, BERT and RoBERTa kinds, with and without a projection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.backbones import promises, tiny

from counterscan.backbones import load
from counterscan.backbones.check import check_backbone
from counterscan.errors import ModelError
from counterscan.types import Edit

EDIT = Edit("no pleural effusion", "small left pleural effusion")


def build(kind: str, folder: Path, *, masked: bool = False, length: int = 24, **changes: Any) -> Path:
    with tiny.seeded():
        tokenizer = tiny.t5_tokenizer(length) if kind == "t5" else tiny.bert_tokenizer(length)
        # a RoBERTa of 26 positions takes 24 tokens
        encoder = tiny.t5(tokenizer) if kind == "t5" else tiny.bert(kind, tokenizer, 26 if kind == "roberta" else 24)
    encoder.config.use_attention_mask = masked
    return tiny.stable_diffusion(folder, tokenizer, encoder, **changes)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["t5", "bert", "roberta"])
def test_words_are_those_of_diffusers(kind: str, masked: bool, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    folder = build(kind, tmp_path / kind, masked=masked)
    model: Any = load(folder)
    theirs, _ = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None).encode_prompt(
        "small left pleural effusion", "cpu", 1, False
    )
    condition = model.embed(["small left pleural effusion"])
    torch.testing.assert_close(condition.tokens, theirs)
    assert (condition.mask is not None) == masked
    assert len(model.pieces("left pacemaker")) == theirs.shape[1]


@pytest.mark.parametrize("kind", ["t5", "roberta"])
def test_the_family_keeps_its_promises(kind: str, tmp_path: Path) -> None:
    folder = build(kind, tmp_path / kind)
    check_backbone(load(folder), prompts=["no pacemaker", "left pleural effusion"])
    exact = load(folder, dtype=torch.float64)
    for name in ("edit-friendly", "prompt-to-prompt"):
        promises.check_editing(name, exact, EDIT)


@pytest.mark.parametrize("kind", ["t5", "roberta"])
def test_a_tokenizer_without_a_limit_ends_where_its_encoder_does(kind: str, tmp_path: Path) -> None:
    model: Any = load(build(kind, tmp_path / kind, length=int(1e30)))
    assert model.embed(["pacemaker"]).tokens.shape[1] == {"t5": 512, "roberta": 24}[kind]


def test_a_projection_makes_another_width_fit(tmp_path: Path) -> None:
    changes = {"encoder_hid_dim": 32, "encoder_hid_dim_type": "text_proj", "cross_attention_dim": 16}
    model: Any = load(build("bert", tmp_path / "wide", **changes))
    check_backbone(model, prompts=["no pacemaker", "left pleural effusion"])
    with pytest.raises(ModelError, match="text_encoder gives 32 numbers a token, unet takes 16"):
        load(build("bert", tmp_path / "misfit", cross_attention_dim=16))
