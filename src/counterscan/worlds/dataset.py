"""Write a world to disk as a data set: images, captions and a manifest."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from counterscan.errors import WordsError

WORLDS = ("chest",)


def write_world(
    name: str,
    folder: Path,
    n: int,
    *,
    seed: int = 0,
    size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw ``n`` cases into ``folder/images`` and ``folder/manifest.csv``; returns the manifest's path.

    Columns: path, patient, caption, split (80 train / 10 val / 10 test), view, age, sex, one column a finding (1 or
    0), mask (empty), seed. Images that exist are kept, so an interrupted run goes on where it stopped.
    """
    if name not in WORLDS:
        raise WordsError(f"no world {name!r}: known are {', '.join(WORLDS)}")
    if n < 1 or size < 32:
        raise WordsError(f"n must be at least 1 and size at least 32, got {n} and {size}")
    from counterscan.imaging.raster import write_png
    from counterscan.worlds import chest

    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(n):
        case = chest.sample(np.random.default_rng([seed, i]), size=size)
        path = folder / "images" / f"{i:06d}.png"
        if not path.exists():
            note = {"world": name, "seed": [seed, i], "caption": case.caption}
            write_png((case.image * 65535).round().astype(np.uint16), path, note)
        split = "train" if i % 10 < 8 else "val" if i % 10 == 8 else "test"
        facts = {"path": f"images/{path.name}", "patient": f"W{i:06d}", "caption": case.caption, "split": split}
        facts |= {"view": case.view, "age": str(case.age), "sex": case.sex[0].upper()}
        rows.append(
            facts | {f: str(int(f in case.findings)) for f in chest.FINDINGS} | {"mask": "", "seed": f"{seed}:{i}"}
        )
        if progress:
            progress(i + 1, n)
    manifest, draft = folder / "manifest.csv", folder / f".manifest.csv.{os.getpid()}"
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(draft, manifest)
    return manifest
