"""Pairs by symmetry: what is outlined on one side gives way to the other side."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from counterscan.data import manifest as manifests
from counterscan.errors import DataError
from counterscan.training import mirror

SIDE = 96
NAMES = ("tumour", "glioma")


def head(seed=0, turn=0.0, shift=0):
    """A symmetric oval head with a bright skull and folds, turned and shifted."""
    y, x = (np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2) / (SIDE / 2)
    oval = (y / 0.85) ** 2 + (x / 0.7) ** 2
    folds = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(SIDE, SIDE)), 3)
    folds = (folds + folds[:, ::-1]) / 2
    image = np.where(oval < 1, np.where(oval > 0.8, 0.9, 0.4 + folds / folds.std() * 0.08), 0)
    moved = ndimage.shift(ndimage.rotate(image, turn, reshape=False, order=1), (0, shift), order=1)
    return np.repeat(moved.clip(0, 1)[..., None], 3, axis=2).astype(np.float32)


def blob(row, column, radius=7):
    y, x = np.mgrid[:SIDE, :SIDE]
    return (y - row) ** 2 + (x - column) ** 2 <= radius**2


@pytest.mark.parametrize(("turn", "shift"), [(0, 0), (8, 6), (-5, -9)])
def test_the_other_side_is_what_was_there(turn, shift):
    clear, mask = head(1, turn, shift), blob(45, 66 + shift)
    ill = clear.copy()
    ill[mask] = 0.95
    made = mirror.healthy(ill, mask)
    assert made is not None and made.shape == ill.shape
    assert np.abs(made - clear)[mask].mean() < 0.12 * np.abs(ill - clear)[mask].mean()
    far = ~ndimage.binary_dilation(mask, iterations=8)
    assert np.abs(made - ill)[far].max() < 0.01


@pytest.mark.parametrize(("row", "column"), [(45, 48), (45, 53)])
def test_what_reaches_the_other_side_is_left_out(row, column):
    assert mirror.healthy(head(), blob(row, column)) is None


def test_unlike_sides_and_nothing_outlined_are_left_out():
    lopsided = head()
    lopsided[:, 50:] = np.linspace(0.9, 0.1, SIDE)[:, None, None]
    assert mirror.healthy(lopsided, blob(45, 66)) is None
    assert mirror.healthy(head(), np.zeros((SIDE, SIDE), bool)) is None
    assert mirror.healthy(np.zeros((SIDE, SIDE, 3), np.float32), blob(45, 66)) is None


@pytest.mark.parametrize("turn", [-7.0, 0.0, 11.0])
def test_a_reflection_of_a_reflection_is_the_image(turn):
    smooth = ndimage.gaussian_filter(head(2)[..., 0], 2)
    again = mirror.reflected(mirror.reflected(smooth, turn, 44.0), turn, 44.0)
    assert np.abs(again - smooth)[20:-20, 24:-24].max() < 0.03


def manifest_of(folder, split="train"):
    folder.mkdir(exist_ok=True)
    rows = []
    for i in range(5):
        image, mask = head(i), blob(45, 66)
        image[mask] = 0.95
        for name, pixels in ((f"{i}.png", image[..., 0] * 255), (f"{i}-mask.png", mask * 255.0)):
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
        rows.append(
            manifests.Record(
                path=str(folder / f"{i}.png"), mask=str(folder / f"{i}-mask.png"), patient=str(i), split=split,
                caption="brain MRI, large glioma, image right, middle third", findings={"tumour": 1, "glioma": 1},
            )
        )  # fmt: skip
    manifests.write(folder / "brain.csv", rows, NAMES)
    return folder / "brain.csv"


def test_a_manifest_gets_pairs_both_ways_and_healthy_images(tmp_path):
    path, count = mirror.with_pairs(manifest_of(tmp_path / "data"), NAMES, "brain MRI", tmp_path / "pairs")
    rows = list(manifests.read(path))
    assert count == 5 and len(rows) == 5 + 3 * 5 + 2 * 2
    real = "brain MRI, large glioma, image right, middle third || brain MRI: large right middle glioma."
    clear = "brain MRI: no tumour. || brain MRI: no glioma."
    for row in rows:
        assert row.caption == (clear if row.findings["tumour"] == 0 else real)
        assert row.findings["tumour"] == row.findings["glioma"] and (row.mask != "") == (row.findings["tumour"] == 1)
    pairs = [row for row in rows if row.contrasts]
    removed = [row for row in pairs if row.findings["glioma"] == 0 and row.contrasts[mirror.BEFORE] != row.path]
    assert len(removed) == 5 and all("data" in row.contrasts[mirror.BEFORE] for row in removed)
    views = [np.asarray(Image.open(manifests.resolve(path, removed[0].path)).convert("L"), np.float32) / 255]
    views.append(head(0)[..., 0])
    assert np.abs(views[0] - views[1]).mean() < 0.01


def test_only_what_can_be_used(tmp_path):
    with pytest.raises(DataError, match="no row of split train with tumour"):
        mirror.with_pairs(manifest_of(tmp_path / "a", "test"), NAMES, "brain MRI", tmp_path / "pairs")
    with pytest.raises(DataError, match="no column 'stroke'; it has tumour, glioma"):
        mirror.with_pairs(manifest_of(tmp_path / "b"), ["stroke"], "brain MRI", tmp_path / "pairs")
    path = manifest_of(tmp_path / "c")
    (tmp_path / "c/3-mask.png").write_text("no picture")
    with pytest.raises(DataError, match="row .*3-mask.png"):
        mirror.with_pairs(path, NAMES, "brain MRI", tmp_path / "pairs")


def test_more_pairs_are_laid_together(tmp_path):
    path, count = mirror.with_pairs(manifest_of(tmp_path / "data"), NAMES, "brain MRI", tmp_path / "pairs", 7, 3)
    rows = [row for row in manifests.read(path) if row.contrasts]
    assert count == 5 + 7 and len(rows) == 2 * 12 + 2 * (2 + 2)
    pairs = [row for row in rows if row.findings["tumour"] == 1 and row.contrasts[mirror.BEFORE] != row.path][5:]
    assert len(pairs) == 7 and all("large right middle glioma" in row.caption and not row.mask for row in pairs)
    for row in pairs:
        with_it, without = (
            np.asarray(Image.open(manifests.resolve(path, name)).convert("L"), np.float32) / 255
            for name in (row.path, row.contrasts[mirror.BEFORE])
        )
        change = with_it - without
        there = change > 0.2
        assert 40 < there.sum() < 500  # a bright blob of the tumour's size
        middle = ndimage.center_of_mass(there)
        assert abs(middle[0] - 45) < 5 and abs(middle[1] - 66) < 5  # near where it was
        assert np.abs(change[~ndimage.binary_dilation(there, iterations=8)]).max() < 0.05
    again, _ = mirror.with_pairs(tmp_path / "data/brain.csv", NAMES, "brain MRI", tmp_path / "again", 7, 3)
    for name in ("00005.png", "00011.png"):
        assert (tmp_path / "pairs/images" / name).read_bytes() == (again.parent / "images" / name).read_bytes()


def test_what_finds_no_room_is_no_pair(tmp_path):
    rng = np.random.default_rng(0)
    image, free = head(), np.zeros((SIDE, SIDE), bool)
    assert mirror.laid(image, free, image, blob(4, 4, 3), rng, True) is None  # beside the head
    assert mirror.laid(image, free, image, free, rng, True) is None
    manifest_of(tmp_path / "data")
    for i in range(5):
        Image.fromarray(blob(45, 66, 2).astype(np.uint8) * 255).save(tmp_path / f"data/{i}-mask.png")
    with pytest.raises(DataError, match="0 of 3 findings found room"):
        mirror.with_pairs(tmp_path / "data/brain.csv", NAMES, "brain MRI", tmp_path / "pairs", 3)
