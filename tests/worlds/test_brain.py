"""The brain world: four contrasts, lesions as they look, exact twins."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from counterscan.errors import WordsError
from counterscan.worlds import brain
from counterscan.worlds.check import check_world
from counterscan.worlds.dataset import write_world


def test_the_world_keeps_its_promises():
    check_world(brain)


def with_finding(name, seed, **attributes):
    base = brain.intervene(brain.sample(seed), dict.fromkeys(brain.FINDINGS, False))
    return base, brain.intervene(base, {name: brain.Present(**attributes)})


@pytest.mark.parametrize("name", ["glioma", "meningioma"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("place", list(brain.LOBES))
def test_a_tumour_lies_on_its_side_and_in_its_lobe(name, side, place):
    _, case = with_finding(name, 5, side=side, place=place, severity=0.5)
    rows, columns = np.nonzero(case.lesion)
    assert (columns.mean() > case.size / 2) == (side == "left"), "the patient's left is on the image's right"
    back = rows.mean() / case.size
    assert back < 0.45 if place == "frontal" else back > 0.6 if place == "occipital" else 0.3 < back < 0.85


def test_contrasts_show_what_they_should():
    """Enhancement only on T1c; oedema bright on FLAIR; fluid bright on T2 and dark on FLAIR."""
    base, case = with_finding("glioma", 3, side="left", place="frontal", severity=0.9)
    t1, t1c, _, flair = range(4)
    gain = case.clean - base.clean
    inside = gain[case.lesion]  # outside, the mass pushes ventricles aside
    assert np.quantile(inside[:, t1c], 0.99) > 0.2
    assert inside[:, t1].mean() < 0
    assert gain[..., flair][case.lesion].mean() > 0.1
    fluid = base.clean[..., 2] > 0.8
    assert base.clean[..., flair][fluid].mean() < 0.25


def test_size_follows_severity_and_mass_pushes_tissue_aside():
    areas = []
    for severity in (0.1, 0.5, 0.95):
        base, case = with_finding("glioma", 8, side="right", place="parietal", severity=severity)
        areas.append(int(case.lesion.sum()))
    assert areas == sorted(areas)
    assert areas[2] > 3 * areas[0]
    assert (brain.change_mask(base, case) & ~case.lesion).any()


def test_any_resolution_shows_the_same_head():
    small, large = (brain.sample(4, size=n).clean for n in (64, 192))
    shrunk = large.reshape(64, 3, 64, 3, 4).mean((1, 3))
    assert np.abs(small - shrunk).mean() < 0.03


def test_planted_correlations_hold():
    mechanism = brain.Mechanism(agree={("meningioma", "glioma"): 1.0})
    cases = [brain.sample(i, size=32, mechanism=mechanism) for i in range(40)]
    assert all(("meningioma" in c.findings) == ("glioma" in c.findings) for c in cases)
    assert 5 < sum("glioma" in c.findings for c in cases) < 25
    with pytest.raises(WordsError, match="no finding 'gout'"):
        brain.intervene(cases[0], gout=True)


def test_a_data_set_has_one_file_a_contrast_and_lesion_masks(tmp_path):
    with write_world("brain", tmp_path, 6, size=48).open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for column in ("path", "path_T1", "path_T2", "path_FLAIR"):
            assert np.asarray(Image.open(tmp_path / row[column])).shape == (48, 48)
        sick = any(row[name] == "1" for name in brain.FINDINGS)
        assert bool(row["mask"]) <= sick
        assert not row["mask"] or np.asarray(Image.open(tmp_path / row["mask"])).max() == 255
    assert any(row["mask"] for row in rows)
    assert {row["sex"] for row in rows} <= {"female", "male"}  # a manifest's words
