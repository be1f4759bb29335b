"""What the benchmarks of speed share: what the machine was doing, and how results are kept."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from counterscan.imaging.files import replacing


def machine() -> dict[str, Any]:
    """Cores, and the load before anything is measured."""
    return {"cores": os.cpu_count(), "load_average_before": round(os.getloadavg()[0], 1)}


def keep(folder: Path, facts: dict[str, Any], page: str) -> None:
    """Write ``results.json`` and ``results.md``, each at once."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("results.json", json.dumps(facts, indent=2) + "\n"), ("results.md", page)):
        with replacing(folder / name) as draft:
            draft.write_text(text, encoding="utf-8")
