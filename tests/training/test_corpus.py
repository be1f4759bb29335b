"""What is read, in which order, under which words."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.tables import write_manifest
from tests.training.small import data_set

from counterscan.errors import DataError
from counterscan.training.config import Augment, Captions, Data
from counterscan.training.corpus import Order, balance, fitting, open_corpus, swap_sides, wordings, words_of
from counterscan.training.pictures import mirrored, read_row, vary


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_every_row_comes_once_an_epoch(count, seed):
    order = Order(np.full(count, 1 / count), seed)
    for epoch in range(3):
        assert sorted(order(epoch * count + i) for i in range(count)) == list(range(count))


def test_the_order_is_a_function_of_the_place_alone():
    order, again = (Order(np.full(7, 1 / 7), 3) for _ in range(2))
    forwards = [order(k) for k in range(30)]
    assert [again(k) for k in reversed(range(30))] == forwards[::-1]
    assert [Order(np.full(7, 1 / 7), 4)(k) for k in range(30)] != forwards


def test_balance_draws_with_and_without_equally_often(tmp_path):
    rows = [{"path": f"{i}.png", "split": "train", "rare": int(i < 2), "half": i % 2} for i in range(40)]
    corpus = open_corpus(Data(manifest=write_manifest(tmp_path, rows), balance=("rare", "half")))
    assert corpus.weights.sum() == pytest.approx(1)
    assert corpus.weights[:2].sum() == pytest.approx(0.5, abs=1e-6)
    assert corpus.weights[1::2].sum() == pytest.approx(0.5, abs=1e-3)
    drawn = Counter(map(Order(corpus.weights, 0), range(40)))
    assert drawn[0] + drawn[1] == 20
    assert np.allclose(balance([], ()), [])


def test_captions_of_findings_say_what_the_columns_say(tmp_path):
    rows = [
        {"path": "a.png", "split": "train", "Effusion": 1, "pacemaker": 0, "cardiomegaly": -1},
        {"path": "b.png", "split": "train", "Effusion": "", "pacemaker": 1, "cardiomegaly": 0},
    ]
    manifest = write_manifest(tmp_path, rows)
    sure = Captions(drop=0, full=1, mention=1, deny=1, uncertain="words")
    corpus = open_corpus(Data(manifest=manifest, captions=sure))
    texts = [words_of(corpus, 0, sure, np.random.default_rng(s)) for s in range(20)]
    assert all("pleural effusion" in t and "no pacemaker" in t and "possible cardiomegaly" in t for t in texts)
    only = replace_captions(sure, findings=("pacemaker",))
    corpus = open_corpus(Data(manifest=manifest, captions=only))
    assert words_of(corpus, 1, only, np.random.default_rng(0)).rstrip(".").endswith("pacemaker")
    assert corpus.findings == ("pacemaker",)


def replace_captions(captions: Captions, **changes: object) -> Captions:
    return Captions.model_validate(captions.model_dump() | changes)


def test_wordings_are_drawn_and_prompts_dropped(tmp_path):
    rows = [{"path": "a.png", "split": "train", "caption": "one || two || three"}]
    asked = Captions(separator=" || ", drop=0.25)
    corpus = open_corpus(Data(manifest=write_manifest(tmp_path, rows), captions=asked))
    drawn = Counter(words_of(corpus, 0, asked, np.random.default_rng(s)) for s in range(2000))
    assert drawn.keys() == {"", "one", "two", "three"}
    assert abs(drawn[""] - 500) < 100 and all(abs(drawn[w] - 500) < 100 for w in ("one", "two", "three"))


class Words:
    """A tokenizer of words, that counts a beginning and an end."""

    def __call__(self, text: str, **settings: object) -> dict[str, list[int]]:
        return {"input_ids": [0] * (len(text.split()) + 2)}


REPORT = (
    "The patient is rotated, and the study is compared with the earlier one. Heart size is normal. There is a small left "
    "pleural effusion. No pneumothorax, pneumonia or pulmonary edema is seen on this examination."
)


def test_either_source_gives_prompts_and_findings_half_and_half(tmp_path):
    manifest = write_manifest(tmp_path, [{"path": "a.png", "split": "train", "caption": "one || two", "polyp": 1}])
    asked = Captions(source="either", separator=" || ", template="endoscopy", drop=0)
    corpus = open_corpus(Data(manifest=manifest, captions=asked))
    rng = np.random.default_rng(0)
    drawn = [words_of(corpus, 0, asked, rng) for _ in range(400)]
    own = sum(text in ("one", "two") for text in drawn)
    assert 160 < own < 240 and all(text.startswith("endoscopy") for text in drawn if text not in ("one", "two"))
    assert any("polyp" in text for text in drawn)
    assert wordings(corpus, Data(manifest=manifest, captions=asked)) is None


def test_a_report_too_long_for_the_encoder_keeps_its_findings_and_what_they_deny(tmp_path):
    rows = [{"path": "a.png", "split": "train", "caption": f"{REPORT} || short", "pacemaker": 1}]
    asked = Captions(separator=" || ", drop=0)
    corpus = open_corpus(Data(manifest=write_manifest(tmp_path, rows), captions=asked))
    corpus = replace(corpus, fit=fitting([(Words(), 17), (Words(), 80)], corpus.findings))
    drawn = {words_of(corpus, 0, asked, np.random.default_rng(s)) for s in range(20)}
    (text,) = drawn - {"short"}
    assert len(text.split()) <= 15 and "small left pleural effusion" in text
    assert "no pneumothorax. no pneumonia" in text.lower(), "each finding of the list is denied by itself"
    assert {"", text, "short"} == set(wordings(corpus, Data(manifest=corpus.manifest, captions=asked)) or ())


def test_a_caption_of_many_findings_is_shortened_too(tmp_path):
    names = ["pneumonia", "pneumothorax", "cardiomegaly", "atelectasis", "emphysema", "pacemaker"]
    sure = Captions(drop=0, full=1, mention=1, deny=1, view=0, sex=0)
    rows = [{"path": "a.png", "split": "train"} | dict.fromkeys(names, 1)]
    corpus = open_corpus(Data(manifest=write_manifest(tmp_path, rows), captions=sure))
    whole = words_of(corpus, 0, sure, np.random.default_rng(0)).lower()
    corpus = replace(corpus, fit=fitting([(Words(), 7)]))
    text = words_of(corpus, 0, sure, np.random.default_rng(0)).lower()
    told = [name for name in names if name in text]
    assert all(name in whole for name in names) and 0 < len(told) < len(names) and len(text.split()) <= 5
    assert " no " not in text


@given(st.text())
def test_sides_swapped_twice_are_as_before(text):
    assert swap_sides(swap_sides(text)) == text


def test_sides():
    assert swap_sides("Left-sided effusion; RIGHT lung clear, rightward shift") == (
        "Right-sided effusion; LEFT lung clear, leftward shift"
    )


@pytest.mark.parametrize(
    ("flip", "dropped", "possible"),
    [
        ("never", True, False),
        ("words", False, True),
        ("dropped", False, False),
        ("dropped", True, True),
        ("free", False, True),
    ],
)
def test_an_image_is_mirrored_only_where_its_caption_stays_true(flip, dropped, possible):
    drawn = [mirrored(Augment(flip=flip), dropped, np.random.default_rng(s)) for s in range(50)]
    assert any(drawn) == possible and not all(drawn)


def test_nothing_moves_an_image_that_is_not_asked_to_move():
    image = torch.rand(1, 9, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(vary(image, Augment(), np.random.default_rng(0)), image)
    moved = vary(image, Augment(rotate=10, light=0.2), np.random.default_rng(0))
    assert moved.shape == image.shape and not torch.equal(moved, image) and 0 <= moved.min() and moved.max() <= 1


def test_contrasts_are_the_channels_of_a_model_that_takes_as_many(tmp_path):
    drawn = np.random.default_rng(0).integers(0, 256, (2, 16, 16), dtype=np.uint8)
    for name, pixels in zip("ab", drawn, strict=True):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    rows = [{"path": "a.png", "path_T2": "b.png", "split": "train", "caption": "x"}]
    (files,) = open_corpus(Data(manifest=write_manifest(tmp_path, rows))).files
    assert torch.allclose(read_row(files, "row 1", 2, 16), torch.from_numpy(drawn / np.float32(255)), atol=1e-6)
    assert torch.allclose(read_row(files, "row 1", 1, 16), torch.from_numpy(drawn[:1] / np.float32(255)), atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "says"), [("", "the table has no rows"), ("a.png,test\n", "no row has the split 'train'")]
)
def test_a_table_without_rows_to_train_on(tmp_path, rows, says):
    (tmp_path / "m.csv").write_text(f"path,split\n{rows}")
    with pytest.raises(DataError, match=says):
        open_corpus(Data(manifest=tmp_path / "m.csv"))


def test_a_row_without_words_is_told(tmp_path):
    manifest = data_set(tmp_path / "set")
    text = manifest.read_text().replace("chest radiograph,train", ",train")
    manifest.write_text(text)
    with pytest.raises(DataError, match=r"6 rows have no caption \(rows 1, 3, 5"):
        open_corpus(Data(manifest=manifest, captions=Captions(source="caption")))
    assert len(open_corpus(Data(manifest=manifest))) == 12
