"""Instructions in plain English become the changes they ask for, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterscan.errors import WordsError
from counterscan.language.instruction import parse, understand
from counterscan.language.phrase import phrase
from counterscan.language.vocabulary import DEVICES, lookup
from counterscan.types import Change

DISEASES = (
    "pleural effusion",
    "cardiomegaly",
    "consolidation",
    "lung nodule",
    "pneumothorax",
    "pulmonary edema",
    "atelectasis",
)
CARD = (*DISEASES, *DEVICES, "support devices")

ASKED = {
    "add a small left pleural effusion": [Change("pleural effusion", "add", "left", None, "small")],
    "Add a tiny effusion on the left.": [Change("pleural effusion", "add", "left", None, "small")],
    "remove the pacemaker and its wires": [Change("pacemaker", "remove")],
    "remove the pacemaker and add mild cardiomegaly": [
        Change("pacemaker", "remove"),
        Change("cardiomegaly", "add", severity="mild"),
    ],
    "without the chest port": [Change("chest port", "remove")],
    "show this patient with a large right pneumothorax": [Change("pneumothorax", "add", "right", None, "large")],
    "show this patient without the pacemaker": [Change("pacemaker", "remove")],
    "make the heart normal size": [Change("cardiomegaly", "remove")],
    "take out all support devices": [Change("support devices", "remove")],
    "take the tube out": [Change("endotracheal tube", "remove")],
    "no effusion": [Change("pleural effusion", "remove")],
    "no effusion or pneumothorax, add a nodule": [
        Change("pleural effusion", "remove"),
        Change("pneumothorax", "remove"),
        Change("lung nodule", "add"),
    ],
    "get rid of the lines": [Change("central line", "remove")],
    "this patient should no longer have a pacemaker": [Change("pacemaker", "remove")],
    "increase the effusion": [Change("pleural effusion", "add", severity="large")],
    "worsen the pulmonary oedema": [Change("pulmonary edema", "add", severity="severe")],
    "reduce the effusion": [Change("pleural effusion", "add", severity="small")],
    "make the left effusion smaller": [Change("pleural effusion", "add", "left", None, "small")],
    "change the effusion to moderate": [Change("pleural effusion", "add", severity="moderate")],
    "replace the pacemaker with a right chest port": [
        Change("pacemaker", "remove"),
        Change("chest port", "add", "right"),
    ],
    "add a nodule in the left upper lobe and a consolidation at the right base": [
        Change("lung nodule", "add", "left", "upper"),
        Change("consolidation", "add", "right", "lower"),
    ],
    "add a left apical pneumothorax, small, and moderate edema": [
        Change("pneumothorax", "add", "left", None, "small"),
        Change("pulmonary edema", "add", severity="moderate"),
    ],
    "remove the effusion, do not remove the pacemaker": [Change("pleural effusion", "remove")],
    "show me this patient with the pacemaker and the tube removed": [
        Change("pacemaker", "remove"),
        Change("endotracheal tube", "remove"),
    ],
    "the effusion should be gone": [Change("pleural effusion", "remove")],
    "add an effusion but keep the heart normal": [Change("pleural effusion", "add")],
    "remove the effusion and leave the rest": [Change("pleural effusion", "remove")],
    "no effusion but with a nodule": [Change("pleural effusion", "remove"), Change("lung nodule", "add")],
    "extubate": [Change("endotracheal tube", "remove")],
    "make the heart bigger": [Change("cardiomegaly", "add")],
    "remove the edema but do not add a nodule": [Change("pulmonary edema", "remove")],
}


@pytest.mark.parametrize(("text", "changes"), ASKED.items())
def test_instructions(text, changes):
    assert list(parse(text, CARD)) == changes


REFUSED = {
    "add a pneumothroax": "pneumothroax.*did you mean pneumothorax",
    "remove the zebra": "zebra",
    "effusion": "add or to remove",
    "do not remove the pacemaker": "no change",
    "": "no change",
    "add fibrosis": "no finding 'fibrosis'",
    "add bilateral effusions": "one side at a time",
    "add left and right effusions": "one side at a time",
    "add left cardiomegaly": "no side",
    "add a severe pacemaker": "no severity",
    "worsen the pacemaker": "no severity",
    "add a small large effusion": "severity",
    "remove the pacemaker and keep the pacemaker": "contradiction",
    "add all findings": "name the finding",
    "change the effusion": "say how",
}


@pytest.mark.parametrize(("text", "why"), REFUSED.items())
def test_refusals_say_which_word(text, why):
    with pytest.raises(WordsError, match=why):
        parse(text, CARD)


@pytest.mark.parametrize(
    "text", ["as if healthy", "normal chest", "remove all findings", "make it normal", "no findings"]
)
def test_healthy_removes_everything_the_model_knows(text):
    changes = parse(text, CARD)
    assert {c.finding for c in changes} == {*DISEASES, "support devices"}
    assert {c.direction for c in changes} == {"remove"}


@pytest.mark.parametrize(
    "text",
    [
        "as if healthy but keep the pacemaker",
        "remove everything but the pacemaker",
        "remove everything except the pacemaker",
        "remove all except for the pacemaker",
        "remove all but the pacemaker",
        "keep the pacemaker, remove the rest",
    ],
)
def test_healthy_except(text):
    removed = {c.finding for c in parse(text, CARD)}
    assert removed == {*CARD} - {"pacemaker", "support devices"}


def test_devices_except():
    for text in ("remove all devices but the pacemaker", "remove all devices but not the pacemaker"):
        assert {c.finding for c in parse(text, CARD)} == {*DEVICES} - {"pacemaker"}


def test_idioms_need_the_finding_too():
    with pytest.raises(WordsError, match="no finding 'cardiomegaly'"):
        parse("make the heart normal size", ["pacemaker"])


def test_negated_verbs_keep():
    request = understand("add an effusion without removing the pacemaker and do not touch the tube", CARD)
    assert [n.finding for n in request.keep] == ["pacemaker", "endotracheal tube"]


def test_a_model_without_a_list_takes_any_words():
    changes = parse("remove the pacemaker and add a scimitar sign", ())
    assert changes == (Change("pacemaker", "remove"), Change("scimitar sign", "add"))


@st.composite
def named(draw):
    finding = lookup(draw(st.sampled_from([*DISEASES, *DEVICES])))
    pick = lambda values: draw(st.sampled_from([None, *values]))  # noqa: E731
    side = pick(("left", "right") if finding.sides else ())
    return finding.name, side, pick(finding.places), pick(finding.severities)


@given(st.lists(named(), min_size=1, max_size=4, unique_by=lambda n: n[0]), st.data())
def test_every_terse_phrase_is_understood(facts, data):
    """Any mixture of additions and removals reads back as itself."""
    wanted, parts = [], []
    for name, side, place, severity in facts:
        verb = data.draw(st.sampled_from(["add", "remove"]))
        parts.append(f"{verb} the {phrase(name, side=side, place=place, severity=severity)}")
        wanted.append(Change(name, verb, side, place, severity))
    joint = data.draw(st.sampled_from([" and ", ", ", ", then ", ". "]))
    assert sorted(parse(joint.join(parts), CARD), key=repr) == sorted(wanted, key=repr)


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from("add remove no not left big effusion pacemaker and , to".split())).map(" ".join)
)
def test_any_text_is_understood_or_refused(text):
    try:
        parse(text, CARD)
    except WordsError as error:
        assert "\n" not in str(error).replace(text, "")  # noqa: PT017


DEVICES_AND_FINDINGS = ("pneumothorax", "pleural effusion", "pacemaker", "chest port", "endotracheal tube")


@pytest.mark.parametrize(
    ("text", "removed", "added", "kept"),
    [
        ("replace the pacemaker by a chest port", ["pacemaker"], ["chest port"], []),
        ("Replacing the pacemaker for a port", ["pacemaker"], ["chest port"], []),
        ("replace the pacemaker with a chest port", ["pacemaker"], ["chest port"], []),
        ("add an effusion instead of the pneumothorax", ["pneumothorax"], ["pleural effusion"], []),
        ("put a port in place of the pacemaker", ["pacemaker"], ["chest port"], []),
        ("show an effusion rather than a pneumothorax", ["pneumothorax"], ["pleural effusion"], []),
        ("show an effusion instead", [], ["pleural effusion"], []),
        ("add an effusion, but not without the pacemaker", [], ["pleural effusion"], ["pacemaker"]),
        ("remove the pacemaker by erasing it", ["pacemaker"], [], []),
        ("no effusion, no pacemaker", ["pleural effusion", "pacemaker"], [], []),
    ],
)
def test_one_thing_for_another(text, removed, added, kept):
    request = understand(text, DEVICES_AND_FINDINGS)
    told = [[named.finding for named in row] for row in (request.remove, request.add, request.keep)]
    assert told == [removed, added, kept]


def test_sides_change_places():
    changes = parse("replace the left effusion by a right effusion", DEVICES_AND_FINDINGS)
    assert changes == (Change("pleural effusion", "remove", "left"), Change("pleural effusion", "add", "right"))


@pytest.mark.parametrize("tube", ["chest tube", "chest drain", "NG tube", "feeding tube", "tracheostomy tube"])
def test_another_tube_is_no_endotracheal_tube(tube):
    with pytest.raises(WordsError, match="no finding|did not understand"):
        understand(f"add a {tube}", DEVICES_AND_FINDINGS)


@pytest.mark.parametrize("text", ["this brain as if it were healthy", "show this head as healthy"])
def test_a_brain_as_if_it_were_healthy(text):
    assert understand(text, ("lesion",)).everything


def test_a_refused_word_is_not_its_own_hint():
    with pytest.raises(WordsError) as caught:
        understand("add a fluid", DEVICES_AND_FINDINGS)
    assert "mean fluid" not in str(caught.value)
