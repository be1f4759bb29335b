"""The worlds by name, and one written to disk as a data set: images, captions and a manifest."""

from __future__ import annotations

import csv
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from counterscan.errors import WordsError

WORLDS = ("brain", "chest", "colon")
SHOWN = "T1c"  # of an image of several contrasts: the one in the column ``path``


def find(world: str) -> ModuleType:
    """The module of a world. ``WordsError`` names the known ones."""
    if world not in WORLDS:
        raise WordsError(f"no world {world!r}: known are {', '.join(WORLDS)}")
    return importlib.import_module(f"counterscan.worlds.{world}")


def broader(world: str) -> Mapping[str, Sequence[str]]:
    """Words that stand for several findings of a world, as a model may know no more."""
    known: Mapping[str, Sequence[str]] = getattr(find(world), "BROADER", {})
    return known


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

    Columns: path, patient, caption, split (80 train / 10 val / 10 test), view, age, sex, one column a finding (1 or 0), mask
    (of the lesions, where the world has them), seed. An image of several contrasts is one 16-bit file a contrast, the others
    in columns ``path_T1`` and so on; one in colour is 8-bit. The colon's sentences are in ``prompts``, between ``||``.
    Images that exist are kept, so an interrupted run goes on where it stopped.
    """
    world = find(name)
    if n < 1 or size < 32:
        raise WordsError(f"n must be at least 1 and size at least 32, got {n} and {size}")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(n):
        case = world.sample(np.random.default_rng([seed, i]), size=size)
        files = _write_images(
            world, case, folder, f"{i:06d}", {"world": name, "seed": [seed, i], "caption": case.caption}
        )
        split = "train" if i % 10 < 8 else "val" if i % 10 == 8 else "test"
        facts = {"path": files.pop("path"), "patient": f"W{i:06d}", "caption": case.caption, "split": split}
        facts |= {"view": case.view, "age": str(getattr(case, "age", "")), "sex": getattr(case, "sex", "")}
        present = {f: str(int(f in case.findings)) for f in world.FINDINGS}
        said = {"prompts": " || ".join(case.prompts)} if hasattr(case, "prompts") else {}
        rows.append(facts | present | {"mask": files.pop("mask", ""), "seed": f"{seed}:{i}"} | files | said)
        if progress:
            progress(i + 1, n)
    manifest, draft = folder / "manifest.csv", folder / f".manifest.csv.{os.getpid()}"
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(draft, manifest)
    return manifest


def _write_images(world: Any, case: Any, folder: Path, stem: str, note: dict[str, Any]) -> dict[str, str]:
    """Write what is not there yet; the columns and their file names."""
    from counterscan.imaging.raster import save_png, write_png

    if not hasattr(world, "CONTRASTS"):
        images = {"path": (f"images/{stem}.png", case.image)}
    else:
        images = {
            "path" if contrast == SHOWN else f"path_{contrast}": (f"images/{stem}.{contrast}.png", case.image[..., k])
            for k, contrast in enumerate(world.CONTRASTS)
        }
    for file, pixels in images.values():
        if not (folder / file).exists():
            depth = np.uint8 if pixels.ndim == 3 else np.uint16
            write_png((pixels * np.iinfo(depth).max).round().astype(depth), folder / file, note)
    files = {column: file for column, (file, _) in images.items()}
    if getattr(case, "lesion", None) is not None and case.lesion.any():
        (folder / "masks").mkdir(exist_ok=True)
        files["mask"] = f"masks/{stem}.png"
        save_png(case.lesion.astype(np.uint8) * 255, folder / files["mask"], {"Synthetic": "yes"})
    return files
