"""Run methods on the questions and score the answers; every cell is kept on disk, so an interrupted bench goes on."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from counterscan.bench.cases import Pair, pairs
from counterscan.bench.peers import Peer
from counterscan.bench.report import DIFFERENCE, MEASURED, limit_keys, stem
from counterscan.blending import applied, blend
from counterscan.editing import to_array, to_tensor
from counterscan.errors import WordsError
from counterscan.metrics.intervals import interval, paired
from counterscan.worlds.dataset import broader, find

if TYPE_CHECKING:
    from torch import Tensor

    from counterscan.backbones.base import Backbone
    from counterscan.methods import Method
    from counterscan.robustness.classifier import Classifier
    from counterscan.types import Direction

BATCH = 8
SHOWN = 4  # cases on a contact sheet


@dataclass(frozen=True)
class Answer:
    """One edited case: the edited decoding, the reconstruction, and the composited result, all float32 (H, W[, C])."""

    edited: NDArray[np.float32]
    rebuilt: NDArray[np.float32]
    final: NDArray[np.float32]
    weight: NDArray[np.float32]


def answer(backbone: Backbone, method: Method, items: Sequence[Pair], progress: Callable[[int], None]) -> list[Answer]:
    """Edit every pair's factual; those that ask the same words share a batch. Seeds belong to the cases."""
    import torch

    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, pair in enumerate(items):
        groups[pair.edit.source, pair.edit.target].append(i)
    out: dict[int, Answer] = {}
    for group in groups.values():
        for start in range(0, len(group), BATCH):
            chosen = group[start : start + BATCH]
            x = _tensor([items[i].factual for i in chosen], backbone.channels)
            grey = items[chosen[0]].factual.ndim == 2
            generators = [torch.Generator().manual_seed(items[i].seed) for i in chosen]
            edited = _arrays(method(backbone, x, items[chosen[0]].edit, generator=generators), grey)
            rebuilt = _arrays(backbone.decode(backbone.encode(x)), grey)
            for k, i in enumerate(chosen):
                factual = items[i].factual
                change, weight = blend(factual, rebuilt[k], edited[k])
                out[i] = Answer(edited[k], rebuilt[k], applied(factual, change, weight), weight)
            progress(len(out))
    return [out[i] for i in range(len(items))]


def scores(pair: Pair, given: Answer) -> dict[str, float]:
    """The measures of one answer; ``error_inside`` and ``drift_outside`` as in :mod:`counterscan.metrics.truth`.

    ``drift_outside`` is taken before compositing, ``drift_composited`` after; ``mask_auprc`` ranks the pixels by what the
    edited decoding changed of the reconstruction, ``mask_dice`` is that of the area composited.
    """
    from sklearn.metrics import average_precision_score

    from counterscan.metrics.truth import drift_outside, error_inside

    factual, truth, mask = pair.factual, pair.truth, pair.mask
    changed = np.abs(given.edited - given.rebuilt)
    changed = changed if changed.ndim == 2 else changed.mean(axis=2)
    found = given.weight > 0.5
    return {
        "error_inside": error_inside(given.final, truth, factual, mask),
        "error_inside_raw": error_inside(given.edited, truth, factual, mask),
        "drift_outside": drift_outside(given.edited, factual, mask),
        "drift_composited": drift_outside(given.final, factual, mask),
        "mask_auprc": float(average_precision_score(mask.ravel(), changed.ravel())),
        "mask_dice": float(2 * (found & mask).sum() / max(found.sum() + mask.sum(), 1)),
    }


def judged(judge: Classifier, items: Sequence[Pair], given: Sequence[Answer]) -> list[dict[str, float]]:
    """What the judge, which no method ever sees, says of finding, side and place; only of factuals it gets right."""
    before = judge.probabilities(_tensor([pair.factual for pair in items], judge.channels)).numpy() > 0.5
    after = judge.probabilities(_tensor([one.final for one in given], judge.channels)).numpy() > 0.5
    column = {label: k for k, label in enumerate(judge.labels)}
    rows = []
    for pair, old, new in zip(items, before, after, strict=True):
        change = pair.edit.changes[0]
        k, added = column[change.finding], change.direction == "add"
        row = {"flip_rate": float(new[k] == added)} if old[k] != added else {}
        if added and new[k]:
            if change.side and f"left {change.finding}" in column:
                row["side_right"] = float(new[column[f"left {change.finding}"]] == (change.side == "left"))
            if change.place and f"{change.place} {change.finding}" in column:
                row["place_right"] = float(new[column[f"{change.place} {change.finding}"]])
        rows.append(row)
    return rows


