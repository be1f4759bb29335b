"""ROCOv2: ``train/ROCOv2_2023_train_000001.jpg`` with ``train_captions.csv`` and ``train_concepts.csv`` (Rückert et al., 2024).

The 50 most common concepts become finding columns, named by ``cui_mapping.csv``: present where a figure has them, else unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from counterscan.data.manifest import Record
from counterscan.data.readers.source import Source, optional, table
from counterscan.errors import DataError

SPLITS = {"train": "train", "valid": "val", "test": "test"}
COMMON = 50


def open_source(source: Path, work: Path) -> Source:
    """A split's images lie in ``train``, ``train_images`` or ``train_images/train``, as the archive is unpacked."""
    splits = [name for name in SPLITS if (source / f"{name}_captions.csv").is_file()]
    if not splits:
        raise DataError(f"{source}: has no train_captions.csv, valid_captions.csv or test_captions.csv")
    names = {
        row["CUI"]: row["Canonical name"].lower()
        for row in optional(source / "cui_mapping.csv", ["CUI", "Canonical name"])
    }
    counts = Counter(
        cui
        for name in splits
        for row in optional(source / f"{name}_concepts.csv", ["ID", "CUIs"])
        for cui in row["CUIs"].split(";")
    )
    concepts = {cui: names.get(cui, cui) for cui, _ in counts.most_common(COMMON) if cui}
    return Source(tuple(dict.fromkeys(concepts.values())), _records(source, splits, concepts))


def _records(source: Path, splits: list[str], concepts: dict[str, str]) -> Iterator[Record]:
    for split in splits:
        said = {
            row["ID"]: set(row["CUIs"].split(";")) for row in optional(source / f"{split}_concepts.csv", ["ID", "CUIs"])
        }
        inner = (f"{split}_images/{split}", f"{split}_images", f"{split}/{split}", split)
        folder = next((source / name for name in inner if (source / name).is_dir()), source / split)
        ending = next((e for e in (".jpg", ".png") if any(folder.glob(f"*{e}"))), ".jpg")  # some copies are PNG
        for row in table(source / f"{split}_captions.csv", ["ID", "Caption"]):
            here = {concepts[cui] for cui in said.get(row["ID"], set()) & concepts.keys()}
            yield Record(
                str(folder / f"{row['ID']}{ending}"),
                caption=" ".join(row["Caption"].split()),
                split=SPLITS[split],
                findings={name: 1 if name in here else None for name in concepts.values()},
            )
