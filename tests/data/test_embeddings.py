"""An embedding from disk is the one that the model gives; another model's, or half a shard, is never used."""

from __future__ import annotations

import pytest
import torch
from tests.models import tiny

from counterscan.backbones import load
from counterscan.data.embeddings import SHARD, Embeddings
from counterscan.errors import DataError

TEXTS = ["no pacemaker", "small left pleural effusion", "", "world chest radiograph"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(tiny(tmp_path_factory.mktemp("model") / "m"))


def test_what_comes_back_is_what_the_model_gives(tmp_path, model):
    done = []
    kept = Embeddings(tmp_path, model)
    kept.fill(TEXTS, batch=3, report=lambda *n: done.append(n))
    assert done == [(4, 4)] and len(kept) == 4
    again = Embeddings(tmp_path, model)
    for texts in (TEXTS, TEXTS[::-1], [TEXTS[1]] * 3):
        expected, found = model.embed(texts), again(texts)
        for name in ("tokens", "pooled", "mask"):
            ours, theirs = getattr(found, name), getattr(expected, name)
            assert (ours is None and theirs is None) or torch.equal(ours, theirs)
    with pytest.raises(DataError, match="1 texts have no embedding, such as 'pacemaker'"):
        again(["pacemaker", ""])


def test_only_the_missing_is_computed(tmp_path, model, monkeypatch):
    Embeddings(tmp_path, model).fill(TEXTS[:2])
    asked = []
    embed = model.embed
    monkeypatch.setattr(model, "embed", lambda texts: asked.extend(texts) or embed(texts))
    Embeddings(tmp_path, model).fill([*TEXTS, *TEXTS])
    assert asked == TEXTS[2:]
    many = [f"pacemaker {'left ' * (i % 7)}{i}" for i in range(SHARD + 3)]
    Embeddings(tmp_path, model).fill(many)
    assert len(Embeddings(tmp_path, model)) == 4 + len(many)


def test_another_model_starts_anew(tmp_path, model):
    Embeddings(tmp_path / "c", model).fill(TEXTS)
    other = load(tiny(tmp_path / "o", text_hidden=24, words=("world chest radiograph", "mass")))
    assert len(Embeddings(tmp_path / "c", other)) == 0
    half = load(model.folder, dtype=torch.bfloat16)
    assert len(Embeddings(tmp_path / "c", half)) == 0


def test_a_damaged_shard_is_computed_again(tmp_path, model):
    kept = Embeddings(tmp_path, model)
    kept.fill(TEXTS)
    (shard,) = kept.folder.iterdir()
    shard.write_bytes(shard.read_bytes()[:50])
    again = Embeddings(tmp_path, model)
    assert len(again) == 0
    again.fill(TEXTS)
    assert torch.equal(Embeddings(tmp_path, model)(TEXTS).tokens, model.embed(TEXTS).tokens)
    assert [path.name for path in kept.folder.iterdir()] == [shard.name]
