"""Every public layout, as its release names its folders, files and columns, becomes the rows it should."""

from __future__ import annotations

import csv
import json

import pytest
from tests.data.layouts import REPORT, imported, picture, said, text
from typer.testing import CliRunner

from counterscan.cli import app
from counterscan.data.manifest import write
from counterscan.data.readers import LAYOUTS, open_layout
from counterscan.errors import DataError, WordsError

CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices\n"
)


def test_chexpert(tmp_path):
    top = tmp_path / "CheXpert-v1.0-small"
    first, side = "patient00001/study1/view1_frontal.jpg", "patient00001/study1/view2_lateral.jpg"
    for name in (f"train/{first}", f"train/{side}", "valid/patient64541/study1/view1_frontal.jpg"):
        picture(top / name)
    text(
        top / "train.csv",
        CHEXPERT + f"CheXpert-v1.0-small/train/{first},Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0\n"
        f"CheXpert-v1.0-small/train/{side},Female,68,Lateral,,,,-1.0,1.0,,,,,,,1.0,,,\n",
    )
    text(
        top / "valid.csv",
        CHEXPERT + "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0"
        ",1.0,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0\n",
    )
    frontal, lateral, valid = imported("chexpert", top, tmp_path)
    assert (frontal.patient, frontal.split, frontal.view) == ("patient00001", "train", "AP")
    assert (frontal.age, frontal.sex) == (68, "female")
    assert said(frontal) == {"pneumothorax": 0, "support devices": 1}  # "No Finding" denies nothing by itself
    assert said(lateral) == {"cardiomegaly": -1, "lung opacity": 1, "pleural effusion": 1} and lateral.view == "lateral"
    assert valid.split == "val" and len(said(valid)) == 13


def test_chexpert_in_parts(tmp_path):
    top, name = tmp_path / "chexpertchestxrays-u20210408", "patient00001/study1/view1_frontal.jpg"
    first = top / "CheXpert-v1.0 batch 1 (validate & csv)"
    picture(top / "CheXpert-v1.0 batch 2 (train 1)" / name)
    picture(top / "CheXpert-v1.0 batch 3 (train 2)" / name.replace("00001", "30001"))
    picture(first / "valid" / name.replace("00001", "64541"))
    train = [f"CheXpert-v1.0/train/{n},Male,50,Frontal,PA" + "," * 14 for n in (name, name.replace("00001", "30001"))]
    text(first / "train.csv", CHEXPERT + "\n".join(train))
    text(
        first / "valid.csv",
        CHEXPERT + f"CheXpert-v1.0/valid/{name.replace('00001', '64541')},Male,50,Frontal,PA" + "," * 14,
    )
    rows = imported("chexpert", top, tmp_path)
    assert [row.patient for row in rows] == ["patient00001", "patient30001", "patient64541"]


def test_chexpert_with_foreign_paths(tmp_path):
    text(
        tmp_path / "train.csv",
        CHEXPERT + "a/b.jpg,Male,1,Frontal,AP" + "," * 14 + "\nc.jpg,Male,1,Frontal,AP" + "," * 14,
    )
    with pytest.raises(DataError, match=r"train.csv row 1, Path: 'a/b.jpg'; train.csv row 2, Path: 'c.jpg'"):
        list(open_layout("chexpert", tmp_path, tmp_path).records)


def test_mimic_cxr_jpg(tmp_path):
    top, folder = tmp_path / "mimic", "files/p10/p10000032"
    ids = "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014", "174413ec-4ec4c1f7-34ea26b7-c5f994f8-79ef1962"
    for name in ids:
        picture(top / folder / "s50414267" / f"{name}.jpg")
    text(top / "mimic-cxr-reports" / folder / "s50414267.txt", REPORT)
    base = "mimic-cxr-2.0.0"
    text(
        top / f"{base}-metadata.csv.gz",
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime\n"
        f"{ids[0]},10000032,50414267,CHEST (PA AND LAT),PA,3056,2544,21800506,213014.531\n"
        f"{ids[1]},10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544,21800506,213014.531\n",
    )
    lines = "".join(f"{name},50414267,10000032,validate\n" for name in ids)
    text(top / f"{base}-split.csv.gz", "dicom_id,study_id,subject_id,split\n" + lines)
    head = "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,No Finding,Pneumonia\n"
    text(top / f"{base}-chexpert.csv", head + "10000032,50414267,,1.0,-1.0,,,0.0\n")  # unpacked, as some do
    text(
        top / "patients.csv.gz",
        "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n10000032,F,52,2180,2014 - 2016,\n",
    )
    pa, lateral = imported("mimic-cxr-jpg", top, tmp_path)
    assert pa.caption == lateral.caption == "1. No pneumonia. 2. Mild cardiomegaly."
    assert (pa.view, lateral.view, pa.patient, pa.split) == ("PA", "LATERAL", "10000032", "val")
    assert (pa.age, pa.sex) == (52, "female")
    assert said(pa) == {"cardiomegaly": 1, "consolidation": -1, "pneumonia": 0}


