"""Pairs across kinds: what is outlined in one image is laid into a like image that has another kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from counterscan.data import manifest as manifests
from counterscan.errors import DataError
from counterscan.training import across
from counterscan.training.paste import BEFORE

SIDE = 96
NAMES = ("tumour", "glioma", "meningioma")


def blob(row, column, radius=6):
    y, x = np.mgrid[:SIDE, :SIDE]
    return (y - row) ** 2 + (x - column) ** 2 <= radius**2


def manifest_of(folder, kinds="gggggmmmmm", place=None):
    """Heads that lean left or right in turn; gliomas above, meningiomas below."""
    folder.mkdir(exist_ok=True)
    rows = []
    for i, letter in enumerate(kinds):
        glioma = letter == "g"
        y, x = (np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2) / (SIDE / 2)
        image = np.where((y / 0.9) ** 2 + (x / 0.6 + (0.15 if i % 2 else -0.15)) ** 2 < 1, 0.4, 0).astype(np.float32)
        mask = blob(*(place or ((30, 48) if glioma else (66, 48))))
        image[mask] = 0.95 if glioma else 0.7
        for name, pixels in ((f"{i}.png", image * 255), (f"{i}-mask.png", mask * 255.0)):
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
        findings = {"tumour": 1, "glioma": int(glioma), "meningioma": int(not glioma)}
        rows.append(
            manifests.Record(
                path=str(folder / f"{i}.png"), mask=str(folder / f"{i}-mask.png"), patient=str(i), split="train",
                caption=f"brain MRI, {'glioma' if glioma else 'meningioma'}", findings=findings,
            )
        )  # fmt: skip
    manifests.write(folder / "brain.csv", rows, NAMES)
    return folder / "brain.csv"


def pixels(path, name):
    return np.asarray(Image.open(manifests.resolve(path, name)).convert("L"), np.float32) / 255


def test_pairs_have_both_kinds_and_deny_one(tmp_path):
    path = across.with_pairs(manifest_of(tmp_path / "data"), NAMES[1:], "brain MRI", tmp_path / "pairs", 8, 0)
    rows = list(manifests.read(path))
    pairs = [row for row in rows if row.contrasts]
    assert len(rows) == 10 + len(pairs) and len(pairs) == 2 * 8 + 2 * 2
    removed = [row for row in pairs if row.caption.startswith("brain MRI: no") and row.contrasts[BEFORE] != row.path]
    assert [row.caption for row in removed] == ["brain MRI: no glioma.", "brain MRI: no meningioma."] * 4
    for row in removed:
        absent, present = NAMES[1:] if "no glioma" in row.caption else NAMES[:0:-1]
        assert row.findings == {"tumour": 1, absent: 0, present: 1}
        before, after = pixels(path, row.contrasts[BEFORE]), pixels(path, row.path)
        there = np.abs(before - after) > 0.15
        assert abs(ndimage.center_of_mass(there)[0] - (30 if absent == "glioma" else 66)) < 5
        assert 30 < there.sum() < 400 and "data" in row.path
        assert np.abs(before - after)[~ndimage.binary_dilation(there, iterations=8)].max() < 0.05
    added = [row for row in pairs if not row.caption.startswith("brain MRI: no") and row.contrasts[BEFORE] != row.path]
    assert all(row.findings == dict.fromkeys(NAMES, 1) and not row.mask for row in added) and len(added) == 8
    again = across.with_pairs(tmp_path / "data/brain.csv", NAMES[1:], "brain MRI", tmp_path / "again", 8, 0)
    assert (again.parent / "images/00007.png").read_bytes() == (tmp_path / "pairs/images/00007.png").read_bytes()


def test_hosts_look_like_the_source(tmp_path, monkeypatch):
    monkeypatch.setattr(across, "NEIGHBOURS", 2)
    path = across.with_pairs(manifest_of(tmp_path / "data"), NAMES[1:], "brain MRI", tmp_path / "pairs", 8, 0)
    added = [
        row for row in manifests.read(path) if row.contrasts and row.findings["glioma"] == row.findings["meningioma"]
    ]
    for row in added:
        if row.contrasts[BEFORE] != row.path:
            host = int(row.contrasts[BEFORE].split("/")[-1].removesuffix(".png"))
            assert host % 2 == int(row.patient) % 2  # both lean to the same side


def test_only_what_can_be_used(tmp_path):
    with pytest.raises(DataError, match="no column 'stroke'"):
        across.with_pairs(manifest_of(tmp_path / "a"), ["stroke"], "brain MRI", tmp_path / "pairs", 2, 0)
    with pytest.raises(DataError, match="without glioma"):
        across.with_pairs(manifest_of(tmp_path / "b", "ggg"), ["glioma"], "brain MRI", tmp_path / "pairs", 2, 0)
    bare = manifest_of(tmp_path / "e")
    rows = [replace(row, mask=row.mask if row.findings["glioma"] else "") for row in manifests.read(bare)]
    manifests.write(bare, rows, NAMES)
    with pytest.raises(DataError, match="has a mask, but no glioma"):
        across.with_pairs(bare, ["glioma"], "brain MRI", tmp_path / "pairs", 2, 0)
    with pytest.raises(DataError, match="0 of 2 findings found room"):  # where the other kind is already
        across.with_pairs(manifest_of(tmp_path / "c", place=(48, 48)), NAMES[1:], "brain MRI", tmp_path / "pairs", 2, 0)
    path = manifest_of(tmp_path / "d")
    (tmp_path / "d/3.png").write_text("no picture")
    with pytest.raises(DataError, match=r"row .*3\.png"):
        across.with_pairs(path, NAMES[1:], "brain MRI", tmp_path / "pairs", 2, 0)
