"""Each paper's config learns three steps from a small folder in the data set's real layout, and its model edits an image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.backbones import tiny as families
from tests.data.layouts import REPORT, picture, text
from tests.models import tiny

import counterscan
from counterscan.data.manifest import read as rows_of
from counterscan.data.manifest import resolve, write
from counterscan.data.readers import open_layout
from counterscan.training import across, mirror, paste
from counterscan.training.config import read
from counterscan.training.trainer import train

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = [
    "steps=3", "batch=2", "micro_batch=1", "precision=float32", "frozen=float32", "data.workers=1", "samples.prompts=[]",
    "save_every=3", "data.split=", "lora.rank=2",
]  # fmt: skip
COMPACT = [
    "compact.taught=20", "compact.resolution=32",
    "compact.vae_blocks=[16, 16, 16]", "compact.unet_blocks=[16, 16, 16, 16]", "compact.unet_heads=2",
    "compact.text_hidden=16", "compact.text_layers=1", "compact.text_heads=2", "compact.unet_layers=1",
]  # fmt: skip


NAMED = dict.fromkeys(("nih", "gi", "brain"), "metadata")  # layouts that one reader reads


def manifest_of(layout: str, folder: Path) -> Path:
    """A small data set in its own layout, imported."""
    LAYOUTS[layout](folder / "set")
    found = open_layout(NAMED.get(layout, layout), folder / "set", folder / "work")
    write(folder / "manifest.parquet", found.records, found.findings, found.contrasts)
    return folder / "manifest.parquet"


def chexpert(top: Path) -> None:
    labels = (
        "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
        "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
    )
    rows = [f"Path,Sex,Age,Frontal/Lateral,AP/PA,{labels}"]
    for k in range(4):
        name = f"train/patient0000{k}/study1/view1_frontal.jpg"
        picture(top / name)
        rows.append(f"CheXpert-v1.0-small/{name},Female,68,Frontal,AP{',' * 11}{k % 2}.0,,,{(k + 1) % 2}.0")
    text(top / "train.csv", "\n".join(rows) + "\n")
    text(top / "valid.csv", rows[0] + "\n")


def mimic(top: Path) -> None:
    folder, ids = "files/p10/p10000032", ["02aa804e-bde0afdd-112c0b34-7bc16630-4e384014"]
    picture(top / folder / "s50414267" / f"{ids[0]}.jpg")
    text(top / "mimic-cxr-reports" / folder / "s50414267.txt", REPORT)
    text(
        top / "mimic-cxr-2.0.0-metadata.csv",
        f"dicom_id,subject_id,study_id,ViewPosition\n{ids[0]},10000032,50414267,PA\n",
    )
    text(top / "mimic-cxr-2.0.0-split.csv", f"dicom_id,study_id,subject_id,split\n{ids[0]},50414267,10000032,train\n")
    text(top / "mimic-cxr-2.0.0-chexpert.csv", "subject_id,study_id,Pneumonia\n10000032,50414267,0.0\n")


def medvqa(top: Path) -> None:
    names = [f"cl8k2u1pm1dw70832{k:02d}" for k in range(3)]
    for name in names:
        picture(top / f"images/{name}.jpg", mode="RGB")
    rows = [f"Generate an image containing a polyp.;{name}.jpg" for name in names]
    text(top / "prompt-gt.csv", "Prompt;Filename\n" + "\n".join(rows) + "\n")


def brats(top: Path) -> None:
    from tests.data.test_containers import brain, lesion, volume

    for i, name in enumerate(("t1", "t1ce", "t2", "flair")):
        volume(top / f"BraTS2021_00000/BraTS2021_00000_{name}.nii.gz", brain(i))
    volume(top / "BraTS2021_00000/BraTS2021_00000_seg.nii.gz", lesion(4), np.uint8)


def nih_cxr14(top: Path) -> None:
    """As released: twelve folders of images, one table, and the two official lists."""
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,"
    rows = [head + "Height],OriginalImagePixelSpacing[x,y],"]
    names = [f"0000000{k}_000.png" for k in range(1, 6)]
    for k, name in enumerate(names):
        picture(top / f"images_00{k + 1}/images" / name, (64, 64))
        found = ("No Finding", "Cardiomegaly|Effusion", "Infiltration", "Effusion", "No Finding")[k]
        rows.append(f"{name},{found},0,{k + 1},058Y,M,PA,2682,2749,0.143,0.143,")
    text(top / "Data_Entry_2017.csv", "\n".join(rows) + "\n")
    text(top / "train_val_list.txt", "\n".join(names[:4]) + "\n")
    text(top / "test_list.txt", names[4] + "\n")


def covid(top: Path) -> None:
    """As it is unpacked: a folder a class, with the images and the masks of their lungs, which are smaller."""
    for name in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"):
        inside = top / "COVID-19_Radiography_Dataset" / name
        picture(inside / f"images/{name}-1.png", (299, 299))
        picture(inside / f"masks/{name}-1.png", (256, 256))
        text(inside.with_name(f"{name}.metadata.xlsx"), "")


def rocov2(top: Path) -> None:
    for split in ("train", "valid", "test"):
        names = [f"ROCOv2_2023_{split}_00000{k}" for k in (1, 2)]
        for name in names:
            picture(top / split / f"{name}.jpg", (40, 56), mode="RGB")
        told = [f'{name},"CT of the chest, with a left pleural effusion."' for name in names]
        text(top / f"{split}_captions.csv", "\n".join(["ID,Caption", *told]) + "\n")
        text(top / f"{split}_concepts.csv", "\n".join(["ID,CUIs", *(f"{n},C0040405;C0032227" for n in names)]) + "\n")
    mapping = "C0040405,X-Ray Computed Tomography\nC0032227,Pleural effusion disorder\n"
    text(top / "cui_mapping.csv", "CUI,Canonical name\n" + mapping)


def with_metadata(top: Path, rows: list[str], mode: str = "L") -> None:
    """``metadata.csv`` and the files that it names."""
    text(top / "metadata.csv", "\n".join(rows) + "\n")
    for row in rows[1:]:
        for name in row.split(",")[:2]:
            if name.endswith((".jpg", ".png")):
                picture(top / (name if "/" in name else f"images/{name}"), mode="L" if "mask" in name else mode)


def nih(top: Path) -> None:
    """As nih-cxr: the labels of ChestX-ray14 and devices, as 1, 0 and -1."""
    head = "file,patient_id,follow_up,age,sex,view,Cardiomegaly,Effusion,Infiltration,Support_Devices,split"
    rows = [
        f"0000006{k}_012.jpg,6{k},12,77,M,AP,0,{k % 2},-1,{k // 2 % 2},{'test' if k > 3 else 'train'}" for k in range(8)
    ]
    with_metadata(top, [head, *rows])


def gi(top: Path) -> None:
    """As gi-medvqa: several prompts an image."""
    labels = "Polyp,Ulcerative_Colitis,Oesophagitis,Instrument,Z_Line,Cecum,Pylorus,Box_Artefact,Text_Overlay"
    head = f"file,mask,procedure,{labels},n_polyps,polyp_size,prompts,group,split"
    told = "Generate an image containing a polyp. || Generate an image with 1 polyp."
    names = [f"cl8k2u1pm1dw708320{k}" for k in range(4)]
    rows = [
        f"images/{name}.jpg,masks/{name}__polyp.png,colonoscopy,{k % 2},0,0,0,0,0,0,1,0,1,5-10mm,{told},g{k},train"
        for k, name in enumerate(names)
    ]
    with_metadata(top, [head, *rows], "RGB")
    for name in names:
        outline = np.zeros((32, 32), np.uint8)
        outline[8:18, 8:18] = 255
        Image.fromarray(outline).save(top / f"masks/{name}__polyp.png")


def brain(top: Path) -> None:
    """As brain-tumour: a mask beside each slice."""
    head = (
        "file,mask,index,series_group,Tumour,Meningioma,Glioma,Pituitary_Tumour,label,side,vertical,size,prompt,split"
    )
    told = '"contrast-enhanced T1-weighted brain MRI, large meningioma, image right, middle third"'
    rows = [f"images/000{k}.jpg,masks/000{k}__tumour.png,{k},{k},1,{k % 2},{1 - k % 2},0,meningioma,image right,middle,large,"
            f"{told},{'test' if k > 3 else 'train'}" for k in range(6)]  # fmt: skip
    with_metadata(top, [head, *rows])
    y, x = (np.abs(axis - 31.5) for axis in np.mgrid[:64, :64])
    for k in range(6):  # both sides alike, but for the tumour, which is above or below
        outline = (np.abs(np.arange(64)[:, None] - (18, 45)[k % 2]) < 6) & (x > 8) & (np.arange(64) > 32) & (x < 20)
        for folder, pixels in (("images", 200 - 3 * x - y + 40 * outline), ("masks", 255 * outline)):
            name = next((top / folder).glob(f"000{k}*"))
            Image.fromarray(pixels.astype(np.uint8)).save(name)


LAYOUTS = {
    "chexpert": chexpert, "mimic-cxr-jpg": mimic, "nih-cxr14": nih_cxr14, "covid-radiography": covid, "rocov2": rocov2,
    "medvqa-gi": medvqa, "brats": brats, "nih": nih, "gi": gi, "brain": brain,
}  # fmt: skip


def edited(model: Path, channels: int, folder: Path, **request: object) -> None:
    """The trained model edits one image, and leaves it what it was in size."""
    path = picture(folder / "one.png", size=(32, 32), mode="L" if channels == 1 else "RGB")
    result = counterscan.edit(path, model=model, **request)
    assert result.counterfactual.pixels.shape[:2] == (32, 32)


@pytest.mark.parametrize(
    ("name", "layout", "asked"),
    [
        ("prism-chexpert", "chexpert", {"remove": "pneumothorax"}),
        ("roentgen-mimic", "mimic-cxr-jpg", {"source": "No pneumonia.", "target": "Right pneumonia."}),
        ("roentgen2-mimic", "mimic-cxr-jpg", {"source": "No pneumonia.", "target": "Right pneumonia."}),
        ("chambon-nih", "nih-cxr14", {"remove": "cardiomegaly"}),
        ("vald-covid", "covid-radiography", {"remove": "covid-19"}),
        ("msdm-medvqa", "medvqa-gi", {"source": "a polyp", "target": "no polyps"}),
    ],
)
def test_a_stable_diffusion_recipe(tmp_path, name, layout, asked):
    manifest = manifest_of(layout, tmp_path)
    start = tiny(tmp_path / "start", channels=3)
    words = [f"data.manifest={manifest}", f"model={start}", f"output={tmp_path / 'run'}"]
    if "text_encoder:" in (CONFIGS / f"{name}.yaml").read_text():
        encoder = families.bert("bert", families.bert_tokenizer())
        encoder.save_pretrained(tmp_path / "encoder")
        families.bert_tokenizer().save_pretrained(tmp_path / "encoder")
        words.append(f"text_encoder={tmp_path / 'encoder'}")
    result = train(read(CONFIGS / f"{name}.yaml", [*SMALL, *words]))
    edited(result.folder, 3, tmp_path, **asked)


@pytest.mark.parametrize("name", ["gi-vae", "brain-t1c-vae", "msdm-medvqa-vae"])
def test_a_recipe_from_nothing_in_two_parts(tmp_path, name):
    words = [f"data.manifest={manifest_of('medvqa-gi', tmp_path)}", *SMALL]
    plain = "data.captions.findings=[]"
    first = read(CONFIGS / f"{name}.yaml", [*words, *COMPACT, plain, f"output={tmp_path / 'vae'}"])
    train(first)
    again = [f"model={tmp_path / 'vae'}", f"output={tmp_path / 'run'}", "text_encoder=null"]
    again += [plain, "data.before=null", "data.balance=[]", "objective.seen=0"]
    result = train(read(CONFIGS / f"{name.removesuffix('-vae')}.yaml", [*words, *again]))
    request = {"source": "a polyp", "target": "no polyps"}
    edited(result.folder, first.compact["channels"], tmp_path, **request)


def test_the_built_in_chest_model_is_gone_on_with(tmp_path):
    """By the command line, from chest-world itself; validation images are those of the file's own test split."""
    from typer.testing import CliRunner

    from counterscan.cli import app

    words = [*SMALL, f"data.manifest={manifest_of('nih', tmp_path)}", f"output={tmp_path / 'run'}", "data.split=train"]
    words += ["validation.images=1", "validation.method=sdedit"]
    done = CliRunner().invoke(app, ["train", str(CONFIGS / "chest-nih.yaml"), *words, "--json"])
    assert done.exit_code == 0, done.output
    opened = counterscan.load(tmp_path / "run")
    assert opened.card.name == "chest-nih" and opened.card.template == "nih chest radiograph"
    assert {"pleural effusion", "support devices", "cardiomegaly"} <= set(opened.card.findings)
    found = opened.card.scores["validation"]["findings"]
    assert {name: row["n"] for name, row in found.items()} == {"pleural effusion": 1, "support devices": 1}
    edited(tmp_path / "run", 1, tmp_path, remove="effusion", method="sdedit")


