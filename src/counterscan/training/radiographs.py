"""Real chest radiographs as a training set, and findings of the world laid over them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from counterscan.training.captions import DEVICES, Row
from counterscan.training.world_set import world_rows

NIH_TEMPLATE, TB_TEMPLATE = "nih chest radiograph", "tb chest radiograph"
Fact = tuple[str, str | None, str | None, str | None]
NIH_NAMES = {
    "Effusion": "pleural effusion",
    "Edema": "pulmonary edema",
    "Nodule": "lung nodule",
    "Pleural_Thickening": "pleural thickening",
    "Support_Devices": "support devices",
} | {
    name: name.lower()
    for name in (
        "Atelectasis",
        "Cardiomegaly",
        "Consolidation",
        "Emphysema",
        "Fibrosis",
        "Hernia",
        "Infiltration",
        "Mass",
        "Pneumonia",
        "Pneumothorax",
    )
}
# the finding that is said -> what is laid over; no effusion: over another chest it looks like none
PASTED = {
    **{name: name for name in (*DEVICES, "consolidation", "lung nodule", "atelectasis")},
    **dict.fromkeys(("pneumonia", "infiltration"), "consolidation"),
}
ALIKE = frozenset(("support devices", *DEVICES)), frozenset((*PASTED, "mass")) - {*DEVICES}


def nih_table(folder: Path, split: str) -> list[dict[str, str]]:
    """The metadata rows of one split (``"train"`` also takes ``"val"``)."""
    with (folder / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if (row["split"] == "test") == (split == "test")]


def nih_row(fact: dict[str, str], template: str) -> Row:
    """A label of 1 is present, 0 absent, -1 or nothing unknown and never mentioned."""
    value = {name: fact.get(column, "") for column, name in NIH_NAMES.items()}
    present = tuple((name, None, None, None) for name, v in value.items() if v in ("1", "1.0"))
    absent = [name for name, v in value.items() if v in ("0", "0.0")]
    if "support devices" in absent:  # then none of them is there, and "no support devices" follows from that
        absent = [name for name in absent if name != "support devices"] + list(DEVICES)
    return Row(
        template,
        present,
        tuple(absent),
        fact.get("view") or None,
        {"M": "male", "F": "female"}.get(fact.get("sex", "")),
    )


def nih_images(folder: Path, table: Sequence[dict[str, str]], size: int = 256) -> NDArray[np.uint8]:
    """Grey images (N, size, size)."""
    from PIL import Image

    out = np.empty((len(table), size, size), np.uint8)
    for i, row in enumerate(table):
        name = row["file"] if "/" in row["file"] else f"images/{row['file']}"
        out[i] = np.asarray(Image.open(folder / name).convert("L").resize((size, size), Image.Resampling.LANCZOS))
    return out


def room(row: Row) -> list[str]:
    """The findings of :data:`PASTED` that may be laid over the image: nothing like them is there.

    The target would still show the real one, and teach to leave real ones alone.
    """
    there = {name for name, *_ in row.present}
    return [name for name in PASTED if not any(name in alike and there & alike for alike in ALIKE)]


def paste(
    work: Path, images: NDArray[np.uint8], rows: Sequence[Row], count: int, seed: int
) -> tuple[NDArray[np.uint8], list[Row], NDArray[np.int64]]:
    """``count`` real images, each followed by itself with one finding of the world laid over it, and another, up to three;
    their rows; and the number of the real image each belongs to.

    What a finding of :data:`PASTED` changes in a world case, its exact counterfactual difference, is added to a real
    radiograph. Nobody would take the result for a real finding's anatomy everywhere; but the image WITHOUT it is a
    real radiograph, and that is the target that removal learns.
    """
    rng, library = np.random.default_rng(seed), _differences(work)
    made: list[tuple[NDArray[np.uint8], Row, int]] = []
    for k in range(count):
        i = int(rng.integers(len(images)))
        x, row = images[i].astype(np.float32), rows[i]
        names = room(row)
        often = np.array([2.0 if name in DEVICES else 1.0 for name in names])
        several = min(int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15])), len(names))
        made.append((images[i], row, k))
        for name in map(str, rng.choice(names, several, replace=False, p=often / often.sum())):
            with_, without, fact = library[PASTED[name]][int(rng.integers(len(library[PASTED[name]])))]
            change = np.load(work / f"world{with_[0]}.npy", mmap_mode="r")
            delta = change[with_[1]].astype(np.float32) - change[without[1]]
            x = x + rng.uniform(0.75, 1.15) * np.where(np.abs(delta) > 2, delta, 0)
            row = replace(
                row, present=(*row.present, (name, *fact[1:])), absent=tuple(n for n in row.absent if n != name)
            )
            made.append((np.clip(x + 0.5, 0, 255).astype(np.uint8), row, k))
    out, told, of = zip(*made, strict=True)
    return np.stack(out), list(told), np.array(of)


def _differences(work: Path) -> dict[str, list[tuple[tuple[int, int], tuple[int, int], Fact]]]:
    """Finding -> (part, row) of an image with it, of its twin without it, and the finding's attributes."""
    out: dict[str, list[tuple[tuple[int, int], tuple[int, int], Fact]]] = {name: [] for name in PASTED.values()}
    for path in sorted(work.glob("world?.json")):
        part = int(path.stem[5:])
        rows, patients = world_rows(work, part)
        first = 0
        for i in range(1, len(rows)):
            if patients[i] < 0 or patients[i] != patients[first]:
                first = i
                continue
            changed = set(rows[i].present) ^ set(rows[first].present)
            if len(changed) == 1 and (fact := changed.pop())[0] in out:
                pair = (part, i), (part, first)
                out[fact[0]].append((*(pair if fact in rows[i].present else pair[::-1]), fact))
    return out
