"""Edits of a manifest's images seen by a classifier: the work behind ``stress``, ``disentangle`` and ``augment``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from counterscan.data.contrasts import files_of, read, seen_by
from counterscan.data.manifest import CONTRAST, columns
from counterscan.errors import CounterscanError, DataError, ModelError, WordsError
from counterscan.methods import suited
from counterscan.robustness import ledger

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor

    from counterscan.backbones.base import Backbone
    from counterscan.imaging import Picture
    from counterscan.result import Counterfactual
    from counterscan.robustness.opening import Outputs

GROUP = 8  # images edited at a time, few enough that memory stays flat; always the same, so that a resumed run says the same
Looked = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """What the classifier said of N images: before, after the edit, after the null edit, each (N, K) in [0, 1]."""

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    null: NDArray[np.float32]


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a manifest (CSV or Parquet), one or more, with absolute ``path``, ``mask`` and ``path_*``; what is unknown is
    empty. Images may be absent. ``DataError`` names what is wrong.
    """
    table = _table(path)
    rows: list[dict[str, Any]] = table.astype(object).where(table.notna(), "").to_dict("records")
    rows = [{name: value.strip() if isinstance(value, str) else value for name, value in row.items()} for row in rows]
    if not rows:
        raise DataError(f"{path}: lists no image")
    empty = [str(i) for i, row in enumerate(rows, 1) if not row["path"]]
    if empty:
        raise DataError(f"{path}: row {', '.join(empty[:3])}, path: is empty; name an image")
    files = [name for name in rows[0] if name == "mask" or name.startswith(CONTRAST)]
    for row in rows:
        row |= {name: str((path.parent / row[name]).resolve()) for name in files if row[name]}
        row["path"] = path.parent / row["path"]
    return rows


def _table(path: Path) -> DataFrame:
    """The table as it is written, without spaces about the names of its columns, and without columns that have no name."""
    import pandas as pd

    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
            header = map(str, table.columns)
        else:  # the header as a row: pandas would rename columns that are there twice
            lines = pd.read_csv(path, dtype=str, keep_default_na=False, header=None, encoding="utf-8-sig")
            header, table = lines.iloc[0], lines[1:]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a manifest ({' '.join(str(error).split())[:160]})") from None
    return table.set_axis(columns(header, path), axis=1).drop(columns="", errors="ignore")


def present(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows whose image is there, and what is wrong with the others, each by its path."""
    there = [Path(row["path"]).is_file() for row in rows]
    failed = [f"{row['path']}: no such file" for row, found in zip(rows, there, strict=True) if not found]
    return [row for row, found in zip(rows, there, strict=True) if found], failed


def pictured(row: Mapping[str, Any]) -> list[str]:
    """The files of a row, with size and date of each, so that what was made of other images is not taken for these'."""
    facts = {path: path.stat() if path.is_file() else None for path in files_of(row).values()}
    return [f"{path} {fact and (fact.st_size, fact.st_mtime_ns)}" for path, fact in facts.items()]


def patients(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whose each image is; without the column every image is a patient of its own."""
    return [str(row.get("patient") or i) for i, row in enumerate(rows)]


def look(
    outputs: Outputs,
    rows: Sequence[Mapping[str, Any]],
    request: Mapping[str, Any],
    backbone: Backbone,
    made: Path,
    *,
    method: str | None = None,
    seed: int = 0,
    keep: Callable[[str, Counterfactual], None] = lambda key, result: None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Looked]:
    """Edit every image, edit it with nothing asked, and ask the classifier: a row each of ``key``, ``before``, ``after`` and
    ``null``, or of ``key`` and ``error`` where that could not be done.

    Goes on where it stopped: a group of images that is whole in the file ``made``, without failures, is not done again.
    ``keep(key, counterfactual)`` sees each new result.
    """
    how = outputs.fingerprint, backbone.fingerprint, suited(backbone.card, method), sorted(request.items()), seed
    ask = partial(_ask, outputs, request, {"method": method, "model": backbone, "seed": seed}, keep)
    made.parent.mkdir(parents=True, exist_ok=True)
    done, looked = ledger.read(made), list[Looked]()
    with made.open("a", encoding="utf-8") as file:
        for start in range(0, len(rows), GROUP):
            group = [(ledger.key(how, *pictured(row)), row) for row in rows[start : start + GROUP]]
            if not all(key in done and "error" not in done[key] for key, _ in group):
                for row in _singly(ask, group):
                    done[row["key"]] = row
                    file.write(json.dumps(row) + "\n")
                file.flush()
            looked += [done[key] for key, _ in group]
            if progress is not None:
                progress(len(looked), len(rows))
    return looked


def stacked(looked: Sequence[Looked]) -> Seen:
    """What was seen of images none of which failed."""
    return Seen(*(np.array([row[name] for row in looked], np.float32) for name in ("before", "after", "null")))


def _ask(
    outputs: Outputs,
    request: Mapping[str, Any],
    how: Mapping[str, Any],
    keep: Callable[[str, Counterfactual], None],
    group: Sequence[tuple[str, Mapping[str, Any]]],
) -> list[Looked]:
    """The rows of a group of images, all edited at once."""
    from counterscan.editing import edit

    pictures = [read(seen_by(how["model"].card, files_of(row)).values()) for _, row in group]
    changed = edit(pictures, **request, **how)
    same = changed[0].edit.source
    idle = edit(pictures, source=same, target=same, **how)
    rows = []
    for (key, _), result, null in zip(group, changed, idle, strict=True):
        keep(key, result)
        views = {"before": result.factual, "after": result.counterfactual, "null": null.counterfactual}
        rows.append({"key": key} | {name: probabilities(outputs, view)[0].tolist() for name, view in views.items()})
    return rows


def _singly(ask: Callable[[Any], list[Looked]], group: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Looked]:
    """The rows of a group. Where that fails each image is tried alone, so that only the guilty one fails."""
    try:
        return ask(group)
    except (WordsError, ModelError):  # no other image would fare better
        raise
    except Exception as error:  # whatever is wrong with this image, the others are still to be done
        if len(group) > 1:
            return [row for one in group for row in _singly(ask, [one])]
        key, path = group[0][0], Path(group[0][1]["path"])
        text = str(error) if isinstance(error, CounterscanError | OSError) else f"{type(error).__name__}: {error}"
        return [{"key": key, "error": f"{path}: {text.removeprefix(f'{path.name}: ')}"}]


def probabilities(outputs: Outputs, picture: Picture) -> NDArray[np.float32]:
    """(1, K) of one picture."""
    return outputs(shown(picture, outputs.size, outputs.channels)[None]).numpy()


def shown(picture: Picture, size: int, channels: int) -> Tensor:
    """A picture as classifiers see it, (channels, size, size): padded to a square; contrasts of which there are more or fewer
    than it has channels by their mean.
    """
    from counterscan.editing import to_tensor
    from counterscan.imaging import fit

    square, _ = fit(picture.unit(), size)
    if square.ndim == 3 and square.shape[2] not in (3, channels):
        square = square.mean(2)
    return to_tensor(square, channels)
