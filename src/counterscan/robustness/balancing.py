"""Carry out a plan of counterfactual augmentation: edit, gate, write images and the new manifest."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from counterscan.data.contrasts import files_of, read, seen_by
from counterscan.data.manifest import CONTRAST
from counterscan.errors import CounterscanError
from counterscan.methods import suited
from counterscan.metrics.truth import drift_outside
from counterscan.robustness import ledger
from counterscan.robustness.audit import Gallery, grey, identity, open_gallery, twin
from counterscan.robustness.augment import Gates, Measured, Task, columns, known, passes, plan
from counterscan.robustness.names import meant
from counterscan.robustness.study import patients, pictured, probabilities

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone
    from counterscan.result import Counterfactual
    from counterscan.robustness.opening import Outputs


def balance(
    rows: Sequence[Mapping[str, Any]],
    finding: str,
    against: str | Sequence[str],
    backbone: Backbone,
    folder: Path,
    *,
    judge: Outputs | None = None,
    gates: Gates | None = None,
    method: str | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Do the edits of :func:`plan` into ``folder/images``; a manifest row for each, ``refused`` saying why one is not used, and
    ``failed`` too where the image could not be edited.

    Every row has what its edit was made with and what the gates measured (:class:`Measured`, and ``judged LABEL``). Goes on
    where it stopped: what ``folder/made.jsonl`` has from the same image by the same model, method, judge and gates is not made
    again.
    """
    tasks, gates = plan(rows, finding, against, seed), gates or Gates()
    labels, owners = dict.fromkeys([finding, *columns(rows, finding, against)[0]]), patients(rows)
    how = backbone.fingerprint, suited(backbone.card, method), judge and judge.fingerprint, gates
    (folder / "images").mkdir(parents=True, exist_ok=True)
    made = folder / "made.jsonl"
    done, gallery, out = ledger.read(made), None, []
    with made.open("a", encoding="utf-8") as file:
        for k, task in enumerate(tasks):
            source = rows[task.index]
            wanted = {name: known(source, name) or 0 for name in labels} | dict(task.changes)
            key = ledger.key(how, *pictured(source), task, wanted)
            row = done.get(key)
            if row is None or "failed" in row:  # its image may have been repaired
                gallery = gallery or open_gallery(rows, gates.rate, backbone.card)
                facts, result = _edited(source, task, backbone, method)
                if result is not None:
                    seen = measure(result, owners[task.index], gallery, judge)
                    seen = replace(seen, saw=_by_column(seen.saw, list(wanted)))
                    facts |= _told(seen, wanted) | {"refused": passes(seen, wanted, gates)}
                    if not facts["refused"]:
                        facts |= _write(result, list(seen_by(backbone.card, files_of(source))), task, key, folder)
                row = {"key": key} | facts
                file.write(json.dumps(row) + "\n")
                file.flush()
            out.append(row)
            if progress is not None:
                progress(k + 1, len(tasks))
    return out


def measure(result: Counterfactual, owner: str, gallery: Gallery, judge: Outputs | None = None) -> Measured:
    """What the gates judge a counterfactual of the patient ``owner`` by."""
    factual, edited = grey(result.factual), grey(result.counterfactual)
    change = result.difference if result.unblended is None else result.unblended
    similarity, path = twin(edited, owner, gallery)
    saw = [] if judge is None else probabilities(judge, result.counterfactual)[0].tolist()
    return Measured(
        changed_area=float(result.mask.mean()),
        drift_outside=drift_outside(change, np.zeros_like(change), result.mask),
        identity=identity(factual, edited, owner, gallery),
        similarity=similarity,
        copy_limit=gallery.limit,
        twin=path,
        saw=dict(zip(judge.labels if judge else (), saw, strict=True)),
    )


def _edited(
    row: Mapping[str, Any], task: Task, backbone: Backbone, method: str | None
) -> tuple[dict[str, Any], Counterfactual | None]:
    """The manifest row of an edit so far, and what it made, if anything."""
    from counterscan.editing import edit

    words: dict[str, Any] = {
        verb: [name for name, value in task.changes if value == to] for to, verb in enumerate(("remove", "add"))
    }
    facts = {k: v for k, v in row.items() if k not in files_of(row)} | dict(task.changes) | {"synthetic": "yes"}
    facts |= {"mask": ""} if "mask" in row else {}  # it outlines what may be gone, and not what has come
    facts |= {
        "source": str(row["path"]),
        "edit": ", ".join(f"{verb} {name}" for verb, names in words.items() for name in names),
        "seed": task.seed,
    }
    facts |= {"model": backbone.card.name, "fingerprint": backbone.fingerprint, "path": "", "refused": ""}
    try:
        picture = read(seen_by(backbone.card, files_of(row)).values())
        result = edit(picture, **words, method=method, model=backbone, seed=task.seed)
    except CounterscanError as error:
        path, reason = Path(row["path"]), str(error)
        return facts | {"refused": reason, "failed": f"{path}: {reason.removeprefix(f'{path.name}: ')}"}, None
    said = {"caption": result.edit.target} if row.get("caption") else {}  # the old one speaks of what is gone
    return facts | said | {"method": result.method}, result


def _by_column(saw: Mapping[str, float], columns: Sequence[str]) -> dict[str, float]:
    """What the judge saw of the columns that it has a label for, whatever it calls them."""
    labels = {name: meant(name, list(saw)) for name in columns}
    return {name: saw[label] for name, label in labels.items() if label in saw}


def _told(seen: Measured, wanted: Mapping[str, int]) -> dict[str, Any]:
    """What was measured, as columns of the manifest."""
    values = asdict(seen)
    saw = values.pop("saw")
    return values | {f"judged {name}": saw[name] for name in wanted if name in saw}


def _write(result: Counterfactual, columns: Sequence[str], task: Task, key: str, folder: Path) -> dict[str, str]:
    """Write the image, a file each of the columns; returns their paths in the folder.

    The key keeps images of other settings from being overwritten.
    """
    from counterscan.imaging import write

    asked = "-".join(re.sub(r"\W+", "-", f"{name}-{value}") for name, value in task.changes)
    note = {"method": result.method, "words": f"{result.edit.source} -> {result.edit.target}", "model": result.model}
    made = result.counterfactual
    single = len(columns) == 1
    files = {}
    for k, column in enumerate(columns):
        picture = made if single else replace(made, pixels=np.ascontiguousarray(made.pixels[..., k]))
        contrast = "" if single else f".{column.removeprefix(CONTRAST)}"
        files[column] = f"images/{task.index:07d}-{asked}-{key}{contrast}{picture.suffix}"
        write(picture, folder / files[column], note=note)
    return files


def write_manifest(rows: Sequence[Mapping[str, Any]], made: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """``folder/manifest.csv``: the old rows by absolute path, then those made and not refused, marked ``synthetic``."""
    used = [{k: v for k, v in row.items() if k not in ("key", "refused")} for row in made if not row["refused"]]
    old = [
        dict(row) | {"path": str(Path(row["path"]).resolve()), "synthetic": row.get("synthetic", "")} for row in rows
    ]
    columns = list(dict.fromkeys(key for row in [*old, *used] for key in row))
    path, draft = folder / "manifest.csv", folder / f".manifest.csv.{os.getpid()}"
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns, restval="")
        writer.writeheader()
        writer.writerows([*old, *used])
    os.replace(draft, path)
    return path
