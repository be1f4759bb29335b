"""A small data set and a config over it, for the trainer's tests: seconds a run."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from tests.models import tiny

from counterscan.training.config import Config

COLUMNS = ("path", "patient", "caption", "split", "view", "sex", "pleural effusion", "pacemaker")


def data_set(folder: Path, count: int = 12, size: int = 32) -> Path:
    """Grey squares, bright on one side where there is an effusion; returns the manifest."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (folder / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for i in range(count):
            pixels = rng.integers(40, 90, (size, size), dtype=np.uint8)
            pixels[:, size // 2 :] += np.uint8(120 * (i % 2))
            Image.fromarray(pixels).save(folder / f"images/{i}.png")
            caption = "chest radiograph: left pleural effusion" if i % 2 else "chest radiograph"
            rows.writerow([f"images/{i}.png", f"p{i}", caption, "train", "PA", "F", i % 2, int(i % 4 == 0)])
    return folder / "manifest.csv"


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """The values of a config over a model and a data set in ``folder``, which are made where they are not there."""
    if not (folder / "data").exists():
        data_set(folder / "data")
    if not (folder / "model").exists() and "compact" not in changes:
        tiny(folder / "model")
    values: dict[str, Any] = {
        "model": str(folder / "model"),
        "output": str(folder / "run"),
        "data": {"manifest": str(folder / "data/manifest.csv")},
        "steps": 2,
        "batch": 4,
        "micro_batch": 2,
        "save_every": 2,
        "optimizer": {"rate": 1e-3},
    }
    if "compact" in changes:
        del values["model"]
    return _merged(values, changes)


def config(folder: Path, **changes: Any) -> Config:
    """The same as a config."""
    return Config.model_validate(settings(folder, **changes))


def config_file(folder: Path, **changes: Any) -> Path:
    """The same as a file."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings(folder, **changes)))
    return path


def _merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    both = {
        k: _merged(values[k], v) for k, v in changes.items() if isinstance(v, dict) and isinstance(values.get(k), dict)
    }
    return values | changes | both
