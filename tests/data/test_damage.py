"""Whatever is wrong with a data set's tables, importing it gives rows or one clear error."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterscan.data.readers import open_layout
from counterscan.errors import DataError

TABLES = {
    "chexpert": {"train.csv": "Path,Sex,Age,Edema\nx/train/patient1/study1/a.jpg,Male,3,1.0\n"},
    "mimic-cxr-jpg": {
        "mimic-cxr-2.0.0-metadata.csv.gz": "dicom_id,subject_id,study_id,ViewPosition,StudyDate\na,10,5,PA,2180\n",
        "mimic-cxr-2.0.0-split.csv": "dicom_id,study_id,subject_id,split\na,5,10,test\n",
        "mimic-cxr-2.0.0-chexpert.csv": "subject_id,study_id,Edema\n10,5,-1.0\n",
        "patients.csv": "subject_id,gender,anchor_age,anchor_year\n10,F,52,2180\n",
    },
    "nih-cxr14": {
        "Data_Entry_2017.csv": "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age\na.png,Hernia|Mass,0,1,058Y\n",
        "test_list.txt": "a.png\n",
    },
    "padchest": {
        "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv": "ImageID,ImageDir,PatientID,StudyDate_DICOM,Labels\n"
        "a.png,0,7,20140915,\"['nodule', 'fracture']\"\n"
    },
    "rocov2": {
        "train_captions.csv": "ID,Caption\nROCOv2_2023_train_000001,CT\n",
        "train_concepts.csv": "ID,CUIs\nROCOv2_2023_train_000001,C1;C2\n",
        "cui_mapping.csv": "CUI,Canonical name\nC1,Chest\n",
    },
    "medvqa-gi": {"prompt-gt.csv": "Prompt;Filename\na polyp;a.jpg\n"},
    "metadata": {"metadata.csv": "file,split,Mass,age\na.jpg,train,1,4\n"},
    "captions": {"captions.jsonl": '{"file_name": "a.png", "text": "a mass", "Mass": 1, "age": 4}\n'},
    "huggingface": {
        "dataset_dict.json": '{"splits": ["train"]}',
        "train/state.json": '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}',
        "train/data-00000-of-00001.arrow": "no arrow",
    },
}
ANSWERS = [{"ImageID": "a", "Labels": [{"Question": "Any polyp?", "Answer": ["1"]}]}]


def written(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


def rows(layout, folder):
    return list(open_layout(layout, folder, folder / "work").records)


@pytest.mark.parametrize("layout", [name for name in TABLES if name != "huggingface"])
def test_these_folders_are_read(layout, tmp_path):
    written(tmp_path, {name: text.encode() for name, text in TABLES[layout].items()})
    assert len(rows(layout, tmp_path)) == 1


@pytest.mark.parametrize("layout", TABLES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_is_one_error_or_rows(layout, data):
    files = {name: text.encode() for name, text in TABLES[layout].items()}
    name = data.draw(st.sampled_from(sorted(files)))
    whole = files[name]
    at = data.draw(st.integers(0, len(whole)))
    kind = data.draw(st.sampled_from(["cut", "byte", "delete", "column", "gzip"]))
    if kind == "cut":
        files[name] = whole[:at]
    elif kind == "byte":
        files[name] = whole[:at] + data.draw(st.binary(min_size=1, max_size=3)) + whole[at + 1 :]
    elif kind == "delete":
        del files[name]
    elif kind == "column":
        files[name] = whole.replace(data.draw(st.sampled_from(whole.splitlines()[0].split(b","))), b"other", 1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "set"
        written(folder, files)
        if kind == "gzip" and name.endswith(".gz"):
            path = folder / name
            path.write_bytes(path.read_bytes()[: at or 1])
        try:
            rows(layout, folder)
        except DataError as error:
            message = str(error)
            assert "\n" not in message and len(message) > 20


@settings(max_examples=60, deadline=None)
@given(value=st.recursive(st.none() | st.text(max_size=3) | st.integers(), lambda inner: st.lists(inner, max_size=2)
       | st.dictionaries(st.sampled_from(["ImageID", "Labels", "Question", "Answer"]), inner), max_leaves=6))  # fmt: skip
def test_answers_of_any_shape(value):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for content in (value, ANSWERS + [value]):
            (folder / "gt.json").write_text(json.dumps(content))
            try:
                rows("medvqa-gi", folder)
            except DataError:
                continue
