"""Volumes, DICOM folders, captions beside images and Hugging Face data sets become rows and image files."""

from __future__ import annotations

import csv
import json

import nibabel
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.data.layouts import REPORT, imported, picture, said, text

from counterscan.data.checks import check
from counterscan.data.manifest import resolve, write
from counterscan.data.readers import open_layout
from counterscan.errors import DataError


def volume(path, values, dtype=np.int16):
    """A NIfTI file as BraTS stores it: first axis to the left, second to the back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.asarray(values, dtype), np.diag([-1.0, -1, 1, 1])), path)


def brain(shift):
    """(32, 40, 4): brain in slices 1 to 3, brightest at the patient's front right, in slice 2 a lesion there."""
    values = np.zeros((32, 40, 4))
    values[4:28, 4:36, 1:] = 300 + shift
    values[4:10, 4:10, 1:] = 600 + shift
    return values


def lesion(enhancing):
    values = np.zeros((32, 40, 4))
    values[4:10, 4:10, 2], values[6:8, 6:8, 2] = 2, enhancing
    return values


def check_slices(rows, folder):
    """Two slices without and one with the lesion, at the upper left: the patient's right is on the left, front is up."""
    assert [said(row) for row in rows] == [
        {"glioma": k, "necrotic core": 0, "peritumoral edema": k, "enhancing tumour": k} for k in (0, 1, 0)
    ]
    assert rows[1].contrasts.keys() == {"T1", "T2", "FLAIR"} and rows[1].view == "axial"
    image, mask = (
        np.asarray(Image.open(resolve(folder / "out.parquet", path))) for path in (rows[1].path, rows[1].mask)
    )
    assert image.shape == mask.shape == (40, 32) and image.dtype == np.uint16
    assert (mask[4:10, 4:10] == 255).all() and mask.sum() == 36 * 255
    assert image[5, 5] == 65535 and 30000 < image[20, 16] < 36000 and image[0, 0] == 0
    for path in rows[1].contrasts.values():
        assert resolve(folder / "out.parquet", path).is_file()


@pytest.mark.parametrize(
    ("case", "names", "enhancing", "patient"),
    [
        ("BraTS2021_00000", "_t1 _t1ce _t2 _flair _seg", 4, "BraTS2021_00000"),
        ("BraTS-GLI-00005-001", "-t1n -t1c -t2w -t2f -seg", 3, "BraTS-GLI-00005"),
    ],
)
def test_brats(tmp_path, case, names, enhancing, patient):
    *contrasts, seg = names.split()
    for i, name in enumerate(contrasts):
        volume(tmp_path / f"training/{case}/{case}{name}.nii.gz", brain(i))
    volume(tmp_path / f"training/{case}/{case}{seg}.nii.gz", lesion(enhancing), np.uint8)
    rows = imported("brats", tmp_path / "training", tmp_path)
    check_slices(rows, tmp_path)
    assert {row.patient for row in rows} == {patient}


def test_brats_with_the_name_that_one_case_has(tmp_path):
    case = tmp_path / "BraTS20_Training_355"
    for i, name in enumerate(("t1", "t1ce", "t2", "flair")):
        volume(case / f"BraTS20_Training_355_{name}.nii", brain(i))
    volume(case / "W39_1998.09.19_Segm.nii", lesion(4))
    check_slices(imported("brats", tmp_path, tmp_path), tmp_path)


def test_brats_of_the_decathlon(tmp_path):
    top = tmp_path / "Task01_BrainTumour"
    volume(top / "imagesTr/BRATS_001.nii.gz", np.stack([brain(i) for i in range(4)], -1))
    swapped = np.select([lesion(3) == 2], [1], lesion(3))
    volume(top / "labelsTr/BRATS_001.nii.gz", swapped, np.uint8)
    (top / "imagesTr/._BRATS_001.nii.gz").write_bytes(b"of a Mac")
    check_slices(imported("brats", top, tmp_path), tmp_path)


