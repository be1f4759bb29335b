"""What ``save`` leaves in a folder: the factual that was edited, what says so of what is synthetic, all or nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from tests.models import tiny

from counterscan.errors import ImageError
from counterscan.generation import generate
from counterscan.imaging import Picture, from_array, read
from counterscan.result import Counterfactual
from counterscan.types import Edit

GREY = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8)


def edited(factual: Picture, top: int = 5) -> Counterfactual:
    """A square of the factual turned upside down: all that saving needs of an edit."""
    pixels = factual.pixels.copy()
    pixels[top : top + 8, 5:13] = pixels[top : top + 8, 5:13][::-1]
    counterfactual = factual.with_pixels(pixels)
    change = counterfactual.unit() - factual.unit()
    change = change if change.ndim == 2 else change.mean(axis=2)
    return Counterfactual(factual, counterfactual, change, change != 0, Edit("a", "b"), "square")


def marked(path: Path) -> bool:
    with Image.open(path) as image:
        return image.info.get("Synthetic") == "yes" and "Not for diagnosis" in image.info["Disclaimer"]


def sources(folder: Path) -> dict[str, Picture]:
    """A picture of every kind that lies in a file."""
    import nibabel

    Image.fromarray(GREY).save(folder / "a.png")
    Image.fromarray(np.stack([GREY, GREY.T[:40, :].repeat(2, 1)[:, :50], GREY], 2)).save(folder / "a.jpg", quality=95)
    np.save(folder / "a.npy", np.stack([GREY, GREY[::-1], GREY, GREY], 2))
    shutil.copy(get_testdata_file("CT_small.dcm"), folder / "a.dcm")
    volume = np.random.default_rng(1).integers(-900, 900, (40, 50, 4)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([0.5, 0.7, 2, 1])), folder / "a.nii.gz")
    names = ("a.png", "a.jpg", "a.npy", "a.dcm")
    return {name: read(folder / name) for name in names} | {"a.nii.gz": read(folder / "a.nii.gz", slice_index=3)}


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.npy", "a.dcm", "a.nii.gz"])
def test_a_chain_of_edits_saves_what_was_edited(name: str, tmp_path: Path) -> None:
    source = sources(tmp_path)[name]
    first = edited(source)
    second = edited(first.counterfactual, top=20)
    files = second.save(tmp_path / "chain")
    again = Counterfactual.load(tmp_path / "chain")
    np.testing.assert_array_equal(again.factual.pixels, first.counterfactual.pixels)
    np.testing.assert_array_equal(again.factual.unit(), first.counterfactual.unit())
    np.testing.assert_array_equal(again.counterfactual.pixels, second.counterfactual.pixels)
    assert again.factual.synthetic
    image = tmp_path / "chain" / files["image"]
    assert read(image).synthetic or name == "a.npy"  # NumPy's format has no room for a mark: the record has it
    once = first.save(tmp_path / "once")["image"]
    assert (tmp_path / "once" / once).read_bytes() == (tmp_path / name).read_bytes(), (
        "a file that is the factual is copied"
    )
    assert not Counterfactual.load(tmp_path / "once").factual.synthetic


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.npy", "a.dcm", "a.nii.gz"])
@pytest.mark.parametrize("fate", ["gone", "other"])
def test_a_source_that_went_or_changed_is_saved_as_it_was_read(name: str, fate: str, tmp_path: Path) -> None:
    source = sources(tmp_path)[name]
    result = edited(source)
    (tmp_path / name).unlink() if fate == "gone" else (tmp_path / name).write_bytes(b"something else")
    files = result.save(tmp_path / "out")
    again = Counterfactual.load(tmp_path / "out")
    np.testing.assert_array_equal(again.factual.pixels, source.pixels)
    np.testing.assert_array_equal(again.factual.unit(), source.unit())
    assert not again.factual.synthetic
    if name == "a.dcm":
        header = pydicom.dcmread(tmp_path / "out" / files["image"])
        assert header.SOPInstanceUID == source.header.SOPInstanceUID and "SyntheticData" not in header


def test_figures_and_synthetic_factuals_say_what_they_are(tmp_path: Path) -> None:
    generated = generate("pacemaker", steps=1, model=tiny(tmp_path / "tiny"))[0]
    real = from_array(GREY)
    for name, picture in {"generated": generated, "real": real, "loaded": replace(real, synthetic=True)}.items():
        files = edited(picture).save(tmp_path / name)
        assert marked(tmp_path / name / files["figure"])
        assert marked(tmp_path / name / files["image"]) == (name != "real")
        assert Counterfactual.load(tmp_path / name).factual.synthetic == (name != "real")


def test_a_turned_photograph_and_its_edit_lie_alike(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY).save(tmp_path / "a.jpg", exif=exif)
    result = edited(read(tmp_path / "a.jpg"))
    files = result.save(tmp_path / "out")
    for kind in ("image", "counterfactual", "mask", "difference"):
        with Image.open(tmp_path / "out" / files[kind]) as image:
            assert (image.size, image.getexif().get(0x0112, 1)) == ((40, 50), 1)
    np.testing.assert_array_equal(Counterfactual.load(tmp_path / "out").factual.pixels, result.factual.pixels)


def test_a_failed_save_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    good = edited(from_array(GREY))
    bad = replace(good, counterfactual=replace(good.counterfactual, pixels=np.stack([GREY] * 5, 2)))
    with pytest.raises(ImageError, match=r"x\.counterfactual\.png: PNG is written of 1 channel or 3"):
        bad.save(tmp_path, "x")
    assert not list(tmp_path.iterdir())
    good.save(tmp_path, "x")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ImageError):
        replace(bad, seed=7).save(tmp_path, "x")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "y.mask.png").mkdir()
    with pytest.raises(ImageError, match="cannot be written"):
        good.save(tmp_path, "y")
    assert [path.name for path in tmp_path.glob("y*")] == ["y.mask.png"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match="file: cannot be written"):
        good.save(tmp_path / "file")


def test_a_dicom_without_identifiers_can_be_saved(tmp_path: Path) -> None:
    data = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    del data.SOPInstanceUID, data.SOPClassUID
    data.save_as(tmp_path / "x.dcm")
    files = edited(read(tmp_path / "x.dcm")).save(tmp_path / "out")
    made = pydicom.dcmread(tmp_path / "out" / files["counterfactual"])
    assert made.SOPInstanceUID == made.file_meta.MediaStorageSOPInstanceUID
    assert made.SOPClassUID and made.SyntheticData == "YES" and "SourceImageSequence" not in made
    assert json.loads((tmp_path / "out" / "x.json").read_text())["files"] == files