def test_nih_cxr14(tmp_path):
    top = tmp_path / "nih"
    picture(top / "images_001/images/00000001_000.png"), picture(top / "images_012/images/00030805_000.png")
    text(
        top / "Data_Entry_2017.csv",
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,"
        "Height],OriginalImagePixelSpacing[x,y],\n00000001_000.png,Cardiomegaly|Effusion,0,1,058Y,M,PA,2682,2749,0.143,0.143,\n"
        "00030805_000.png,No Finding,0,30805,413,F,AP,2048,2500,0.171,0.171,\n",
    )
    text(top / "train_val_list.txt", "00000001_000.png\n")
    text(top / "test_list.txt", "00030805_000.png\n")
    sick, well = imported("nih-cxr14", top, tmp_path)
    assert {name for name, value in sick.findings.items() if value} == {"cardiomegaly", "pleural effusion"}
    assert (sick.age, sick.sex, sick.split, sick.view) == (58, "male", "train", "PA")
    assert set(well.findings.values()) == {0} and well.age is None and well.split == "test"


def test_nih_cxr14_names_every_foreign_label(tmp_path):
    head = "Image Index,Finding Labels,Follow-up #,Patient ID\n"
    text(tmp_path / "Data_Entry_2017.csv", head + "a.png,Scoliosis,0,1\nb.png,Hernia|Gout,0,2\n")
    with pytest.raises(DataError, match=r"'Gout' of b.png, 'Scoliosis' of a.png"):
        list(open_layout("nih-cxr14", tmp_path, tmp_path).records)


def test_covid_radiography(tmp_path):
    top = tmp_path / "COVID-19_Radiography_Dataset"
    for name in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"):
        picture(top / name / "images" / f"{name}-1.png", (299, 299))
        picture(top / name / "masks" / f"{name}-1.png", (256, 256))
        text(top / f"{name}.metadata.xlsx", "")
    rows = imported("covid-radiography", tmp_path, tmp_path)
    assert [said(row) for row in rows] == [
        {"covid-19": 1},
        {"covid-19": 0, "lung opacity": 1},
        {"covid-19": 0, "lung opacity": 0, "viral pneumonia": 0},
        {"covid-19": 0, "viral pneumonia": 1},
    ]
    assert all(row.mask.endswith(f"masks/{row.path.rpartition('/')[2]}") for row in rows)


