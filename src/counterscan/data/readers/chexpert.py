"""CheXpert: ``train.csv`` and ``valid.csv`` over ``train/patient00001/study1/view1_frontal.jpg`` (Irvin et al., AAAI 2019)."""

from __future__ import annotations

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
    tables = [source / name for name in SPLITS if (source / name).is_file()]
    if not tables:
        raise DataError(f"{source}: has neither train.csv nor valid.csv")
    return Source(tuple(LABELS.values()), _records(source, tables))


def _records(source: Path, tables: list[Path]) -> Iterator[Record]:
    strange = []
    for path in tables:
        for line, row in enumerate(table(path, ["Path"]), 1):
            parts = PurePosixPath(row["Path"]).parts
            first = next((i for i, part in enumerate(parts) if part.startswith("patient")), None)
            if first is None:
                strange.append(f"{path.name} row {line}, Path: {row['Path']!r}")
                continue
            view = row.get("AP/PA") or ("lateral" if row.get("Frontal/Lateral") == "Lateral" else "")
            yield Record(
                str(source.joinpath(*parts[max(first - 1, 0) :])),
                patient=parts[first],
                split=SPLITS[path.name],
                view=view,
                age=number(row.get("Age", "")),
                sex=SEXES.get(row.get("Sex", ""), ""),
                findings={name: label(row.get(column, "")) for column, name in LABELS.items()},
            )
    if strange:
        more = f" and {len(strange) - 20} more" if len(strange) > 20 else ""
        raise DataError(f"{source}: no patient's folder in {'; '.join(strange[:20])}{more}; is this CheXpert?")
