"""NIH ChestX-ray14: ``Data_Entry_2017.csv`` and ``images/`` or ``images_001/images/`` … (Wang et al., CVPR 2017).

Labels were read out of reports: one that is not named is taken as absent. Ages over 120, an error of the release, are unknown.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from counterscan.data.manifest import Record
from counterscan.data.readers.source import SEXES, Source, number, one_of, table, words
from counterscan.errors import DataError

LABELS = {
    "Atelectasis": "atelectasis",
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation",
    "Edema": "pulmonary edema",
    "Effusion": "pleural effusion",
    "Emphysema": "emphysema",
    "Fibrosis": "fibrosis",
    "Hernia": "hernia",
    "Infiltration": "infiltration",
    "Mass": "mass",
    "Nodule": "lung nodule",
    "Pleural_Thickening": "pleural thickening",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "pneumothorax",
}
LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}


def open_source(source: Path, work: Path) -> Source:
    """The official lists give the splits train and test; without them there is none."""
    return Source(
        tuple(LABELS.values()), _records(source, one_of(source, "Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv"))
    )


def _records(source: Path, entries: Path) -> Iterator[Record]:
    splits = {
        name: split
        for file, split in LISTS.items()
        if (source / file).is_file()
        for name in words(source / file).split()
    }
    folders = [source / "images", *sorted(source.glob("images_*/images")), *sorted(source.glob("images_*"))]
    places = {name: folder for folder in folders if folder.is_dir() for name in os.listdir(folder)}
    strange: dict[str, str] = {}  # a label that is none of the data set's -> the first image with it
    for row in table(entries, ["Image Index", "Finding Labels", "Patient ID"]):
        name, said = row["Image Index"], set(row["Finding Labels"].split("|"))
        for unknown in said - LABELS.keys() - {"No Finding"}:
            strange.setdefault(unknown, name)
        age = number(row.get("Patient Age", "").removesuffix("Y"))
        yield Record(
            str(places.get(name, source / "images") / name),
            patient=row["Patient ID"],
            split=splits.get(name, ""),
            view=row.get("View Position", ""),
            age=age if age is not None and age <= 120 else None,
            sex=SEXES.get(row.get("Patient Gender", ""), ""),
            findings={finding: int(column in said) for column, finding in LABELS.items()},
        )
    if strange:
        named = ", ".join(f"{label!r} of {name}" for label, name in sorted(strange.items()))
        raise DataError(f"{entries}: Finding Labels: {named}: no labels of this data set; is it ChestX-ray14?")
