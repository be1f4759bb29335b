"""The chest world: determinism, exactness of the counterfactual, and that every finding leaves a trace where it should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterscan.errors import WordsError
from counterscan.worlds import chest
from counterscan.worlds.check import check_world

SIZE = 96


def bare(seed: int, size: int = SIZE) -> chest.Case:
    return chest.sample(seed, size=size, mechanism=chest.Mechanism(prevalence=dict.fromkeys(chest.FINDINGS, 0.0)))


def test_the_world_keeps_its_promises():
    check_world("chest")


def test_same_seed_same_image_and_range():
    a, b = chest.sample(5, size=SIZE), chest.sample(5, size=SIZE)
    assert np.array_equal(a.image, b.image) and a.findings == b.findings
    assert a.image.shape == (SIZE, SIZE) and a.image.dtype == np.float32
    assert 0 <= a.image.min() and a.image.max() <= 1
    assert not np.array_equal(a.image, chest.sample(6, size=SIZE).image)


def test_a_generator_draws_different_cases():
    rng = np.random.default_rng(0)
    assert chest.sample(rng, size=SIZE).anatomy.seed != chest.sample(rng, size=SIZE).anatomy.seed


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(chest.FINDINGS))
def test_adding_and_removing_returns_the_same_pixels(seed, finding):
    case = bare(seed, 64)
    there = chest.intervene(case, {finding: True})
    assert set(there.findings) == {finding}
    back = chest.intervene(there, {finding: False})
    assert np.array_equal(back.image, case.image)


@pytest.mark.parametrize("finding", chest.FINDINGS)
def test_every_finding_changes_the_image_and_little_else(finding):
    """The mask is neither empty nor the whole image, and outside it nothing is visibly different."""
    shares, outside = [], []
    for seed in range(6):
        case = bare(seed, 128)
        there = chest.intervene(case, {finding: True})
        mask = chest.change_mask(case, there)
        shares.append(mask.mean())
        outside.append(np.abs(case.image - there.image)[~mask].mean())
    assert 0 < np.mean(shares) < 0.35
    assert np.mean(outside) < 0.004


@pytest.mark.parametrize("finding", chest.SIDED)
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_patients_left_is_on_the_images_right(finding, side):
    case = bare(11, 128)
    there = chest.intervene(case, {finding: chest.Present(side, "middle" if finding in chest.PLACED else None, 0.6)})
    change = np.abs(there.clean - case.clean)
    right_half = change[:, 64:].sum() / change.sum()
    assert (right_half > 0.5) == (side == "left")


@pytest.mark.parametrize(
    "finding", ["pleural effusion", "cardiomegaly", "consolidation", "pulmonary edema", "pneumothorax"]
)
def test_severity_grows_the_change(finding):
    case = bare(3, 128)
    base = chest.attributes(case.anatomy, finding)
    sizes = []
    for severity in (0.1, 0.9):
        there = chest.intervene(case, {finding: chest.Present(base.side, base.place, severity)})
        sizes.append(np.abs(there.clean - case.clean).sum())
    assert sizes[1] > 1.2 * sizes[0]


def test_opposite_signs_of_density():
    """Fluid and metal whiten; free air darkens."""
    case = bare(4, 128)
    for finding, sign in (("pleural effusion", 1), ("pacemaker", 1), ("pneumothorax", -1)):
        there = chest.intervene(case, {finding: chest.Present("left", None, 0.9)})
        assert np.sign((there.clean - case.clean)[chest.change_mask(case, there)].mean()) == sign


def test_planted_correlation_and_independence():
    tied = chest.Mechanism(agree={("pacemaker", "pleural effusion"): 0.95})
    same = [("pacemaker" in c.findings) == ("pleural effusion" in c.findings) for c in _draw(tied)]
    free = [("pacemaker" in c.findings) == ("pleural effusion" in c.findings) for c in _draw(chest.Mechanism())]
    assert np.mean(same) > 0.87 > np.mean(free)


def _draw(mechanism: chest.Mechanism) -> list[chest.Case]:
    return [chest.sample(s, size=32, mechanism=mechanism) for s in range(60)]


def test_any_resolution_shows_the_same_patient():
    small, large = bare(9, 64), chest.resized(bare(9, 64), 128)
    shrunk = large.clean.reshape(64, 2, 64, 2).mean((1, 3))
    assert np.abs(shrunk - small.clean).mean() < 0.03


def test_unknown_finding_is_named():
    with pytest.raises(WordsError, match="broken rib"):
        chest.intervene(bare(1), {"broken rib": True})


def test_caption_names_every_finding_with_its_side():
    case = chest.intervene(bare(2), {"pleural effusion": chest.Present("left", None, 0.1), "pacemaker": False})
    assert "small left pleural effusion" in case.caption and "pacemaker" not in case.caption
    assert case.caption.startswith(f"world chest radiograph, {case.view}, {case.sex}")
