"""Reports say every finding as it is; reading them back loses none and flips none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterscan.language.captions import Mention, mentions, report
from counterscan.language.vocabulary import DEVICES, VOCABULARY, lookup
from counterscan.types import Change

WORLD = (
    "pleural effusion",
    "cardiomegaly",
    "consolidation",
    "lung nodule",
    "pneumothorax",
    "pulmonary edema",
    "atelectasis",
)
NAMES = (*WORLD, *DEVICES)


@st.composite
def case(draw):
    """(present findings with attributes, absent names)."""
    pool = draw(st.sampled_from([NAMES, tuple(f.name for f in VOCABULARY)]))
    state = draw(st.fixed_dictionaries({n: st.sampled_from(["present", "absent", "unknown"]) for n in pool}))
    present = []
    for name in (n for n, s in state.items() if s == "present"):
        finding = lookup(name)
        pick = lambda values: draw(st.sampled_from([None, *values]))  # noqa: E731
        side = pick(("left", "right") if finding.sides else ())
        present.append(Change(name, "add", side, pick(finding.places), pick(finding.severities)))
    return present, [n for n, s in state.items() if s == "absent"]


@settings(max_examples=150, deadline=None)
@given(case(), st.integers(0, 2**32), st.sampled_from([None, "PA", "AP"]), st.sampled_from([None, "male", "female"]))
def test_reading_a_report_gives_back_its_facts(facts, seed, view, sex):
    present, absent = facts
    text = report(present, absent, np.random.default_rng(seed), view, sex)
    wanted = {Mention(c.finding, True, c.side, c.place, c.severity) for c in present}
    wanted |= {Mention(name, False) for name in absent}
    assert set(mentions(text)) == wanted, text
    assert len(mentions(text)) == len(wanted)


def test_reports_vary_and_repeat_under_a_seed():
    facts = [Change("lung nodule", "add", "left", "upper", "small")]
    texts = [report(facts, ["pneumothorax"], np.random.default_rng(seed), "PA", "male") for seed in range(60)]
    assert len(set(texts)) > 40
    assert texts[3] == report(facts, ["pneumothorax"], np.random.default_rng(3), "PA", "male")


TEXTS = {
    "No pneumothorax or pleural effusion.": [("pneumothorax", False), ("pleural effusion", False)],
    "There is no effusion, but a pacemaker is seen.": [("pleural effusion", False), ("pacemaker", True)],
    "The pacemaker has been removed. Cardiomegaly is present.": [("pacemaker", False), ("cardiomegaly", True)],
    "Pneumothorax is absent. ETT in situ.": [("pneumothorax", False), ("endotracheal tube", True)],
    "The heart size is normal and the lungs are clear.": [("cardiomegaly", False)],
    "Heart is enlarged, lungs unremarkable.": [("cardiomegaly", True)],
    "No change in the effusion.": [("pleural effusion", True)],
    "Without consolidation; small effusion.": [("consolidation", False), ("pleural effusion", True)],
}


@pytest.mark.parametrize(("text", "facts"), TEXTS.items())
def test_free_text(text, facts):
    assert [(m.finding, m.present) for m in mentions(text)] == facts


def test_free_text_that_fits_no_grammar_is_passed_over():
    assert mentions("Left cardiomegaly with bilateral effusions") == (
        Mention("cardiomegaly", True),
        Mention("pleural effusion", True),
    )