@pytest.mark.parametrize(("name", "layout"), [("gi", "gi"), ("brain-t1c", "brain")])
def test_a_small_model_from_nothing_in_its_own_layout(tmp_path, name, layout):
    words = [f"data.manifest={manifest_of(layout, tmp_path)}", *(word for word in SMALL if "split" not in word)]
    first = train(read(CONFIGS / f"{name}-vae.yaml", [*words, *COMPACT, f"output={tmp_path / 'vae'}"]))
    again = [f"model={first.folder}", f"output={tmp_path / 'run'}"]
    listed, pairs = tmp_path / "manifest.parquet", tmp_path / "pairs"
    if name == "gi":
        manifest = paste.with_pairs(listed, "polyp", "endoscopy", pairs, 4, 0)
    else:
        kinds = ["meningioma", "glioma"]
        mirrored, _ = mirror.with_pairs(listed, ["tumour", *kinds], "brain MRI", pairs)
        manifest = across.with_pairs(mirrored, kinds, "brain MRI", tmp_path / "across", 4, 0)
    words[0] = f"data.manifest={manifest}"
    result = train(read(CONFIGS / f"{name}.yaml", [*words, *again]))
    opened = counterscan.load(result.folder)
    assert opened.card.name == name and ("polyp" if name == "gi" else "meningioma") in opened.card.findings
    edited(result.folder, opened.channels, tmp_path, source="a polyp", target="no polyps", method="sdedit")


