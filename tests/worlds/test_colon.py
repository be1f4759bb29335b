"""The colon world: a scene in perspective, exact twins, sentences that are true, any resolution alike."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from counterscan.errors import WordsError
from counterscan.worlds import colon
from counterscan.worlds.check import check_world
from counterscan.worlds.colon_objects import Rod, hit
from counterscan.worlds.colon_scene import FAR, NEAR, Camera, Wall, Waves, depths, march, normals, stream
from counterscan.worlds.dataset import write_world

NOTHING = colon.Mechanism(prevalence={})


def with_finding(name, seed, size=96, **attributes):
    base = colon.sample(seed, size=size, mechanism=NOTHING)
    return base, colon.intervene(base, {name: colon.Present(**attributes) if attributes else True})


def test_the_world_keeps_its_promises():
    check_world(colon)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(colon.FINDINGS))
def test_adding_and_removing_returns_the_same_pixels(seed, finding):
    base, case = with_finding(finding, seed, 48)
    assert set(case.findings) == {finding}
    assert np.array_equal(colon.intervene(case, {finding: False}).image, base.image)


@pytest.mark.parametrize("finding", colon.FINDINGS)
def test_every_finding_changes_the_image_and_little_else(finding):
    shares, outside = [], []
    for seed in range(5):
        base, case = with_finding(finding, seed)
        mask = colon.change_mask(base, case)
        shares.append(mask.mean())
        outside.append(np.abs(base.image - case.image)[~mask].mean())
    assert 0.005 < np.mean(shares) < 0.3
    assert np.mean(outside) < 0.002


@pytest.mark.parametrize("name", list(colon.PARIS))
def test_a_polyp_is_seen_in_its_quarter(name):
    """Half hidden behind a fold, one may have its visible middle elsewhere; one in ten at most."""
    asked, found = [], []
    for seed in range(12):
        side, place = ("left", "right")[seed % 2], ("upper", "lower")[seed // 2 % 2]
        _, case = with_finding(name, seed, 48, side=side, place=place, severity=0.5)
        rows, columns = np.nonzero(case.lesion)
        if len(rows) >= 4:  # or it is behind a fold
            asked.append((side, place))
            found.append((("left", "right")[int(columns.mean() >= 24)], ("upper", "lower")[int(rows.mean() >= 24)]))
    assert len(asked) >= 10
    assert sum(a != b for a, b in zip(asked, found, strict=True)) <= 1


def test_size_in_millimetres_follows_severity_and_so_does_the_picture():
    assert [round(colon.millimetres(colon.Present(None, None, s)), 1) for s in (0, 1)] == [3.0, 30.0]
    for seed in (3, 4):
        areas = [
            with_finding("sessile polyp", seed, side="left", place="lower", severity=s)[1].lesion.sum()
            for s in (0.05, 0.4, 0.75)
        ]
        assert 0 < areas[0] < areas[1] < areas[2]


def test_a_ray_that_meets_no_polyp_keeps_its_pixel_bit_for_bit():
    """Blur and edge enhancement carry a change a few pixels; beyond them nothing at all differs."""
    base, case = with_finding("pedunculated polyp", 7, 128, side="right", place="lower", severity=0.6)
    changed = np.abs(base.clean - case.clean).max(2) > 0
    assert 0.001 < changed.mean() < 0.25
    assert not changed[:32, :32].any()
    assert (case.lesion <= changed).all()


def test_marching_finds_the_wall_and_normals_point_into_the_lumen():
    camera, wall = Camera.draw(5), Wall.draw(5)
    axis = np.linspace(-0.9, 0.9, 40, dtype=np.float32)
    u, v = (np.ascontiguousarray(a) for a in np.broadcast_arrays(axis[None], axis[:, None]))
    rays = camera.rays(u.ravel(), v.ravel())
    t = depths(camera, u, v, wall.distance)
    p = camera.place[:, None] + rays * t
    assert np.quantile(np.abs(wall.distance(p))[t < FAR], 0.97) < 0.03
    facing = -(normals(p, wall.distance) * rays).sum(0)
    assert np.allclose(np.linalg.norm(rays, axis=0), 1, atol=1e-5)
    assert (facing > -0.1).mean() > 0.97
    alone = march(np.full(rays.shape[1], NEAR, np.float32), camera.place, rays, wall.distance)
    assert (np.abs(np.log(alone / t)) < 0.05).mean() > 0.97, "starting from the neighbours' depth loses the surface"


def test_the_camera_sees_a_point_where_its_ray_passes():
    camera = Camera.draw(9)
    u, v = np.array([-0.7, 0.1, 0.6], np.float32), np.array([0.2, -0.5, 0.6], np.float32)
    points = camera.place[:, None] + 1.7 * camera.rays(u, v)
    assert np.allclose(camera.seen(points), [u, v], atol=1e-5)


def test_a_wave_s_gradient_is_its_slope():
    waves, p = Waves.draw(stream(0, "x"), 0.5), np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    for axis in range(3):
        step = np.zeros((3, 1), np.float32)
        step[axis] = 1e-3
        numeric = (waves(p + step) - waves(p - step)) / 2e-3
        assert np.allclose(numeric, waves.gradient(p)[axis], atol=0.05)


def test_a_rod_is_met_where_geometry_says():
    rod = Rod(np.array([-1, 0, 2.0]), np.array([1, 0, 2.0]), 0.1, (1, 1, 1))
    depth, cover, square, along = hit(rod, np.zeros(3), np.array([[0, 0, 1], [0, 0.2, 1.0]]).T, 0.001)
    assert depth[0] == pytest.approx(1.9) and cover[0] == pytest.approx(1) and square[0] == pytest.approx(1)
    assert along[0] == pytest.approx(1) and cover[1] == 0


def test_any_resolution_shows_the_same_bowel():
    for seed in (4, 11):
        small, large = (colon.sample(seed, size=n).clean for n in (64, 192))
        shrunk = large.reshape(64, 3, 64, 3, 3).mean((1, 3))
        assert np.abs(small - shrunk).mean() < 0.035
        assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.95


def test_mucosa_is_red_and_the_frame_black():
    cases = [colon.sample(seed, size=64, mechanism=NOTHING) for seed in range(8)]
    middle = np.mean([case.clean[16:48, 16:48] for case in cases], axis=(0, 1, 2))
    assert middle[0] > 1.5 * middle[1] > 1.5 * middle[2] * 0.9
    assert all(case.clean[0, 0].max() == 0 for case in cases)


def test_sentences_are_true():
    case = colon.intervene(
        colon.sample(2, size=48, mechanism=NOTHING),
        {
            "sessile polyp": colon.Present("left", "upper", 0.4),
            "biopsy forceps": colon.Present("right", "lower", 0.5),
        },
    )
    assert case.caption == "world colonoscopy: moderate left upper sessile polyp, right lower biopsy forceps."
    assert set(case.prompts) >= {
        "Generate an image from a colonoscopy procedure.",
        "Generate an image with 1 polyp.",
        "Generate an image with 1 instrument.",
        "Generate an image containing biopsy forceps.",
        "Generate a polyp of type paris is.",
        "Generate an image with a polyp of size 5-10mm.",
        "Generate an image with an abnormality located in the upper-left.",
        "Generate an image with an instrument located in the lower-right.",
        "Generate an image not containing a green/black box artefact.",
    }
    bare = colon.intervene(case, {name: False for name in colon.FINDINGS})
    assert {"Generate an image with no polyps.", "Generate an image with no instruments."} <= set(bare.prompts)


def test_planted_correlations_hold():
    mechanism = colon.Mechanism(agree={("box artefact", "sessile polyp"): 1.0})
    cases = [colon.sample(i, size=32, mechanism=mechanism) for i in range(30)]
    assert all(("box artefact" in c.findings) == ("sessile polyp" in c.findings) for c in cases)
    assert 2 < sum("box artefact" in c.findings for c in cases) < 20
    with pytest.raises(WordsError, match="no finding 'gout'"):
        colon.intervene(cases[0], gout=True)


def test_a_data_set_has_colour_images_masks_and_sentences(tmp_path):
    with write_world("colon", tmp_path, 8, size=48).open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        with Image.open(tmp_path / row["path"]) as image:
            assert image.mode == "RGB" and image.size == (48, 48) and image.text["Synthetic"] == "yes"
        assert bool(row["mask"]) <= any(row[name] == "1" for name in colon.PARIS)
        assert "Generate an image from a colonoscopy procedure." in row["prompts"].split(" || ")
    assert any(row["mask"] for row in rows)
