"""Training captions never say what is not so."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from counterscan.training.captions import DEVICES, CaptionSettings, Row, caption, twin_caption, vocabulary

NAMES = ("pleural effusion", "cardiomegaly", *DEVICES)
facts = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["present", "absent", "unknown"]))


def row(values: dict[str, str]) -> Row:
    present = tuple(
        (n, "left" if n == "pleural effusion" else None, None, None) for n, v in values.items() if v == "present"
    )
    return Row("world chest radiograph", present, tuple(n for n, v in values.items() if v == "absent"), "AP", "male")


@given(facts, st.integers(0, 2**32))
def test_every_phrase_is_true(values, seed):
    text = caption(row(values), np.random.default_rng(seed), CaptionSettings(drop=0.0))
    for part in text.rstrip(".").split(": ")[1].split(", ") if ": " in text else []:
        denied = part.startswith("no ")
        name = part.removeprefix("no ").removeprefix("left ")
        if name == "support devices":
            states = [values.get(n, "unknown") for n in DEVICES]
            assert all(s == "absent" for s in states) if denied else "present" in states
        else:
            assert values[name] == ("absent" if denied else "present")


@given(st.integers(0, 2**32))
def test_with_certainty_nothing_is_lost(seed):
    always = CaptionSettings(drop=0.0, full=1.0, mention=1.0, deny=1.0, side=1.0, view=1.0, sex=1.0)
    text = caption(row({"pleural effusion": "present", "cardiomegaly": "absent"}), np.random.default_rng(seed), always)
    assert "left pleural effusion" in text and "no cardiomegaly" in text and ", AP, male" in text


def test_dropped_captions_come_at_their_rate():
    rng = np.random.default_rng(0)
    empty = np.mean(
        [caption(row({"cardiomegaly": "present"}), rng, CaptionSettings(drop=0.3)) == "" for _ in range(2000)]
    )
    assert 0.26 < empty < 0.34


def test_vocabulary_covers_captions():
    r = row(dict.fromkeys(NAMES, "present"))
    words = set(vocabulary([r]))
    rng = np.random.default_rng(1)
    for _ in range(50):
        text = caption(r, rng, CaptionSettings()).lower().replace(",", " ").replace(".", " ").replace(":", " ")
        assert set(text.split()) <= words


@given(facts, st.sampled_from(NAMES), st.integers(0, 2**32))
def test_a_twins_caption_names_what_changed_and_nothing_false(values, name, seed):
    values = {n: "present" if values.get(n) == "present" else "absent" for n in NAMES}
    other = values | {name: "absent" if values[name] == "present" else "present"}
    text = twin_caption(row(values), row(other), np.random.default_rng(seed), CaptionSettings())
    if text == "world chest radiograph: no support devices.":
        assert name in DEVICES and all(other[n] == "absent" for n in DEVICES)
        return
    phrases = text.rstrip(".").split(": ")[1].split(", ")
    assert any(p.startswith("no ") == (other[name] == "absent") and p.endswith(name) for p in phrases)
    for p in phrases:
        plain = p.removeprefix("no ").removeprefix("left ")
        assert plain == "support devices" or other[plain] == ("absent" if p.startswith("no ") else "present")
