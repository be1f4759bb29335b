"""The stated rate of false alarms holds, and what is called evidence is what decides."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.models import tiny

from counterscan.attribution import Calibration, attribute, calibrate
from counterscan.attribution.difference import evidence, regions, strength
from counterscan.backbones import load
from counterscan.backbones.card import Card
from counterscan.errors import DataError, WordsError
from counterscan.training import calibrate as calibrate_card
from counterscan.worlds import brain


@given(st.integers(0, 999), st.floats(0.02, 0.3))
def test_a_region_is_left_just_below_the_evidence_and_none_at_it(seed, share):
    rng = np.random.default_rng(seed)
    difference = (rng.random((40, 40)) < share) * rng.normal(0, 0.2, (40, 40))
    difference[10:20, 5:15] += rng.normal()
    difference, smallest = difference.astype(np.float32), 0.01
    level = evidence(difference, smallest)
    heat = strength(difference)
    assert not regions(heat > level, difference, smallest=smallest)
    assert regions(heat > np.nextafter(np.float32(level), np.float32(-1)), difference, smallest=smallest)


def test_the_rate_holds_on_images_never_seen():
    rng, alarms = np.random.default_rng(0), []
    for _ in range(400):
        told = Calibration("x", tuple(rng.gamma(2, 0.05, 99)))
        alarms.append((rng.gamma(2, 0.05, 50) > told.threshold(0.05)).mean())
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.005)


def test_the_conformal_quantile_by_hand_and_on_disk(tmp_path):
    told = Calibration("pacemaker", tuple(float(v) for v in range(19, 0, -1)), "abc", ("ddim",), 2)
    assert told.threshold(0.05) == 19  # the 19th of 19 is just enough for 1 in 20
    assert told.threshold(0.5) == 10
    with pytest.raises(WordsError, match="calibrate on 99 or more"):
        told.threshold(0.01)
    with pytest.raises(WordsError, match="between 0 and 1"):
        told.threshold(1)
    assert Calibration.load(told.save(tmp_path / "c.json")) == told
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(DataError, match="no calibration"):
        Calibration.load(tmp_path / "bad.json")


def test_a_calibration_holds_for_its_methods_settings_only(tmp_path):
    model, image = load(tiny(tmp_path / "tiny")), np.add.outer(np.arange(40), np.arange(40)) / 80
    plain, quick = (
        calibrate([image] * 2, finding="pacemaker", method=name, model=model)
        for name in ("sdedit", "sdedit:steps=2,depth=1")
    )
    assert plain.methods == ("sdedit",) and quick.methods == ("SdEdit(steps=2, depth=1.0, guidance=4.0)",)
    for known, method in ((plain, "sdedit:steps=2,depth=1"), (quick, "sdedit"), (quick, "sdedit:steps=2")):
        with pytest.raises(WordsError, match=r"of another methods.*calibrate anew"):
            attribute(image, finding="pacemaker", method=method, model=model, calibration=known, rate=0.5)
    found = attribute(
        image, finding="pacemaker", method="sdedit:depth=1,steps=2", model=model, calibration=quick, rate=0.5
    )
    assert found.rate == 0.5


def test_a_card_is_calibrated_as_everything_else_and_never_on_too_few_images(tmp_path, monkeypatch):
    folder = tiny(tmp_path / "tiny", findings=("pacemaker",))
    replace(Card.read(folder), default_method="noise-free", training={"data": "none"}).write(folder)
    monkeypatch.setattr(sys, "argv", ["calibrate", str(folder), "-n", "18"])
    with pytest.raises(WordsError, match="calibrate on 19 or more"):
        calibrate_card.main()
    assert Card.read(folder).null_change == {}
    monkeypatch.setattr(sys, "argv", ["calibrate", str(folder), "-n", "19"])
    calibrate_card.main()
    card, images = Card.read(folder), calibrate_card.world_images("chest", "pacemaker", 19, 32)
    exact = calibrate(images, finding="pacemaker", model=str(folder)).threshold(0.05)
    assert exact <= card.null_change["pacemaker"] <= exact + 2e-4
    assert card.training == {"data": "none", "null_change_n": {"pacemaker": 19}}
    assert attribute(images[0], finding="pacemaker", model=str(folder)).rate == 0.05


def test_a_word_for_several_findings_is_calibrated_without_any_of_them():
    healthy = calibrate_card.world_images("brain", "lesion", 3, 32)
    truth = [brain.sample(calibrate_card.FIRST_SEED + i, size=32) for i in range(3)]
    assert any(case.findings for case in truth)
    for image, case in zip(healthy, truth, strict=True):
        assert np.array_equal(image, brain.intervene(case, dict.fromkeys(brain.FINDINGS, False)).image)