def test_padchest(tmp_path):
    top = tmp_path / "BIMCV-PadChest-FULL"
    names = [f"20536686640136348236148679891455886468_k6ga2{i}.png" for i in range(5)]
    for name in names:
        picture(top / "0" / name)
    head = "ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection,Report,Labels"
    labels = (
        "\"['nodule', 'rib fracture']\"",
        "\"['normal']\"",
        "\"['exclude', 'nodule']\"",
        "nan",
        "\"['unchanged', 'suboptimal study']\"",
    )
    with (top / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv").open("w") as file:
        print(head, file=file)
        for i, (name, words) in enumerate(zip(names, labels, strict=True)):
            print(f"{name},0,20140915,{i},83{i},1930.0,F,AP_horizontal,sin hallazg,{words}", file=file)
        print("x.png,0,20140915,9,99,1960.0,M,PA,fractur,\"['fracture', 'pleural effusion']\"", file=file)
    picture(top / "0/x.png")
    sick, normal, unchanged, other = imported("padchest", top, tmp_path)
    assert said(sick) == {
        "lung nodule": 1,
        "rib fracture": 1,
        "pleural effusion": 0,
    }  # which a fracture is not denied by
    assert said(normal) == {"lung nodule": 0, "rib fracture": 0, "pleural effusion": 0, "fracture": 0}
    assert said(unchanged) == {}  # unchanged from what, is not said
    assert said(other) == {"fracture": 1, "pleural effusion": 1, "lung nodule": 0, "rib fracture": 0}
    assert (sick.age, sick.sex, sick.view, sick.patient) == (84, "female", "AP", "830")


def test_rocov2(tmp_path):
    top = tmp_path / "ROCOv2"
    for split, folder in (("train", "train"), ("valid", "valid_images/valid"), ("test", "test_images")):
        name = f"ROCOv2_2023_{split}_000001"
        picture(top / folder / f"{name}.jpg")
        text(top / f"{split}_captions.csv", f'ID,Caption\n{name},"CT of the chest, with a  left\n effusion."\n')
        text(top / f"{split}_concepts.csv", f"ID,CUIs\n{name},C0040405;C0032227\n" if split == "train" else "ID,CUIs\n")
    text(
        top / "cui_mapping.csv",
        "CUI,Canonical name\nC0040405,X-Ray Computed Tomography\nC0032227,Pleural effusion disorder\n",
    )
    train, valid, test = imported("rocov2", top, tmp_path)
    assert train.caption == "CT of the chest, with a left effusion."
    assert said(train) == {"x-ray computed tomography": 1, "pleural effusion disorder": 1} and said(valid) == {}
    assert [train.split, valid.split, test.split] == ["train", "val", "test"]


def test_medvqa_gi_prompts(tmp_path):
    first, second = "cl8k2u1pm1dw7083203g1b7yv", "cl8k2u1q01e6b083200f1dusj"
    for name in (first, second):
        picture(tmp_path / f"images/{name}.jpg", mode="RGB")
    text(
        tmp_path / "prompt-gt.csv",
        f"Prompt;Filename\nGenerate an image containing a polyp.;{first}.jpg\nGenerate an image with no instruments.;"
        f"{first}.jpg\nGenerate an image with no polyps.;{second}.jpg\nGenerate an image with 1 biopsy forceps.;{second}.jpg\n",
    )
    rows = imported("medvqa-gi", tmp_path, tmp_path)
    assert [row.caption for row in rows[:2]] == [
        "Generate an image containing a polyp.",
        "Generate an image with no instruments.",
    ]
    assert [said(row) for row in rows] == [{"polyp": 1, "instrument": 0}] * 2 + [{"polyp": 0, "instrument": 1}] * 2


@pytest.mark.parametrize(
    ("prompts", "found"),
    [
        (["an image with a polyp and no text"], {"polyp": 1}),
        (["a polyp without instruments"], {"polyp": 1, "instrument": 0}),
        (["no polyps", "an image containing polyp snare", "a polyp snareandtube"], {"polyp": 0, "instrument": 1}),
        (["an image without polyps or instruments"], {"polyp": 0, "instrument": 0}),
        (["an image not containing text but a polyp"], {"polyp": 1}),
        (["no text and 2 polyps. No instruments"], {"polyp": 1, "instrument": 0}),
        (["0 polyps and 10 instruments"], {"polyp": 0, "instrument": 1}),
        (["an image containing a polypandoesophagitis"], {"polyp": 1, "oesophagitis": 1}),
        (["an image not containing an instrument with oesophagitis"], {"instrument": 0, "oesophagitis": 1}),
    ],
)
def test_medvqa_gi_denials_reach_what_follows_them(tmp_path, prompts, found):
    picture(tmp_path / "images/a.jpg", mode="RGB")
    text(tmp_path / "prompt-gt.csv", "Prompt;Filename\n" + "".join(f"{prompt};a.jpg\n" for prompt in prompts))
    assert said(imported("medvqa-gi", tmp_path, tmp_path)[0]) == found


def test_medvqa_gi_answers(tmp_path):
    picture(tmp_path / "images/cl8k2u1pm1dw7083203g1b7yv.jpg", mode="RGB")
    picture(tmp_path / "masks/cl8k2u1pm1dw7083203g1b7yv.png")
    questions = [
        {"AnswerType": "choice", "Question": "Are there any abnormalities in the image?", "Answer": ["Polyp"]},
        {"AnswerType": "number", "Question": "How many instruments are in the image?", "Answer": ["0"]},
        {"AnswerType": "location", "Question": "Where in the image is the instrument?", "Answer": []},
    ]
    text(tmp_path / "gt.json", json.dumps([{"ImageID": "cl8k2u1pm1dw7083203g1b7yv", "Labels": questions}]))
    (row,) = imported("medvqa-gi", tmp_path, tmp_path)
    assert said(row) == {"polyp": 1, "instrument": 0} and row.mask.endswith("masks/cl8k2u1pm1dw7083203g1b7yv.png")
    assert row.caption == ("Are there any abnormalities in the image? Polyp. How many instruments are in the image? 0.")
    text(tmp_path / "gt.json", '[{"ImageID": "x"}]')
    with pytest.raises(DataError, match="gt.json: is not as this layout has it"):
        list(open_layout("medvqa-gi", tmp_path, tmp_path).records)


def test_kvasir_seg(tmp_path):
    picture(tmp_path / "images/cju0qkwl35piu0993l0dewei2.jpg", mode="RGB")
    picture(tmp_path / "masks/cju0qkwl35piu0993l0dewei2.jpg")
    text(tmp_path / "kavsir_bboxes.json", "{}")
    (row,) = imported("kvasir-seg", tmp_path, tmp_path)
    assert said(row) == {"polyp": 1} and row.mask.endswith("masks/cju0qkwl35piu0993l0dewei2.jpg")


def test_hyperkvasir(tmp_path):
    lower, upper = "labeled-images/lower-gi-tract", "labeled-images/upper-gi-tract"
    polyp = "0a5f3601-4e1f-4c5a-9b0f-5a4a0a1c6d4e.jpg"
    picture(tmp_path / lower / "pathological-findings/polyps" / polyp, mode="RGB")
    picture(tmp_path / lower / "pathological-findings/ulcerative-colitis-grade-1-2/b.jpg", mode="RGB")
    picture(tmp_path / lower / "quality-of-mucosal-views/bbps-2-3/c.jpg", mode="RGB")
    picture(tmp_path / upper / "anatomical-landmarks/z-line/d.jpg", mode="RGB")
    picture(tmp_path / upper / "pathological-findings/esophagitis-b-d/e.jpg", mode="RGB")
    picture(tmp_path / "segmented-images/images" / polyp, mode="RGB")
    picture(tmp_path / "segmented-images/masks" / polyp)
    rows = imported("hyperkvasir", tmp_path, tmp_path)
    assert [row.caption for row in rows] == [
        "colonoscopy: polyp.",
        "colonoscopy: ulcerative colitis grade 1 to 2.",
        "colonoscopy: bowel preparation score 2 to 3.",
        "gastroscopy: z-line.",
        "gastroscopy: oesophagitis grade B to D.",
    ]
    assert rows[0].mask and "segmented-images" in rows[0].path  # its copy among the labelled ones is not repeated
    assert [next(name for name, value in row.findings.items() if value) for row in rows] == [
        "polyp",
        "ulcerative colitis",
        "bowel preparation score 2 to 3",
        "z-line",
        "oesophagitis",
    ]


def test_metadata(tmp_path):
    picture(tmp_path / "images/a.jpg"), picture(tmp_path / "images/b.jpg"), picture(tmp_path / "masks/a__lungs.png")
    text(
        tmp_path / "metadata.csv",
        "file,patient_id,age,sex,view,Effusion,No_Finding,Support_Devices,prompt,split\n"
        "a.jpg,7,61,F,PA,1,0,-1,left effusion,train\nimages/b.jpg,8,,M,AP,0,1,,normal,test\n",
    )
    first, second = imported("metadata", tmp_path, tmp_path)
    assert said(first) == {"pleural effusion": 1, "support devices": -1} and said(second) == {"pleural effusion": 0}
    assert (first.patient, first.age, first.caption) == ("7", 61, "left effusion")
    assert first.mask.endswith("masks/a__lungs.png") and not second.mask


@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_folder_is_refused(layout, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        write(tmp_path / "m.csv", open_layout(layout, tmp_path / "empty", tmp_path / "work").records)
    with pytest.raises(DataError, match="no such folder"):
        open_layout(layout, tmp_path / "none", tmp_path)


def test_unknown_layout(tmp_path):
    with pytest.raises(WordsError, match="known are"):
        open_layout("imagenet", tmp_path, tmp_path)


def test_the_command_gives_splits_by_patient(tmp_path):
    for i in range(40):
        picture(tmp_path / f"k/images/{i}.jpg", mode="RGB"), picture(tmp_path / f"k/masks/{i}.jpg")
    out = tmp_path / "m.csv"
    done = CliRunner().invoke(
        app, ["data", "import", "kvasir-seg", str(tmp_path / "k"), "-o", str(out), "--split", "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["items"] == 40
    with out.open() as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    assert set(splits) == {"train", "val", "test"} and splits.count("train") > 24


def test_a_folder_is_no_manifest(tmp_path):
    (tmp_path / "m.csv").mkdir()
    done = CliRunner().invoke(
        app, ["data", "import", "nih-cxr14", str(tmp_path / "gone"), "-o", str(tmp_path / "m.csv")]
    )
    assert isinstance(done.exception, WordsError)
    assert str(done.exception) == f"{tmp_path / 'm.csv'}: is a folder; name a file after -o"


@pytest.mark.parametrize("anew", [False, True])
def test_a_split_that_is_there_is_kept_unless_another_is_asked_for(tmp_path, anew):
    picture(tmp_path / "k/images/a.jpg")
    rows = "\n".join(f"a.jpg,{k // 2},train" for k in range(40))
    (tmp_path / "k/metadata.csv").write_text(f"file,patient_id,split\n{rows}\n")
    out = tmp_path / "m.csv"
    words = [
        "data",
        "import",
        "metadata",
        str(tmp_path / "k"),
        "-o",
        str(out),
        "--split",
        *(["--resplit"] if anew else []),
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    with out.open() as file:
        told = [(row["patient"], row["split"]) for row in csv.DictReader(file)]
    assert (len({split for _, split in told}) > 1) == anew
    assert len(set(told)) == 20  # the images of a patient stay together
