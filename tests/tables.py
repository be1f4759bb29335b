"""Manifests of tests."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_manifest(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """``folder/manifest.csv`` with the columns of the first row."""
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "manifest.csv"