@pytest.mark.parametrize(
    ("name", "layout", "family", "method"),
    [
        ("polyp-lora-medvqa", "medvqa-gi", families.kandinsky, "sdedit"),
        ("flux-lora-rocov2", "rocov2", families.flux, "flow-edit"),
    ],
)
def test_a_recipe_of_adapters(tmp_path, name, layout, family, method):
    words = [f"data.manifest={manifest_of(layout, tmp_path)}", f"model={family(tmp_path / 'start')}"]
    result = train(read(CONFIGS / f"{name}.yaml", [*SMALL, *words, f"output={tmp_path / 'run'}"]))
    edited(result.folder, 3, tmp_path, method=method, source="chest radiograph", target="pleural effusion")


def test_the_pixel_recipe(tmp_path):
    """The four contrasts of a slice with a tumour are edited together, as they were learned."""
    manifest = manifest_of("brats", tmp_path)
    words = [f"data.manifest={manifest}", "pixel.resolution=32", "pixel.blocks=[8, 16, 16, 16]"]
    words += ["pixel.head_width=8", f"output={tmp_path / 'run'}"]
    result = train(read(CONFIGS / "diff-scm-brats.yaml", [*SMALL, *words]))
    opened = counterscan.load(result.folder)
    assert (opened.family, opened.channels, opened.card.classes) == ("pixel", 4, ("glioma", "no glioma", ""))
    assert opened.card.findings == ("glioma",) and opened.card.template == "brain mri"
    row = next(row for row in rows_of(manifest) if row.findings["glioma"])
    files = [resolve(manifest, path) for path in (row.path, *row.contrasts.values())]
    contrasts = np.stack([np.asarray(Image.open(path)) for path in files], -1)
    healthy = counterscan.edit(contrasts, remove="glioma", method="diff-scm", model=opened)
    assert healthy.counterfactual.pixels.shape == contrasts.shape == (40, 32, 4)
    assert healthy.mask.any() and (healthy.counterfactual.pixels != contrasts).any()


def test_the_loss_curve_of_a_recipe_goes_to_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = [f"data.manifest={manifest_of('nih-cxr14', tmp_path)}", f"model={tiny(tmp_path / 'start', channels=1)}"]
    words += ["tracker=tensorboard", f"output={tmp_path / 'run'}"]
    train(read(CONFIGS / "chambon-nih.yaml", [*SMALL, *words]))
    seen = EventAccumulator(str(tmp_path / "run/counterscan")).Reload()
    kept = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [(event.step, event.value) for event in seen.Scalars("loss")] == [
        (line["step"], pytest.approx(line["loss"])) for line in kept
    ]
    assert {"loss", "norm", "images_per_second"} <= set(seen.Tags()["scalars"]) and len(kept) == 3
