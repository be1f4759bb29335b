"""Edits of a manifest's images seen by a classifier: the work behind ``stress``, ``disentangle`` and ``augment``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from counterscan.data.manifest import CONTRAST
from counterscan.errors import DataError

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone
    from counterscan.result import Counterfactual
    from counterscan.robustness.opening import Outputs

GROUP = 8  # images edited at a time: few enough that memory stays flat


@dataclass(frozen=True)
class Seen:
    """What the classifier said of N images: before, after the edit, after the null edit, each (N, K) in [0, 1]."""

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    null: NDArray[np.float32]


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a manifest (CSV or Parquet), with absolute ``path``, ``mask`` and ``path_*``; what is unknown is empty.
    ``DataError`` names what is wrong.
    """
    import pandas as pd

    try:
        table = (
            pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=str, keep_default_na=False)
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a manifest ({' '.join(str(error).split())[:160]})") from None
    if "path" not in table:
        raise DataError(f"{path}: has no column 'path'; counterscan data import makes a manifest")
    rows: list[dict[str, Any]] = table.astype(object).where(table.notna(), "").to_dict("records")
    missing = [f"row {i + 2}: {row['path']}" for i, row in enumerate(rows) if not (path.parent / row["path"]).is_file()]
    if missing:
        raise DataError(f"{path}: {len(missing)} images are absent: {'; '.join(missing[:3])}")
    files = [name for name in table if name == "mask" or str(name).startswith(CONTRAST)]
    for row in rows:
        row |= {name: str((path.parent / row[name]).resolve()) for name in files if row[name]}
        row["path"] = path.parent / row["path"]
    return rows


def patients(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whose each image is; without the column every image is a patient of its own."""
    return [str(row.get("patient") or i) for i, row in enumerate(rows)]


def look(
    outputs: Outputs,
    paths: Sequence[Path],
    request: Mapping[str, Any],
    backbone: Backbone,
    *,
    method: str | None = None,
    seed: int = 0,
    keep: Callable[[int, Counterfactual], None] = lambda index, result: None,
    progress: Callable[[int, int], None] | None = None,
) -> Seen:
    """Edit every image, and edit it with nothing asked; ``keep(index, counterfactual)`` sees each result once."""
    from counterscan.editing import edit

    parts: list[tuple[NDArray[np.float32], ...]] = []
    for start in range(0, len(paths), GROUP):
        group = list(paths[start : start + GROUP])
        changed = edit(group, **request, method=method, model=backbone, seed=seed)
        same = changed[0].edit.source
        idle = edit(group, source=same, target=same, method=method, model=backbone, seed=seed)
        for i, result in enumerate(changed):
            keep(start + i, result)
        views = [[r.factual for r in changed], [r.counterfactual for r in changed], [r.counterfactual for r in idle]]
        parts.append(tuple(np.concatenate([probabilities(outputs, picture) for picture in some]) for some in views))
        if progress is not None:
            progress(start + len(group), len(paths))
    return Seen(*(np.concatenate([part[k] for part in parts]) for k in range(3)))


def probabilities(outputs: Outputs, picture: Any) -> NDArray[np.float32]:
    """(1, K) of one picture, padded to a square as the models see it."""
    from counterscan.editing import to_tensor
    from counterscan.imaging import fit

    square, _ = fit(picture.unit(), outputs.size)
    return outputs(to_tensor(square, outputs.channels)[None]).numpy()