def test_brats_names_every_bad_case_and_keeps_good_slices(tmp_path):
    for case in ("BraTS2021_00001", "BraTS2021_00002", "BraTS2021_00003"):
        for i, name in enumerate(("t1", "t1ce", "t2", "flair")):
            volume(tmp_path / f"{case}/{case}_{name}.nii.gz", brain(i))
    (tmp_path / "BraTS2021_00002/BraTS2021_00002_t2.nii.gz").unlink()
    (tmp_path / "BraTS2021_00003/BraTS2021_00003_t1.nii.gz").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"2 of 3 cases.*00002: has no T2; .*00003_t1.nii.gz: is not a readable"):
        list(open_layout("brats", tmp_path, tmp_path / "work").records)
    (kept,) = (tmp_path / "work").iterdir()
    before = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    volume(tmp_path / "BraTS2021_00002/BraTS2021_00002_t2.nii.gz", brain(2))
    volume(tmp_path / "BraTS2021_00003/BraTS2021_00003_t1.nii.gz", brain(0))
    rows = list(open_layout("brats", tmp_path, tmp_path / "work").records)
    assert len(rows) == 9 and all(row.findings["glioma"] is None and not row.mask for row in rows)
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == before


def test_dicom(tmp_path):
    import pydicom
    from pydicom.data import get_testdata_file

    top = tmp_path / "export/DICOM/0000AB12"
    top.mkdir(parents=True)
    data = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    data.PatientID, data.PatientAge, data.PatientSex, data.ViewPosition = "17", "018M", "F", "AP"
    data.save_as(top / "IM000001")
    data.PatientAge, data.PatientBirthDate, data.StudyDate = "", "19500601", "20200531"
    data.save_as(top / "IM000002.dcm")
    for name in ("reportsi.dcm", "DICOMDIR"):  # a structured report, and the table of contents
        (top / name).write_bytes(open(get_testdata_file(name), "rb").read())
    text(top / "readme.txt", "from the archive")
    rows = imported("dicom", tmp_path / "export", tmp_path)
    assert [(row.patient, row.age, row.sex, row.view) for row in rows] == [
        ("17", 1.5, "female", "AP"),
        ("17", 69, "female", "AP"),
    ]


def test_dicom_files_that_are_damaged_are_for_the_check_to_name(tmp_path):
    (tmp_path / "bad.dcm").write_bytes(b"nonsense" * 40)
    found = open_layout("dicom", tmp_path, tmp_path)
    write(tmp_path / "m.csv", found.records)
    assert check(tmp_path / "m.csv").kinds["unreadable"] == 1


def test_captions_as_an_image_folder_of_hugging_face(tmp_path):
    picture(tmp_path / "train/0001.png"), picture(tmp_path / "validation/images/0002.png")
    text(
        tmp_path / "train/metadata.jsonl",
        '{"file_name": "0001.png", "text": "left effusion", "Effusion": 1, "age": 61}\n',
    )
    text(tmp_path / "validation/metadata.csv", "file_name,text,Effusion,site\n0002.png,clear lungs,0,north\n")
    first, second = imported("captions", tmp_path, tmp_path)
    assert (first.caption, first.split, first.age) == ("left effusion", "train", 61)
    assert (second.caption, second.split) == ("clear lungs", "val")
    assert said(first) == {"effusion": 1} and said(second) == {"effusion": 0}


def test_captions_of_reports(tmp_path):
    picture(tmp_path / "images/a.png"), picture(tmp_path / "m/a.png")
    with (tmp_path / "hospital.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Filename", "Report", "PatientID", "Gender", "Split", "Mask"])
        writer.writerow(["a.png", REPORT, "17", "f", "validation", "m/a.png"])
    (row,) = imported("captions", tmp_path, tmp_path)
    assert row.caption == "1. No pneumonia. 2. Mild cardiomegaly."
    assert (row.patient, row.sex, row.split, row.mask) == ("17", "female", "val", "m/a.png")


def test_captions_beside_the_images(tmp_path):
    picture(tmp_path / "train/a.png"), picture(tmp_path / "test/b.png")
    text(tmp_path / "train/a.txt", "a polyp\nin the rectum\n")
    test, train = imported("captions", tmp_path, tmp_path)
    assert (train.caption, train.split, test.caption, test.split) == ("a polyp in the rectum", "train", "", "test")


