"""PadChest: ``PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv``, images in ``0/`` to ``54/`` (Bustos et al., 2020).

A label that a report does not name is absent, but for one that names the same in general ("fracture" beside "rib fracture")
and the broad terms of the label tree: those are unknown. Rows labelled "exclude" or not at all are left out.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from counterscan.data.manifest import Record
from counterscan.data.readers.source import SEXES, Source, number, table
from counterscan.errors import DataError

NAMES = {
    "nodule": "lung nodule",
    "pulmonary mass": "mass",
    "infiltrates": "infiltration",
    "pulmonary fibrosis": "fibrosis",
    "hiatal hernia": "hernia",
    "cavitation": "cavity",
    "central venous catheter": "central line",
    "reservoir central venous catheter": "chest port",
}
BROAD = frozenset(
    {
        "infiltrates",
        "alveolar pattern",
        "interstitial pattern",
        "pneumonia",
        "electrical device",
        "volume loss",
        "catheter",
    }
    | {"chronic changes", "increased density", "tuberculosis", "heart insufficiency", "COPD signs"}
)
NONE = frozenset({"normal", "unchanged", "exclude", "suboptimal study", ""})


def open_source(source: Path, work: Path) -> Source:
    """The table is read twice: its labels are the finding columns."""
    tables = sorted({p.with_suffix("") if p.suffix == ".gz" else p for p in source.glob("PADCHEST_chest_x_ray_*.csv*")})
    if not tables:
        raise DataError(f"{source}: has no PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv")
    columns = ["ImageID", "ImageDir", "PatientID", "Labels"]
    labels = sorted({name for row in table(tables[0], columns) for name in _labels(row["Labels"])} - NONE)
    return Source(tuple(dict.fromkeys(map(_name, labels))), _records(source, tables[0], labels))


def _records(source: Path, path: Path, labels: list[str]) -> Iterator[Record]:
    for row in table(path):
        said = _labels(row["Labels"])
        if not said or "exclude" in said:
            continue
        inner = source / row["ImageDir"] / row["ImageID"]
        year, born = number(row.get("StudyDate_DICOM", "")[:4]), number(row.get("PatientBirth", ""))
        yield Record(
            str(inner if inner.is_file() or not (source / row["ImageID"]).is_file() else source / row["ImageID"]),
            patient=row["PatientID"],
            view=row.get("Projection", "").removesuffix("_horizontal"),
            age=year - born if year and born else None,
            sex=SEXES.get(row.get("PatientSex_DICOM", ""), ""),
            findings=_findings(said, labels),
        )


def _labels(text: str) -> set[str]:
    """``"['pleural effusion', ' loc basal']"`` to its labels; nothing where there are none."""
    try:
        said = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return set()
    return {" ".join(str(name).split()) for name in said} if isinstance(said, list) else set()


def _findings(said: set[str], labels: list[str]) -> dict[str, int | None]:
    """What a report that names ``said`` says of every label; of two labels with one name the more certain counts."""
    told = bool(said - NONE) or "normal" in said
    general = BROAD.union(*(_broader(name, tuple(labels)) for name in said)) if said - NONE else set()
    findings: dict[str, int | None] = {}
    for name in labels:
        value = 1 if name in said else None if not told or name in general else 0
        known = findings.get(_name(name), 0)
        findings[_name(name)] = 1 if 1 in (value, known) else None if None in (value, known) else 0
    return findings


@lru_cache(4096)
def _broader(name: str, labels: tuple[str, ...]) -> frozenset[str]:
    """The labels that name the same in general: "fracture" of "rib fracture"."""
    words = set(name.split())
    return frozenset(label for label in labels if set(label.split()) < words)


def _name(label: str) -> str:
    return NAMES.get(label, label)
