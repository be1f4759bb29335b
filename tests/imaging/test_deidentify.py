"""Nothing of a patient is left in a file, wherever in the header it stood; the image and its window are the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from typer.testing import CliRunner

from counterscan.cli import app
from counterscan.errors import DataError, ImageError, WordsError
from counterscan.imaging import read
from counterscan.imaging.deidentify import CODED, KEPT, deidentify

KEY = b"a secret of sixteen bytes or more"
SOURCE = Path(get_testdata_file("CT_small.dcm"))
WORDS = {"PN", "LO", "SH", "LT", "ST", "UT", "UC"}
DATES = {"DA": "19770707", "TM": "070707", "DT": "19770707070707", "AS": "077Y"}


def personal(path):
    """An image with a name, a date or a private identifier in every text attribute that DICOM has, and in sequences."""
    data = pydicom.dcmread(SOURCE)
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if keyword and keyword not in KEPT and tag >> 16 not in (0x0000, 0x0002, 0x0004, 0xFFFA, 0x7FE0):
            if vr in WORDS:
                data.add_new(tag, vr, "Doe^Jane")
            elif vr in DATES:
                data.add_new(tag, vr, DATES[vr])
            elif vr == "UI":
                data.add_new(tag, vr, "9.9.77777")
    inner = Dataset()
    inner.PatientName, inner.ReferencedSOPInstanceUID, inner.DerivationDescription = "Doe^Jane", "9.9.77777", "Doe^Jane"
    data.SourceImageSequence, data.RequestAttributesSequence = [inner], [inner]
    block = data.private_block(0x0099, "Doe^Jane", create=True)
    block.add_new(1, "LO", "Doe^Jane")
    data.add_new(0x60000010, "US", 16)
    data.add_new(0x60003000, "OW", b"Doe^Jane")
    data.PatientAge, data.PatientSex, data.PatientID = "093Y", "F", "77777"
    data.StudyInstanceUID = data.SeriesInstanceUID = "9.9.77777"
    data.preamble = b"Doe^Jane" * 16
    data.file_meta.ImplementationVersionName, data.file_meta.SourceApplicationEntityTitle = "DOE", "Doe^Jane"
    data.save_as(path)
    return path


def test_nothing_of_the_patient_is_left(tmp_path):
    source = personal(tmp_path / "JaneDoe.dcm")
    assert source.read_bytes().count(b"Doe^Jane") > 500
    path, clean = deidentify(source, tmp_path / "out", KEY)
    content = path.read_bytes()
    for mark in (b"Doe", b"77777", b"19770707", b"070707", b"DOE"):
        assert mark not in content and mark not in path.name.encode()
    data = pydicom.dcmread(path)
    assert (data.PatientAge, data.PatientSex) == ("090Y", "F") and not clean
    assert data.PatientIdentityRemoved == "YES" and data.PatientID and data.StudyDate == ""
    assert [item.CodeValue for item in data.DeidentificationMethodCodeSequence] == ["113100", "113108"]
    assert data.SourceImageSequence[0].keys() == {0x00081155}
    assert data.SourceImageSequence[0].ReferencedSOPInstanceUID == data.StudyInstanceUID  # both were 9.9.77777


@pytest.mark.parametrize(
    "name",
    ["CT_small.dcm", "MR_small_RLE.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "JPEG2000.dcm",
     "examples_palette.dcm", "SC_rgb_rle.dcm"],
)  # fmt: skip
def test_the_image_and_its_window_stay(name, tmp_path):
    source = Path(get_testdata_file(name))
    before, after = read(source), read(deidentify(source, tmp_path, KEY)[0])
    assert np.array_equal(before.pixels, after.pixels) and np.array_equal(before.unit(), after.unit())
    assert (before.bits, before.spacing_mm) == (after.bits, after.spacing_mm)


def test_a_window_by_table_stays(tmp_path):
    data, table = pydicom.dcmread(SOURCE), Dataset()
    table.add_new(0x00283002, "US", [4096, 0, 16])
    table.add_new(0x00283006, "US", (np.arange(4096) ** 2 // 256).tolist())
    table.LUTExplanation = "of Dr Doe"
    data.VOILUTSequence = [table]
    data.save_as(tmp_path / "a.dcm")
    path, _ = deidentify(tmp_path / "a.dcm", tmp_path / "out", KEY)
    assert np.array_equal(read(tmp_path / "a.dcm").unit(), read(path).unit()) and b"Doe" not in path.read_bytes()
    assert read(path).curve is not None


def test_pseudonyms_belong_to_the_key(tmp_path):
    first, same, other = (deidentify(personal(tmp_path / "a.dcm"), tmp_path / n, k)[0] for n, k in
                          (("1", KEY), ("2", KEY), ("3", KEY[::-1])))  # fmt: skip
    assert first.name == same.name != other.name
    ids = [pydicom.dcmread(path).PatientID for path in (first, same, other)]
    assert ids[0] == ids[1] != ids[2]


def test_burnt_in_text_is_refused_and_its_absence_told(tmp_path):
    data = pydicom.dcmread(SOURCE)
    data.BurnedInAnnotation = "YES"
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(ImageError, match="text is burnt into its pixels"):
        deidentify(tmp_path / "a.dcm", tmp_path / "out", KEY)
    data.BurnedInAnnotation = "NO"
    data.save_as(tmp_path / "a.dcm")
    assert deidentify(tmp_path / "a.dcm", tmp_path / "out", KEY)[1]
    with pytest.raises(ImageError, match="no image pixels"):
        deidentify(Path(get_testdata_file("reportsi.dcm")), tmp_path / "out", KEY)


def test_the_list_names_attributes_that_exist():
    known = {entry[4]: entry[0] for entry in DicomDictionary.values()}
    assert KEPT <= known.keys()
    assert {vr for name in KEPT for vr in known[name].split(" or ")} <= CODED


def test_the_command(tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    for i in range(3):
        data = pydicom.dcmread(SOURCE)
        data.SOPInstanceUID = generate_uid()
        data.save_as(tmp_path / f"in/deep/IM{i}")
    (tmp_path / "key").write_bytes(b"0123456789abcdef")
    call = ["data", "deidentify", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--json"]
    call += ["--key", str(tmp_path / "key")]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {
        "folder": str(tmp_path / "out"), "items": 3, "failed": 0, "pixels_not_declared_clean": 3,
    }  # fmt: skip
    assert len({pydicom.dcmread(p).PatientID for p in (tmp_path / "out").glob("*.dcm")}) == 1
    text = (tmp_path / "out/run.json").read_text()
    record = json.loads(text)
    assert (record["command"], record["result"]["items"]) == ("data deidentify", 3)
    assert record["settings"] == {"source": str(tmp_path / "in"), "key": str(tmp_path / "key")}
    assert "0123456789abcdef" not in text
    inside = CliRunner().invoke(app, [*call[:3], "-o", str(tmp_path / "in/clean")])
    assert isinstance(inside.exception, WordsError) and "the folder with the patients" in str(inside.exception)
    (tmp_path / "empty").mkdir()
    empty = CliRunner().invoke(app, [*call[:2], str(tmp_path / "empty"), "-o", str(tmp_path / "none")])
    assert (
        isinstance(empty.exception, DataError) and str(empty.exception) == f"{tmp_path / 'empty'}: holds no DICOM file"
    )
    assert not (tmp_path / "in/clean").exists() and not (tmp_path / "none").exists()
    (tmp_path / "in/bad.dcm").write_bytes(b"nonsense")
    assert CliRunner().invoke(app, call).exit_code == 1
