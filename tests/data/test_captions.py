"""Captions say what is known and nothing else; what does not fit in is left out whole, and no negation is lost."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models import tiny
from typer.testing import CliRunner

from counterscan.cli import app
from counterscan.data.captions import Told, Wording, captioned, encoder_of, words
from counterscan.data.manifest import Record, read, write
from counterscan.data.shorten import shorten
from counterscan.errors import DataError, ModelError, WordsError
from counterscan.language.captions import Mention, mentions, report
from counterscan.language.vocabulary import DEVICES

NAMES = (
    *DEVICES,
    "pleural effusion",
    "cardiomegaly",
    "consolidation",
    "pneumothorax",
    "atelectasis",
    "mass",
    "fracture",
)
states = st.fixed_dictionaries({name: st.sampled_from([1, 0, -1, None]) for name in NAMES})
seeds = st.integers(0, 2**32 - 1)


def at_most(limit):
    """An encoder that takes words and marks, one each."""
    return lambda text: len(text.replace(".", " .").replace(",", " ,").split()) <= limit


def facts(text, known=()):
    return [(m.finding, m.present, m.side) for m in mentions(text, known)]


@settings(max_examples=80, deadline=None)
@given(labels=states, seed=seeds, paraphrase=st.sampled_from([0.0, 1.0]))
def test_a_caption_of_labels_tells_every_finding_and_denies_no_other(labels, seed, paraphrase):
    wording = Wording("labels", deny=0.5, paraphrase=paraphrase, view=True, person=True)
    record = Record("a.png", view="PA", age=61, sex="female", findings=labels)
    text = words(record, wording, np.random.default_rng(seed))
    told = mentions(text)
    assert {m.finding for m in told if m.present} == {name for name, v in labels.items() if v == 1}
    assert {m.finding for m in told if not m.present} <= {name for name, v in labels.items() if v == 0}
    assert "61 year old female" in text and "PA" in text


def test_the_rate_of_denials_is_the_one_that_was_set():
    record = Record("a.png", findings=dict.fromkeys(NAMES, 0))
    drawn = [words(record, Wording(deny=0.2), np.random.default_rng(i)).count("no ") for i in range(400)]
    assert abs(np.mean(drawn) / len(NAMES) - 0.2) < 4 * np.sqrt(0.16 / (400 * len(NAMES)))


def test_the_uncertain_is_ignored_or_told():
    record = Record("a.png", findings={"mass": -1, "fracture": 1, "No Finding": 1})
    for policy, expected in {"ignore": "x: fracture.", "words": "x: possible mass, fracture."}.items():
        text = words(record, Wording("labels", "x", policy), np.random.default_rng(1))
        assert sorted(text) == sorted(expected)
    for share in (0, 1):
        assert words(Record("a.png"), Wording(template="x", paraphrase=share), np.random.default_rng(0)) == "x"


def test_a_report_is_told_whose_it_is():
    record, rng = Record("a.png", caption="Clear lungs.", view="AP", age=3.2, sex="male"), np.random.default_rng(0)
    assert words(record, Wording(view=True, person=True), rng) == "AP, 3 year old male. Clear lungs."
    assert words(record, Wording(), rng) == "Clear lungs."
    said = Record("a.png", caption="AP radiograph: clear lungs.", view="AP")
    assert words(said, Wording(view=True, person=True), rng) == said.caption


@settings(max_examples=150, deadline=None)
@given(labels=states, sides=st.lists(st.sampled_from(["left", "right", None]), min_size=12, max_size=12), seed=seeds,
       limit=st.integers(3, 60))  # fmt: skip
def test_what_is_shortened_says_nothing_that_was_not_said(labels, sides, seed, limit):
    present = [Mention(name, True, side if name != "cardiomegaly" and name not in ("ecg electrodes", "endotracheal tube")
                       else None) for (name, v), side in zip(labels.items(), sides, strict=True) if v == 1]  # fmt: skip
    text = report(present, [name for name, v in labels.items() if v == 0], np.random.default_rng(seed))
    short = shorten(text, at_most(limit))
    assert at_most(limit)(short)
    before, after = facts(text), facts(short)
    assert all(after.count(fact) <= before.count(fact) for fact in after), (text, short)
    longest = max((len(s.split()) for s in text.replace(",", " ,").split(".")), default=0)
    if limit > longest + 1 and any(v == 1 for v in labels.values()):
        assert any(fact[1] for fact in after)  # present findings come first


def test_a_long_report():
    text = (
        "AP chest compared to ___: Mild pulmonary edema has improved. Moderate left pleural effusion is unchanged. No "
        "pneumothorax, focal consolidation, or right pleural effusion is seen. Dr. ___ was paged at 3:15 pm. Pneumonia or "
        "atelectasis cannot be excluded."
    )
    assert shorten(text, at_most(100)) == text
    assert shorten(text, at_most(43)) == text.replace(" Dr. ___ was paged at 3:15 pm.", "")
    assert shorten(text, at_most(25)) == (
        "AP chest compared to ___: Mild pulmonary edema has improved. Moderate left pleural effusion is unchanged. "
        "Pneumonia or atelectasis cannot be excluded."
    )
    assert shorten("No consolidation, mass, or fracture is seen.", at_most(7)) == "No consolidation. No mass."
    assert shorten("1. No pneumonia. 2. Mild cardiomegaly.", at_most(6)) == "No pneumonia. Mild cardiomegaly."


@pytest.mark.parametrize(
    "text", ["Pneumonia or atelectasis at the left base.", "Possible mass, fracture, and effusion."]
)
def test_possibilities_are_not_taken_apart(text):
    assert shorten(text, at_most(5)) == ""


def test_findings_outside_the_vocabulary_are_kept_too():
    text = "The mucosa is pale and moist throughout. There is a polyp in the rectum."
    assert shorten(text, at_most(8), ["polyp"]) == "There is a polyp in the rectum."
    text = "The lungs are well expanded today. There is a stent. No pneumothorax."
    assert shorten(text, at_most(8), ["stent"]) == "There is a stent. No pneumothorax."


def test_labels_that_do_not_fit_lose_denials_first():
    record = Record("a.png", row=1, findings={"mass": 1, "fracture": -1, "hernia": 0, "fibrosis": 0})
    told = Told()
    (row,) = captioned([record], Wording(template="x", uncertain="words", deny=1), fits=at_most(7), told=told)
    assert sorted(facts(row.caption)) == [("fracture", True, None), ("mass", True, None)]
    assert (told.rows, told.shortened, told.lost) == (1, 1, 0)
    (row,) = captioned([record], Wording(template="x", uncertain="words", deny=1), fits=at_most(4), told=told)
    assert row.caption == "x: mass." and (told.shortened, told.lost) == (2, 1)


def test_rates_are_rates():
    with pytest.raises(WordsError, match="deny 1.5: a rate"):
        Wording(deny=1.5)


def test_the_encoder_is_the_models_own(tmp_path):
    fits = encoder_of(tiny(tmp_path / "m"), offline=True)
    assert fits("no pleural effusion") and not fits("no pleural effusion " * 9)
    assert encoder_of(tmp_path / "m/tokenizer", offline=True)("no pacemaker")
    (tmp_path / "none").mkdir()
    with pytest.raises(ModelError):
        encoder_of(tmp_path / "none", offline=True)


def test_the_command(tmp_path):
    rows = [Record(str(tmp_path / f"i/{i}.png"), caption="No mass. " * i, findings={"mass": i % 2}) for i in range(40)]
    write(tmp_path / "a/m.parquet", rows, ["mass"])
    tiny(tmp_path / "m")
    call = ["data", "caption", str(tmp_path / "a/m.parquet"), "--model", str(tmp_path / "m"), "--offline", "--json"]
    for out in ("b/first.csv", "b/second.csv"):
        done = CliRunner().invoke(app, [*call, "-o", str(tmp_path / out), "--seed", "3"])
        assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["rows"] == 40 and summary["empty"] == 0 and summary["shortened"] > 20
    captions = [row.caption for row in read(tmp_path / "b/second.csv")]
    assert captions == [row.caption for row in read(tmp_path / "b/first.csv")]
    assert captions[0] in ("chest radiograph", "chest radiograph: no mass.") and captions[2] == "No mass. No mass."
    assert next(read(tmp_path / "b/first.csv")).path == str(tmp_path / "i/0.png")
    wrong = CliRunner().invoke(app, [*call, "-o", str(tmp_path / "c.csv"), "--from", "words"])
    assert isinstance(wrong.exception, WordsError)
    (tmp_path / "hdr.csv").write_text("path,mass\n")
    empty = CliRunner().invoke(app, ["data", "caption", str(tmp_path / "hdr.csv"), "-o", str(tmp_path / "c.csv")])
    assert isinstance(empty.exception, DataError) and str(empty.exception) == f"{tmp_path / 'hdr.csv'}: lists no image"
    assert not (tmp_path / "c.csv").exists()
