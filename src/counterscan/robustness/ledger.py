"""Rows of JSON by key, appended as they are made: what a stopped study goes on from."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from counterscan.errors import DataError


def key(*parts: Any) -> str:
    """16 hex digits of all that a row depends on, by its ``repr``."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def read(path: Path) -> dict[str, dict[str, Any]]:
    """What was made before; a last line cut off by a kill is cut off the file."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    os.truncate(path, data.rfind(b"\n") + 1)
    rows: dict[str, dict[str, Any]] = {}
    for i, line in enumerate(data.decode("utf-8", "replace").split("\n")[:-1]):
        try:
            row = json.loads(line)
        except ValueError:
            raise DataError(f"{path}: line {i + 1} is damaged; delete the file to start again") from None
        rows[row["key"]] = row
    return rows
