"""Carry out a plan of counterfactual augmentation: edit, gate, write images and the new manifest."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterscan.errors import CounterscanError, DataError
from counterscan.robustness.augment import Gates, Task, known, passes, plan
from counterscan.robustness.study import probabilities

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone
    from counterscan.robustness.opening import Outputs


def balance(
    rows: Sequence[Mapping[str, Any]],
    finding: str,
    attribute: str,
    backbone: Backbone,
    folder: Path,
    *,
    judge: Outputs | None = None,
    gates: Gates | None = None,
    method: str | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Do the edits of :func:`plan` into ``folder/images``; a manifest row for each, ``refused`` saying why one is not used.

    Goes on where it stopped: what is in ``folder/made.jsonl`` is not made again.
    """
    tasks = plan(rows, finding, attribute, seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    ledger = folder / "made.jsonl"
    done = _read(ledger)
    out = []
    with ledger.open("a", encoding="utf-8") as file:
        for k, task in enumerate(tasks):
            key = f"{rows[task.index]['path']}:{task.attribute}:{task.value}:{task.seed}:{backbone.fingerprint}"
            row = done.get(key)
            if row is None:
                row = {"key": key} | _one(
                    rows[task.index], task, finding, backbone, folder, judge, gates or Gates(), method
                )
                file.write(json.dumps(row) + "\n")
                file.flush()
            out.append(row)
            if progress is not None:
                progress(k + 1, len(tasks))
    return out


def _one(
    row: Mapping[str, Any],
    task: Task,
    finding: str,
    backbone: Backbone,
    folder: Path,
    judge: Outputs | None,
    gates: Gates,
    method: str | None,
) -> dict[str, Any]:
    from counterscan.editing import edit
    from counterscan.imaging import write

    facts = {k: v for k, v in row.items() if k != "path"} | {task.attribute: task.value, "synthetic": 1}
    facts |= {
        "source": str(row["path"]),
        "edit": f"{'add' if task.value else 'remove'} {task.attribute}",
        "seed": task.seed,
    }
    facts |= {"model": backbone.card.name, "fingerprint": backbone.fingerprint, "path": "", "refused": ""}
    words: dict[str, Any] = {"add" if task.value else "remove": [task.attribute]}
    try:
        result = edit(row["path"], **words, method=method, model=backbone, seed=task.seed)
    except CounterscanError as error:
        return facts | {"refused": str(error)}
    saw = None
    if judge is not None:
        saw = dict(zip(judge.labels, probabilities(judge, result.counterfactual)[0].tolist(), strict=True))
    area, value = float(result.mask.mean()), known(row, finding) or 0
    facts |= {"method": result.method, "changed_area": area}
    reason = passes(area, saw, task, finding, value, gates)
    if reason:
        return facts | {"refused": reason}
    name = f"images/{task.index:07d}-{task.value}{result.counterfactual.suffix}"
    note = {
        "method": result.method,
        "words": f"{result.edit.source} -> {result.edit.target}",
        "model": backbone.card.name,
    }
    write(result.counterfactual, folder / name, note=note)
    return facts | {"path": name}


def write_manifest(rows: Sequence[Mapping[str, Any]], made: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """``folder/manifest.csv``: the old rows by absolute path, then those made and not refused, marked ``synthetic``."""
    used = [{k: v for k, v in row.items() if k not in ("key", "refused")} for row in made if not row["refused"]]
    old = [dict(row) | {"path": str(Path(row["path"]).resolve()), "synthetic": 0} for row in rows]
    columns = list(dict.fromkeys(key for row in [*old, *used] for key in row))
    path, draft = folder / "manifest.csv", folder / f".manifest.csv.{os.getpid()}"
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns, restval="")
        writer.writeheader()
        writer.writerows([*old, *used])
    os.replace(draft, path)
    return path


def _read(ledger: Path) -> dict[str, dict[str, Any]]:
    """What was made before; a last line cut off by a kill is passed over."""
    if not ledger.exists():
        return {}
    rows: dict[str, dict[str, Any]] = {}
    lines = ledger.read_text(encoding="utf-8").splitlines()
    for i, line in enumerate(lines):
        try:
            row = json.loads(line)
        except ValueError:
            if i < len(lines) - 1:
                raise DataError(f"{ledger}: line {i + 1} is damaged; delete the file to start again") from None
            continue
        rows[row["key"]] = row
    return rows
