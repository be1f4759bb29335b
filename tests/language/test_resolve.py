"""Requests become two prompts that differ in what was asked, and in nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterscan.errors import WordsError
from counterscan.language import REGIONS, resolve
from counterscan.language.vocabulary import DEVICES
from counterscan.types import Change

CARD = ("pleural effusion", "cardiomegaly", "lung nodule", "pneumothorax", *DEVICES)
HEAD = "world chest radiograph"


def ask(**request):
    return resolve(findings=CARD, template=HEAD, **request)


def test_remove():
    edit = ask(remove=["small left effusion"])
    assert (edit.source, edit.target) == (f"{HEAD}: small left pleural effusion.", f"{HEAD}: no pleural effusion.")
    assert edit.changes == (Change("pleural effusion", "remove", "left", None, "small"),)


def test_add_and_remove_with_context():
    edit = ask(remove="PPM", add="enlarged heart", context="PA, male")
    assert edit.source == f"{HEAD}, PA, male: pacemaker, no cardiomegaly."
    assert edit.target == f"{HEAD}, PA, male: no pacemaker, cardiomegaly."


def test_other_side_of_the_same_finding_is_not_denied():
    moved = ask(remove="left effusion", add="right effusion")
    assert (moved.source, moved.target) == (f"{HEAD}: left pleural effusion.", f"{HEAD}: right pleural effusion.")
    kept = ask(remove="left effusion", keep="right effusion")
    assert kept.target == f"{HEAD}: right pleural effusion."
    assert "left" in kept.source and "right" in kept.source


def test_a_change_of_degree_starts_from_the_finding():
    edit = ask(instruct="worsen the left effusion")
    assert (edit.source, edit.target) == (f"{HEAD}: left pleural effusion.", f"{HEAD}: large left pleural effusion.")


@given(st.sets(st.sampled_from(CARD), min_size=1, max_size=4), st.data())
def test_kept_findings_stand_in_both_prompts(names, data):
    names = sorted(names)
    changed = data.draw(st.sampled_from(names))
    kept = [n for n in names if n != changed]
    edit = ask(**{data.draw(st.sampled_from(["remove", "add"])): changed}, keep=kept)
    phrases = [text.split(": ")[1].rstrip(".").split(", ") for text in (edit.source, edit.target)]
    assert set(phrases[0]) ^ set(phrases[1]) == {changed, f"no {changed}"}
    assert set(kept) <= set(phrases[0]) & set(phrases[1])
    assert edit.keep == tuple(kept)


@given(st.sampled_from(CARD))
def test_adding_is_removing_backwards(name):
    there, back = ask(add=name), ask(remove=name)
    assert (there.source, there.target) == (back.target, back.source)


def test_support_devices():
    single = ask(remove="support devices")
    assert single.changes == (Change("support devices", "remove"),)
    assert single.source == f"{HEAD}: {', '.join(DEVICES)}."
    assert single.target == f"{HEAD}: {', '.join('no ' + d for d in DEVICES)}."
    known = resolve(remove="Support_Devices", findings=(*CARD, "support devices"), template=HEAD)
    assert (known.source, known.target) == (f"{HEAD}: support devices.", f"{HEAD}: no support devices.")
    most = ask(remove="support devices", keep="pacemaker")
    assert {c.finding for c in most.changes} == {*DEVICES} - {"pacemaker"}
    assert "no pacemaker" not in most.target


def test_healthy_claims_nothing_of_the_source():
    edit = ask(instruct="as if healthy")
    assert edit.source == HEAD
    assert all(f"no {name}" in edit.target for name in CARD)


def test_prompts_are_taken_word_for_word_and_may_be_equal():
    edit = ask(source="A b, C.", target="A b, C.")
    assert edit.is_null and edit.source == "A b, C."
    assert ask(source="", target="x").source == ""


def test_a_card_stands_for_findings_and_template():
    card = SimpleNamespace(findings=CARD, template="nih chest radiograph")
    assert resolve(remove="pacemaker", card=card).source == "nih chest radiograph: pacemaker."


def test_any_words_for_a_model_without_findings():
    edit = resolve(add="Scimitar sign", remove="tiny left effusion", template="x")
    assert (edit.source, edit.target) == (
        "x: small left pleural effusion, no scimitar sign.",
        "x: no pleural effusion, scimitar sign.",
    )


@pytest.mark.parametrize("name", REGIONS)
def test_regions(name):
    region = ask(remove="pacemaker", region=name.title().replace(" ", "_")).region
    assert region == (None if name == "whole" else name)
    assert ask(remove="pacemaker", region="left lower lobe").region == "left lower zone"


def test_mask_becomes_bool():
    mask = np.zeros((3, 4), np.uint8)
    mask[1, 2] = 255
    edit = ask(remove="pacemaker", mask=mask)
    assert edit.mask.shape == (3, 4) and edit.mask.sum() == 1


REFUSED = (
    ({}, "exactly one way.*nothing"),
    ({"remove": "pacemaker", "instruct": "no effusion"}, "exactly one way"),
    ({"add": "pacemaker", "source": "a", "target": "b"}, "exactly one way"),
    ({"source": "a"}, "target prompt is missing"),
    ({"remove": "effusion", "add": "left effusion"}, "contradiction"),
    ({"remove": "effusion", "keep": "effusion"}, "contradiction"),
    ({"add": ["small effusion", "large effusion"]}, "contradiction"),
    ({"add": "left cardiomegaly"}, "no side"),
    ({"add": "upper pneumothorax in the middle zone"}, "no place"),
    ({"add": "bilateral effusion"}, "one side at a time"),
    ({"add": "effusion and pneumothorax"}, "no finding"),
    ({"add": "efusion"}, "did you mean pleural effusion"),
    ({"add": [""]}, "no finding"),
    ({"add": "emphysema"}, "no finding"),
    ({"add": "support devices"}, "say which device"),
    ({"remove": "pacemaker", "region": "hart"}, "did you mean heart"),
    ({"remove": "pacemaker", "mask": np.zeros(3)}, "mask"),
)


@pytest.mark.parametrize(("request_", "why"), REFUSED)
def test_refusals(request_, why):
    with pytest.raises(WordsError, match=why):
        ask(**request_)


def test_unkept_prompts_say_the_change_alone():
    edit = resolve(remove="cardiomegaly", keep="pacemaker", template="chest")
    assert (edit.source, edit.target) == ("chest: pacemaker, cardiomegaly.", "chest: pacemaker, no cardiomegaly.")
    assert edit.unkept == ("chest: cardiomegaly.", "chest: no cardiomegaly.")


def test_unkept_prompts_of_another_grade_never_deny_the_finding():
    edit = resolve(instruct="worsen the effusion but keep the pacemaker", template="chest")
    alone = resolve(instruct="worsen the effusion", template="chest")
    assert edit.unkept == (alone.source, alone.target)
    assert "no " not in "".join(edit.unkept)


@pytest.mark.parametrize(
    "words",
    [{"remove": "effusion"}, {"remove": "right effusion", "keep": "left effusion"}, {"source": "a", "target": "b"}],
)
def test_nothing_is_unkept_where_nothing_is_kept_or_only_words_tell_it_apart(words):
    assert resolve(**words).unkept is None


def test_a_side_and_a_region_of_the_other_side_contradict():
    for region in ("right lung", "right lower zone"):
        with pytest.raises(WordsError, match="'left pleural effusion' is not in the region"):
            resolve(add="left effusion", region=region, findings=("pleural effusion",))
    for region in (
        "left lung",
        "left",
        "right",
        "lower zones",
        "heart",
    ):  # halves of any image: sides may be the image's
        assert resolve(add="left effusion", region=region, findings=("pleural effusion",)).region == region
