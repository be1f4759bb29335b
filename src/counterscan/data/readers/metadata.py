"""A folder with ``metadata.csv`` (file, patient, labels, prompt, split) beside ``images/`` and ``masks/``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from counterscan.data.manifest import LABELS, Record
from counterscan.data.readers.source import SEXES, Source, existing, number, table

NAMES = {"effusion": "pleural effusion", "edema": "pulmonary edema", "nodule": "lung nodule"}
NOT_FINDINGS = frozenset(
    "no_finding normal lung_mask left right upper middle lower index follow_up group dup_of".split()
)


def open_source(source: Path, work: Path) -> Source:
    """Columns in capitals that hold only labels are findings ("Pleural_Effusion" is read as "pleural effusion").

    Where an image has several ``prompts``, all are its caption, separated as they are (``data.captions.separator``).
    """
    path = source / "metadata.csv"
    labels: dict[str, bool] = {}
    for row in table(path, ["file", "split"]):
        for name, text in row.items():
            if name[:1].isupper() or name.startswith("expert_"):
                labels[name] = labels.get(name, True) and text in LABELS
    columns = {c: _name(c) for c, holds in labels.items() if holds and c.lower() not in NOT_FINDINGS}
    return Source(tuple(columns.values()), _records(source, path, columns))


def _name(column: str) -> str:
    text = column.replace("_", " ").lower()
    return NAMES.get(text, text)


def _records(source: Path, path: Path, columns: dict[str, str]) -> Iterator[Record]:
    for row in table(path):
        file = row["file"]
        image = source / (file if "/" in file else f"images/{file}")
        mask = source / (row.get("mask") or f"masks/{image.stem}__lungs.png")
        yield Record(
            str(image),
            patient=row.get("patient") or row.get("patient_id") or row.get("group") or row.get("series_group", ""),
            caption=row.get("prompt") or row.get("prompts", ""),
            split=row["split"],
            view=row.get("view") or row.get("plane", ""),
            age=number(row.get("age", "")),
            sex=SEXES.get(row.get("sex", ""), ""),
            mask=str(mask) if row.get("mask") else existing(mask),
            findings={name: LABELS[row[column]] for column, name in columns.items()},
        )
