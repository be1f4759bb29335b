"""MIMIC-CXR-JPG: ``files/p10/p10000032/s50414267/<dicom_id>.jpg`` and its tables, plain or gzipped (Johnson et al., 2019).

Reports are MIMIC-CXR's ``files/p10/p10000032/s50414267.txt``: unpack ``mimic-cxr-reports.zip`` here or into
``mimic-cxr-reports``. A row's caption is the report's impression, else its findings. Ages and sexes are MIMIC-IV's: put its
``patients.csv.gz`` here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from counterscan.data.manifest import Record
from counterscan.data.readers.chexpert import LABELS
from counterscan.data.readers.source import SEXES, Source, label, number, optional, table
from counterscan.data.sections import conclusion

TABLE = "mimic-cxr-2.0.0-{}.csv"
SPLITS = {"train": "train", "validate": "val", "test": "test"}


def open_source(source: Path, work: Path) -> Source:
    """Blank labels are unknown, -1 uncertain. Memory holds the split of each image and the labels of each study."""
    return Source(tuple(LABELS.values()), _records(source))


def _records(source: Path) -> Iterator[Record]:
    splits = {row["dicom_id"]: row["split"] for row in table(source / TABLE.format("split"), ["dicom_id", "split"])}
    labels = {
        row["study_id"]: tuple(label(row.get(column, "")) for column in LABELS)
        for row in table(source / TABLE.format("chexpert"), ["study_id"])
    }
    people = {row["subject_id"]: row for row in optional(source / "patients.csv", ["subject_id"])}
    unlabelled = (None,) * len(LABELS)
    for row in table(source / TABLE.format("metadata"), ["dicom_id", "subject_id", "study_id"]):
        subject, study, image = row["subject_id"], row["study_id"], row["dicom_id"]
        folder = Path("files", f"p{subject[:2]}", f"p{subject}")
        yield Record(
            str(source / folder / f"s{study}" / f"{image}.jpg"),
            patient=subject,
            caption=_caption(source, folder / f"s{study}.txt"),
            split=SPLITS.get(splits.get(image, ""), ""),
            view=row.get("ViewPosition", ""),
            age=_age(people.get(subject, {}), row.get("StudyDate", "")),
            sex=SEXES.get(people.get(subject, {}).get("gender", ""), ""),
            findings=dict(zip(LABELS.values(), labels.get(study, unlabelled), strict=True)),
        )


def _age(person: dict[str, str], date: str) -> float | None:
    """Dates are shifted, but for all of a patient alike: the age in the anchor year and the years since then."""
    age, anchor, year = number(person.get("anchor_age", "")), number(person.get("anchor_year", "")), number(date[:4])
    return None if age is None or anchor is None or year is None else age + year - anchor


def _caption(source: Path, report: Path) -> str:
    for top in (source, source / "mimic-cxr-reports"):
        if (top / report).is_file():
            return conclusion((top / report).read_text(encoding="utf-8", errors="replace"))
    return ""
