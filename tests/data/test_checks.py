"""Each kind of problem is planted once and found where it is; a sound set has none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from tests.tables import write_manifest
from typer.testing import CliRunner

from counterscan.cli import app
from counterscan.data.checks import check
from counterscan.data.looks import NEAR, difference_hash

COUNT = 24


def radiograph(rng):
    """A frontal chest, roughly: shoulders broad, dark lungs, a heart to one side; each patient's own."""
    y, x = np.indices((96, 96)) / 96
    body = np.abs(x - 0.5) < 0.3 + 0.18 * y
    lungs = ((x - 0.3) / 0.12) ** 2 + ((y - 0.45) / 0.3) ** 2 < 1
    lungs |= ((x - 0.7) / 0.12) ** 2 + ((y - 0.45) / 0.3) ** 2 < 1
    heart = ((x - 0.58) / 0.14) ** 2 + ((y - 0.6) / 0.14) ** 2 < 1
    image = 0.75 * body - 0.5 * (lungs & ~heart) + 0.1 * y
    own = gaussian_filter(rng.normal(size=image.shape), 6)
    return np.clip(image + 0.12 * own / own.std(), 0, 1)


def save(path, image):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray((image * 255).astype(np.uint8)).save(path)


@pytest.fixture
def rows(tmp_path):
    """Radiographs with masks, all well; ``manifest.csv`` is written by the tests."""
    rng = np.random.default_rng(3)
    out = []
    for i in range(COUNT):
        save(tmp_path / f"images/{i}.png", radiograph(rng))
        save(tmp_path / f"masks/{i}.png", np.ones((96, 96)))
        split = "test" if i >= 20 else "train"
        out.append({"path": f"images/{i}.png", "patient": f"p{i}", "caption": "chest", "split": split, "view": "PA"})
        out[-1] |= {"age": 20 + i, "sex": "male", "mask": f"masks/{i}.png", "pneumonia": i % 2}
    return out


def kinds(found):
    return {(issue.kind, issue.row) for issue in found.issues}


def test_a_sound_set(tmp_path, rows):
    found = check(write_manifest(tmp_path, rows))
    assert found.sound and found.issues == [] and found.rows == COUNT
    assert found.balance["pneumonia"] == {"present": 12, "absent": 12}
    assert found.splits == {"train": 20, "test": 4}


def unreadable(folder, rows):
    (folder / "images/3.png").write_bytes(b"\x89PNG nonsense")
    (folder / "images/4.png").unlink()
    return {("unreadable", 4), ("unreadable", 5)}


def leaking(folder, rows):
    rows[20]["patient"] = "p1"
    return {("leaking patient", 0)}


def duplicate(folder, rows):
    image = np.asarray(Image.open(folder / "images/2.png"))
    Image.fromarray(np.clip(image * 0.8 + 20, 0, 255).astype(np.uint8)).save(folder / "images/21.png", quality=80)
    return {("duplicate across splits", 22)}


def missing_mask(folder, rows):
    (folder / "masks/7.png").unlink()
    return {("missing mask", 8)}


def bad_mask(folder, rows):
    save(folder / "masks/7.png", np.zeros((96, 90)))
    (folder / "masks/8.png").write_bytes(b"nonsense")
    save(folder / "masks/9.png", np.zeros((48, 48)))  # smaller and empty, which a mask may be
    return {("bad mask", 8), ("bad mask", 9)}


def missing_contrast(folder, rows):
    for i, row in enumerate(rows):
        row["path_T2"] = "images/2.png" if i < 5 else "images/none.png" if i == 5 else ""
    return {("missing contrast", 6)}


def old(folder, rows):
    rows[5]["age"], rows[6]["age"] = 412, -3
    return {("impossible age", 6), ("impossible age", 7)}


def no_label(folder, rows):
    rows[9]["pneumonia"] = "yes"
    return {("bad field", 10)}


def no_split(folder, rows):
    rows[9]["split"] = "trian"
    return {("bad field", 10)}


def no_training(folder, rows):
    for row in rows:
        row["split"] = "test"
    return {("nothing to train on", 0)}


@pytest.mark.parametrize(
    "plant",
    [unreadable, leaking, duplicate, missing_mask, bad_mask, missing_contrast, old, no_label, no_split, no_training],
    ids=lambda f: f.__name__,
)
def test_what_makes_training_unsound(tmp_path, rows, plant):
    expected = plant(tmp_path, rows)
    found = check(write_manifest(tmp_path, rows))
    assert kinds(found) == expected and not found.sound