def cell(
    backbone: Backbone, method: Method, items: Sequence[Pair], judge: Classifier | None, progress: Callable[[int], None]
) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """One row of the table, with the scores of every case, and its contact sheet."""
    began, spent = time.perf_counter(), backbone.evaluations
    given = answer(backbone, method, items, progress)
    seconds, evaluations = time.perf_counter() - began, backbone.evaluations - spent
    each = [scores(pair, one) for pair, one in zip(items, given, strict=True)]
    if judge is not None:
        each = [row | more for row, more in zip(each, judged(judge, items, given), strict=True)]
    cost = {"evaluations": evaluations / len(items), "seconds_per_image": seconds / len(items)}
    return mean(each) | cost | {"n": len(items), "cases": each}, sheet(items, given)


def mean(rows: Sequence[dict[str, float]]) -> dict[str, float | None]:
    """The mean of every measure over the cases that have it."""
    keys = [
        "error_inside",
        "error_inside_raw",
        "drift_outside",
        "drift_composited",
        "mask_auprc",
        "mask_dice",
        "flip_rate",
    ]
    keys += ["side_right", "place_right"]
    values = {key: [row[key] for row in rows if key in row] for key in keys}
    return {key: float(np.mean(v)) if v else None for key, v in values.items()}


def intervals(cases: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
    """The limits of a row's means: 95 % bootstrap intervals, in which every case is a patient. Null where none are known."""
    out: dict[str, float | None] = {f"{key}_{end}": None for key in MEASURED for end in ("low", "high")}
    for key in MEASURED:
        if known := [row[key] for row in cases if key in row]:
            out |= limit_keys(key, interval(known, range(len(known))))
    return out


def compared(row: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """The error inside, less that of the first method on the same cases, with the p-value of a paired test."""
    own, theirs = ([case["error_inside"] for case in each["cases"]] for each in (row, first))
    test = paired(own, theirs, range(len(own)))
    facts = {"compared_with": first["method"], DIFFERENCE: test.difference.mean, "p": test.p}
    return facts | limit_keys(DIFFERENCE, test.difference)


def floor(backbone: Backbone, items: Sequence[Pair]) -> dict[str, float]:
    """What no edit of this model can be below: the true counterfactual and the factual through the autoencoder alone."""
    from counterscan.metrics.truth import drift_outside, error_inside

    def through(images: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        return _arrays(backbone.decode(backbone.encode(_tensor(images, backbone.channels))), images[0].ndim == 2)

    truth, same = through([p.truth for p in items]), through([p.factual for p in items])
    error = [error_inside(t, p.truth, p.factual, p.mask) for p, t in zip(items, truth, strict=True)]
    drift = [drift_outside(s, p.factual, p.mask) for p, s in zip(items, same, strict=True)]
    return {"error_inside": float(np.mean(error)), "drift_outside": float(np.mean(drift))}


def bench(
    backbone: Backbone,
    methods: Sequence[Method] | Mapping[str, Method],
    world: str,
    folder: Path,
    *,
    n: int,
    findings: Sequence[str] = (),
    directions: Sequence[Direction] = ("remove", "add"),
    judge: Classifier | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Every method on every finding of the world in both directions: ``{"rows", "floor"}``, every row with its ``cases``.

    Every row has the intervals of its means, and from the second method on a paired test against the first.
    Rows go by the methods' names, or by the keys of a mapping, which can tell a method's settings apart. A finished cell
    is read back from ``folder/cells`` where model, method, settings, judge and questions are the same. ``WordsError``
    before any work where a peer cannot run on the model, or two methods have one name.
    """
    from PIL import Image

    labelled = dict(methods) if isinstance(methods, Mapping) else {method.name: method for method in methods}
    if len(labelled) < len(methods):
        raise WordsError("two methods of one name: give a mapping from a name of your choice to each")
    labelled = {label: m.settled(backbone) if isinstance(m, Peer) else m for label, m in labelled.items()}
    names = list(findings) or shared(world, backbone.card.findings)
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    floors, total = {}, len(names) * len(directions) * len(methods) * n
    for name, direction in product(names, directions):
        items = pairs(world, name, direction, n, template=backbone.card.template, size=backbone.resolution, seed=seed)
        asked = _digest(backbone, items, judge)
        floors[f"{name}, {direction}"] = floor(backbone, items[:8])
        for place, (label, method) in enumerate(labelled.items()):
            facts = {"method": label, "finding": name, "direction": direction}
            key = hashlib.sha256(f"{asked} {method.name} {method!r}".encode()).hexdigest()[:16]
            path = folder / "cells" / f"{stem(facts)}.json"
            row = _read(path, key)
            if row is None:
                row, picture = cell(backbone, method, items, judge, _from(progress, len(rows) * n, total))
                Image.fromarray(picture).save(path.with_suffix(".png"))
                _write(path, {"key": key} | row)
            row = facts | {k: v for k, v in row.items() if k != "key"}
            rows.append(row | intervals(row["cases"]))
            if place:
                rows[-1] |= compared(rows[-1], rows[-1 - place])
            _from(progress, len(rows) * n, total)(0)
    lowest = {k: float(np.mean([f[k] for f in floors.values()])) for k in ("error_inside", "drift_outside")}
    return {"rows": rows, "floor": lowest | {"each": floors}}


def shared(world: str, known: Sequence[str]) -> list[str]:
    """The findings of a world that a model knows; all where it does not say. ``WordsError`` where there is none."""
    if not known:
        return list(find(world).FINDINGS)
    names = [*find(world).FINDINGS, *broader(world)]
    both = [name for name in names if name in known]
    if not both:
        raise WordsError(
            f"nothing to ask: the {world} world has {', '.join(names)}, the model knows {', '.join(known)}; "
            "name another --world or --model"
        )
    return both


def _from(progress: Callable[[int, int], None] | None, done: int, total: int) -> Callable[[int], None]:
    return (lambda k: None) if progress is None else (lambda k: progress(done + k, total))


def sheet(items: Sequence[Pair], given: Sequence[Answer]) -> NDArray[np.uint8]:
    """Factual, answer, truth, the answer's difference, the true difference; one row a case."""
    lines = []
    for pair, one in list(zip(items, given, strict=True))[:SHOWN]:
        grey = [x if x.ndim == 2 else x[..., :3].mean(axis=2) for x in (pair.factual, one.final, pair.truth)]
        lines.append(np.concatenate([*grey, 0.5 + grey[1] - grey[0], 0.5 + grey[2] - grey[0]], axis=1))
    return (np.clip(np.concatenate(lines), 0, 1) * 255).astype(np.uint8)


def _digest(backbone: Backbone, items: Sequence[Pair], judge: Classifier | None) -> str:
    """Everything that a row depends on but its method: weights and their numbers, words, images, and who judges."""
    digest = hashlib.sha256(f"{backbone.fingerprint} {backbone.dtype}".encode())
    for pair in items:
        digest.update(repr((pair.seed, pair.edit)).encode())
        for image in (pair.factual, pair.truth, pair.mask):
            digest.update(image.tobytes())
    for name, tensor in sorted(judge.state_dict().items()) if judge else ():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path, key: str) -> dict[str, Any] | None:
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return row if row.get("key") == key else None


def _write(path: Path, row: dict[str, Any]) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(row) + "\n", encoding="utf-8")
    os.replace(draft, path)


def _tensor(images: Sequence[NDArray[np.float32]], channels: int) -> Tensor:
    import torch

    return torch.stack([to_tensor(image, channels) for image in images])


def _arrays(images: Tensor, grey: bool) -> list[NDArray[np.float32]]:
    return [to_array(image, grey) for image in images]