def test_captions_without_images(tmp_path):
    text(tmp_path / "captions.csv", "file,caption\n,a\nb.png,b\n,c\n")
    with pytest.raises(DataError, match="no image is named in captions.csv row 1, captions.csv row 3"):
        list(open_layout("captions", tmp_path, tmp_path).records)
    text(tmp_path / "captions.jsonl", "[]\n")
    (tmp_path / "captions.csv").unlink()
    with pytest.raises(DataError, match="captions.jsonl: row 1 is no JSON object"):
        open_layout("captions", tmp_path, tmp_path)


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": ["NORMAL", "Pleural_Effusion", "Mass"], "_type": "ClassLabel"},
    "Text": {"dtype": "string", "_type": "Value"},
    "pneumonia": {"dtype": "bool", "_type": "Value"},
    "mask": {"_type": "Image"},
}


def hugging(tmp_path, labels):
    """The Arrow table that ``datasets`` writes: images as structs of bytes and path, features in the schema's note."""
    rows = []
    for i, label in enumerate(labels):
        image, mask = (picture(tmp_path / f"src/{i}{end}").read_bytes() for end in (".jpg", ".png"))
        rows.append({"image": {"bytes": image, "path": f"{i}.jpg"}, "label": label, "Text": f"caption {i}"})
        rows[-1] |= {"pneumonia": bool(i), "mask": {"bytes": mask, "path": None}}
    kinds = {"image": IMAGE, "label": pa.int64(), "Text": pa.string(), "pneumonia": pa.bool_(), "mask": IMAGE}
    note = {b"huggingface": json.dumps({"info": {"features": FEATURES}}).encode()}
    return pa.Table.from_pylist(rows, pa.schema(list(kinds.items()), metadata=note))


def save_to_disk(table, folder):
    """As ``Dataset.save_to_disk``: an Arrow stream, ``state.json`` and ``dataset_info.json``."""
    folder.mkdir(parents=True)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as out,
    ):
        out.write_table(table)
    text(folder / "state.json", json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    text(folder / "dataset_info.json", json.dumps({"features": FEATURES}))


def test_hugging_face_saved_to_disk(tmp_path):
    save_to_disk(hugging(tmp_path, [1, 0]), tmp_path / "set/train")
    save_to_disk(hugging(tmp_path, [-1]), tmp_path / "set/validation")
    text(tmp_path / "set/dataset_dict.json", '{"splits": ["train", "validation"]}')
    sick, normal, unlabelled = imported("huggingface", tmp_path / "set", tmp_path)
    assert said(sick) == {"pleural effusion": 1, "mass": 0, "pneumonia": 0}
    assert said(normal) == {"pleural effusion": 0, "mass": 0, "pneumonia": 1}
    assert said(unlabelled) == {"pneumonia": 0}
    assert [row.split for row in (sick, normal, unlabelled)] == ["train", "train", "val"]
    assert sick.mask.endswith(".png") and sick.path.endswith(".jpg")


def test_hugging_face_repository(tmp_path):
    table = hugging(tmp_path, [2, 1])
    (tmp_path / "repo/data").mkdir(parents=True)
    pq.write_table(table, tmp_path / "repo/data/train-00000-of-00002.parquet")
    pq.write_table(table, tmp_path / "repo/data/test-00000-of-00001.parquet")
    rows = imported("huggingface", tmp_path / "repo", tmp_path)
    assert [(row.split, row.caption) for row in rows] == [
        ("test", "caption 0"), ("test", "caption 1"), ("train", "caption 0"), ("train", "caption 1"),
    ]  # fmt: skip
    for i in (0, 1):
        assert resolve(tmp_path / "out.parquet", rows[i].path).read_bytes() == (tmp_path / f"src/{i}.jpg").read_bytes()


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "a\nb", ""])
def test_hugging_face_names_stay_in_their_folder(tmp_path, name):
    text(tmp_path / "dataset_dict.json", json.dumps({"splits": [name]}))
    with pytest.raises(DataError, match="which is no name of a file or split"):
        open_layout("huggingface", tmp_path, tmp_path / "work")
