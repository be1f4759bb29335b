"""CheXpert: ``train.csv`` and ``valid.csv`` over ``train/patient00001/study1/view1_frontal.jpg`` (Irvin et al., AAAI 2019).

The full size comes in parts, ``CheXpert-v1.0 batch 1 (validate & csv)`` with the tables and three more that hold the patients of
``train``: name the folder around them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from counterscan.data.manifest import Record
from counterscan.data.readers.source import SEXES, Source, label, number, table
from counterscan.errors import DataError

LABELS = {
    "Enlarged Cardiomediastinum": "enlarged cardiomediastinum",
    "Cardiomegaly": "cardiomegaly",
    "Lung Opacity": "lung opacity",
    "Lung Lesion": "lung lesion",
    "Edema": "pulmonary edema",
    "Consolidation": "consolidation",
    "Pneumonia": "pneumonia",
    "Atelectasis": "atelectasis",
    "Pneumothorax": "pneumothorax",
    "Pleural Effusion": "pleural effusion",
    "Pleural Other": "pleural other",
    "Fracture": "fracture",
    "Support Devices": "support devices",
}
SPLITS = {"train.csv": "train", "valid.csv": "val", "test.csv": "test", "test_labels.csv": "test"}


def open_source(source: Path, work: Path) -> Source:
    """Blank labels are unknown, -1 uncertain. The paths in the tables begin with the release's own folder name."""
    batches = sorted(path for path in source.glob("CheXpert-v1.0 batch *") if path.is_dir())
    top = next((folder for folder in (source, *batches) if any((folder / name).is_file() for name in SPLITS)), None)
    if top is None:
        raise DataError(f"{source}: has neither train.csv nor valid.csv")
    apart = {name: batch for batch in batches for name in os.listdir(batch) if name.startswith("patient")}
    return Source(tuple(LABELS.values()), _records(top, apart))


def _records(top: Path, apart: dict[str, Path]) -> Iterator[Record]:
    """``apart`` has the folder of each patient who does not lie in ``train``."""
    strange = []
    for path in (top / name for name in SPLITS if (top / name).is_file()):
        for line, row in enumerate(table(path, ["Path"]), 1):
            parts = PurePosixPath(row["Path"]).parts
            first = next((i for i, part in enumerate(parts) if part.startswith("patient")), None)
            if first is None:
                strange.append(f"{path.name} row {line}, Path: {row['Path']!r}")
                continue
            inside, patient = parts[max(first - 1, 0) :], parts[first]
            image = apart[patient].joinpath(*parts[first:]) if patient in apart else top.joinpath(*inside)
            view = row.get("AP/PA") or ("lateral" if row.get("Frontal/Lateral") == "Lateral" else "")
            yield Record(
                str(image),
                patient=patient,
                split=SPLITS[path.name],
                view=view,
                age=number(row.get("Age", "")),
                sex=SEXES.get(row.get("Sex", ""), ""),
                findings={name: label(row.get(column, "")) for column, name in LABELS.items()},
            )
    if strange:
        more = f" and {len(strange) - 20} more" if len(strange) > 20 else ""
        raise DataError(f"{top}: no patient's folder in {'; '.join(strange[:20])}{more}; is this CheXpert?")