def test_what_is_only_odd(tmp_path, rows):
    for i, turn in {1: lambda a: 255 - a, 2: np.rot90, 3: lambda a: a[::-1, ::-1]}.items():
        image = np.asarray(Image.open(tmp_path / f"images/{i}.png"))
        Image.fromarray(np.ascontiguousarray(turn(image))).save(tmp_path / f"images/{i}.png")
    rows[7]["mask"] = rows[8]["mask"] = ""  # of these only row 8 has a finding to be masked
    rows[8]["pneumonia"] = 0
    for i, row in enumerate(rows):
        row |= {
            "cardiomegally": int(i < 7 or i > 18),
            "hernia": int(i == 0),
            "hospital": "north",
            "mass": 1 if i != 8 else "",
        }
    rows.append(rows[8] | {"caption": "another"})  # a second caption is no repetition
    rows.append(dict(rows[9]))
    found = check(write_manifest(tmp_path, rows))
    whole = {("no mask", 0), ("label typo", 0), ("rare finding", 0), ("no negatives", 0), ("not a finding", 0)}
    assert kinds(found) == {("inverted", 2), ("rotated", 3), ("rotated", 4), ("repeated row", COUNT + 2)} | whole
    assert found.sound
    assert "'cardiomegaly'" in next(i.text for i in found.issues if i.kind == "label typo")


@pytest.mark.parametrize("masked", [0, 4, COUNT])
def test_masks_are_asked_for_only_where_there_are_some_and_once_an_image(tmp_path, rows, masked):
    for i, row in enumerate(rows):
        row |= {"mask": row["mask"] if i < masked else "", "pneumonia": int(i < 12)}
    rows += [row | {"caption": f"words {k}", "mask": ""} for row in rows for k in range(2)]  # masks are in one row only
    said = [i.text for i in check(write_manifest(tmp_path, rows), images=False).issues if i.kind == "no mask"]
    assert said == (["8 images with a finding have no mask, others do"] if masked == 4 else [])


def test_slices_of_one_patient_may_look_alike(tmp_path, rows):
    Image.open(tmp_path / "images/2.png").save(tmp_path / "images/3.png")
    rows[2]["patient"] = rows[3]["patient"]
    assert check(write_manifest(tmp_path, rows)).issues == []
    rows[2]["patient"] = "p2"
    assert kinds(check(write_manifest(tmp_path, rows))) == {("duplicate", 4)}


def test_hashes_see_through_contrast_and_size_but_not_through_patients():
    rng = np.random.default_rng(0)
    first, other = radiograph(rng), radiograph(rng)

    def apart(a, b):
        return sum((x ^ y).bit_count() for x, y in zip(difference_hash(a), difference_hash(b), strict=True))

    small = np.asarray(Image.fromarray(first.astype(np.float32)).resize((64, 64), Image.Resampling.BOX))
    assert apart(first, small * 0.6 + 0.2) <= NEAR < apart(first, other)


def test_two_of_one_shape_are_no_copies(tmp_path, rows):
    """As registered brains: the same outline, each with details of its own."""
    rng = np.random.default_rng(1)
    shape = gaussian_filter(radiograph(rng), 4)
    one, other = (np.clip(shape + 0.04 * rng.normal(size=shape.shape), 0, 1) for _ in range(2))
    save(tmp_path / "images/4.png", one), save(tmp_path / "images/21.png", other)
    near = sum((x ^ y).bit_count() for x, y in zip(difference_hash(one), difference_hash(other), strict=True))
    assert near <= NEAR and check(write_manifest(tmp_path, rows)).sound
    Image.open(tmp_path / "images/4.png").convert("RGB").save(tmp_path / "images/21.png")
    assert kinds(check(write_manifest(tmp_path, rows))) == {("duplicate across splits", 22)}


def test_the_command_reports_everything_and_fails(tmp_path, rows):
    unreadable(tmp_path, rows), old(tmp_path, rows), leaking(tmp_path, rows)
    done = CliRunner().invoke(
        app, ["data", "check", str(write_manifest(tmp_path, rows)), "-o", str(tmp_path / "out"), "--json"]
    )
    assert done.exit_code == 1
    summary = json.loads(done.stdout)
    assert summary["issues"] == {"unreadable": 2, "impossible age": 2, "leaking patient": 1} and not summary["sound"]
    page = (tmp_path / "out/report.html").read_text()
    assert "412 years" in page and "data:image/png;base64," in page and "NOT sound" in page
    assert json.loads((tmp_path / "out/run.json").read_text())["result"]["rows"] == COUNT


def test_the_command_on_a_sound_set(tmp_path, rows):
    done = CliRunner().invoke(app, ["data", "check", str(write_manifest(tmp_path, rows)), "--no-images", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["sound"]
