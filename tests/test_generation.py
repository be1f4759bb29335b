"""A model whose card says so draws what a prompt says of findings by edits, and any other draws the prompt whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models import seeing

import counterscan
from counterscan.generation import in_parts
from counterscan.language.captions import mentions, report
from counterscan.language.vocabulary import VOCABULARY, lookup
from counterscan.types import Change

PROMPT = "world chest radiograph, PA, male: small left pleural effusion, no pacemaker."
NAMES = tuple(finding.name for finding in VOCABULARY)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    opened = counterscan.load(seeing(tmp_path_factory.mktemp("models") / "seeing"))
    opened.card = replace(opened.card, generate_by="edits")
    return opened


class Knows:
    """As much of a backbone as a prompt is read with."""

    class card:
        findings, template, generate_by = NAMES, "chest radiograph", "edits"


def test_the_radiograph_comes_first_and_then_what_is_denied_and_named(backbone):
    words, edits = in_parts(backbone, PROMPT)
    assert words == "world chest radiograph, PA, male: no pleural effusion, no pacemaker."
    changes = [(c.direction, c.finding, c.side, c.severity) for edit in edits for c in edit.changes]
    assert changes == [("remove", "pacemaker", None, None), ("add", "pleural effusion", "left", "small")]


def test_what_is_said_of_the_view_in_one_sentence_with_a_finding_is_kept(backbone):
    words, edits = in_parts(backbone, "AP chest radiograph of a man with a pacemaker, without effusion")
    assert words == "AP chest radiograph of a man: no pacemaker, no pleural effusion."
    assert [(c.direction, c.finding) for e in edits for c in e.changes] == [
        ("remove", "pleural effusion"),
        ("add", "pacemaker"),
    ]


def test_other_models_and_other_words_are_drawn_whole(backbone, tmp_path):
    assert in_parts(counterscan.load(seeing(tmp_path / "by prompt")), PROMPT) == (PROMPT, [])
    assert in_parts(backbone, "a chest radiograph of a man") == ("a chest radiograph of a man", [])


@settings(max_examples=80, deadline=None)
@given(st.sets(st.sampled_from(NAMES), max_size=4), st.sets(st.sampled_from(NAMES), max_size=3), st.integers(0, 2**32))
def test_every_finding_of_a_report_becomes_an_edit(named, denied, seed):
    rng = np.random.default_rng(seed)
    facts = []
    for name in sorted(named):
        finding = lookup(name)
        side, place, severity = (
            str(rng.choice(some)) if len(some) and rng.random() < 0.7 else None
            for some in (("left", "right") if finding.sides else (), finding.places, finding.severities)
        )
        facts.append(Change(name, "add", side, place, severity))
    text = report(facts, sorted(denied - named), rng, "AP", "female")
    words, edits = in_parts(Knows(), text)
    asked = [(c.direction == "add", c.finding, c.side) for edit in edits for c in edit.changes]
    assert set(asked) == {(m.present, m.finding, m.side) for m in mentions(text, NAMES)}
    drawn_without = {m.finding for m in mentions(words, NAMES) if not m.present}
    assert edits == [] or drawn_without == {finding for _, finding, _ in asked}


def test_what_is_drawn_by_edits_depends_on_its_own_seed(backbone):
    told: list[tuple[int, int]] = []
    three = counterscan.generate(PROMPT, n=3, steps=3, model=backbone, seed=5, progress=lambda *at: told.append(at))
    alone = counterscan.generate(PROMPT, steps=3, model=backbone, seed=6)[0]
    assert np.abs(three[1].pixels.astype(int) - alone.pixels).max() <= 1
    assert told == sorted(told)
    assert {total for _, total in told} == {told[-1][0]}
