"""What edits did: to a judge's opinion, and to the rest of the image; methods compared on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import DataError, ImageError
from counterscan.evaluate import rows
from counterscan.evaluate.edits_page import write_edits_page
from counterscan.evaluate.features import Store, good_rows, square
from counterscan.evaluate.pairs import Opened, Pair, by_stem, distinct, identity, named, open_pair, pairs
from counterscan.evaluate.spaces import Space, open_space
from counterscan.metrics import counterfactual as measures
from counterscan.metrics.intervals import interval, paired
from counterscan.metrics.similarity import ms_ssim, psnr, ssim

PRESERVED = ("l1", "l1_inside", "l1_outside", "proximity", "sparsity", "ssim", "ms_ssim", "psnr", "identity")
JUDGED = ("gain", "flip_rate", "validity", "effectiveness", "side_effect")
COMPARED = ("gain", "l1", "ssim")  # of methods on the same images
STRANGERS = 200  # images that a counterfactual must not be mistaken for
ROUGH = 20  # patients under which an interval says little
OTHER = ("(free prompts)", "")


def edits(
    sources: Sequence[str],
    folder: Path,
    *,
    judge: str = "chest-nih-judge",
    manifest: Path | None = None,
    offline: bool = False,
    progress: rows.Progress | None = None,
) -> dict[str, Any]:
    """Evaluate folders of saved counterfactuals or manifests of pairs, each ``PATH`` or ``NAME=PATH``, one a method.

    Null edits among them are what the others are compared with. ``manifest`` tells patients and region masks of the images.
    The judge must not have guided or chosen any edit. Writes ``report.html``; goes on where it was killed.

    Raises:
        WordsError: the judge is no classifier, or two sources have one name.
        DataError: a source holds no pairs, or none that can be read.
    """
    opened, known = open_space(judge, offline=offline), by_stem(manifest)
    chosen = [named(text) for text in sources]
    distinct(chosen)
    table: list[rows.Row] = []
    failed: list[str] = []
    for name, source in chosen:
        good, bad = _seen(name, source, known, opened, folder / "work", progress)
        table += good
        failed += bad
    if not table:
        raise DataError(f"no pair can be read; the first: {failed[0]}")
    groups = _groups(table, opened.labels)
    lines = [_line(key, group) for key, group in groups.items()]
    summary = rows.plain(
        {
            "judge": opened.name,
            "rows": lines,
            "paired": _paired(groups),
            "warnings": _warnings(lines, opened),
            "failed": failed,
        }
    )
    write_edits_page(summary, groups, folder / "report.html")
    return summary


def _seen(
    name: str, source: Path, known: Mapping[str, Any], space: Space, folder: Path, progress: rows.Progress | None
) -> tuple[list[rows.Row], list[str]]:
    """A row a pair of one source, and what could not be read."""
    total, key = identity(source, known)
    index = folder / f"edits-{space.name}-{space.key}-{key}.jsonl"
    store = Store(index.with_suffix(".f32"), 2 * space.dimensions)

    def work(group: Sequence[Pair]) -> list[rows.Row]:
        out: list[rows.Row] = []
        for pair in group:
            try:
                row, features = _measure(open_pair(pair), space)
            except (ImageError, DataError, ValueError) as error:
                out.append({"error": f"{name}, {pair.stem}: {error}"})
                continue
            store.append(features)
            out.append({"stem": pair.stem, "patient": pair.patient, "files": [str(p) for p in pair.files]} | row)
        return out

    def begin(done: int) -> None:
        store.keep(good_rows(index, done))

    rows.fill(index, pairs(source, known), work, total=total, progress=progress, begin=begin)
    good = [row | {"source": name} for row in rows.read(index) if "error" not in row]
    if good:
        _identify(good, store.values(len(good)))
    return good, [row["error"] for row in rows.read(index) if "error" in row]


def _measure(pair: Opened, space: Space) -> tuple[rows.Row, NDArray[np.float32]]:
    """The row of a pair, and the features (1, 2 D) of factual and counterfactual."""
    import torch

    features = space(torch.stack([square(pair.factual, space), square(pair.counterfactual, space)]))
    told = space.read(features).detach().numpy() if space.read else np.zeros((2, 0), np.float32)
    a, b = pair.factual.unit(), pair.counterfactual.unit()
    kept = measures.identity_l1(a, b, pair.region)
    noise = psnr(a, b)
    row = {
        "changes": [list(change) for change in pair.changes],
        "null": pair.null,
        "before": told[0].tolist(),
        "after": told[1].tolist(),
        "l1": kept["whole"],
        "l1_inside": kept.get("inside", float("nan")),
        "l1_outside": kept.get("outside", float("nan")),
        "proximity": measures.proximity(a, b),
        "sparsity": measures.sparsity(a, b),
        "ssim": ssim(a, b),
        "ms_ssim": ms_ssim(a, b) if min(a.shape[:2]) > 160 else float("nan"),
        "psnr": noise if np.isfinite(noise) else float("nan"),
        "evaluations": pair.evaluations,
        "seconds": pair.seconds,
    }
    return row, features.reshape(1, -1).numpy()


def _identify(good: Sequence[rows.Row], features: NDArray[np.float32]) -> None:
    """Set ``identity``: is the counterfactual nearer to its factual than images of other patients are?"""
    half = features.shape[1] // 2
    some = np.sort(np.random.default_rng(0).permutation(len(good))[:STRANGERS])
    strangers, owners = np.asarray(features[some, :half], np.float64), [good[i]["patient"] for i in some]
    for i, row in enumerate(good):
        others = strangers[[owner != row["patient"] for owner in owners]]
        own = np.asarray(features[i : i + 1], np.float64)
        kept = measures.identity_kept(own[:, :half], own[:, half:], others) if len(others) else [float("nan")]
        row["identity"] = float(kept[0])


Key = tuple[str, str, str]


def _groups(table: Sequence[rows.Row], labels: Sequence[str]) -> dict[Key, list[rows.Row]]:
    """The rows of every (source, finding, direction) with what the judge says of that change.

    A null edit answers every question that the other sources ask of the same image.
    """
    asked: dict[str, list[tuple[str, str]]] = {}
    for row in table:
        for change in row["changes"]:
            asked.setdefault(row["stem"], []).append((change[0], change[1]))
    out: dict[Key, list[rows.Row]] = {}
    for row in table:
        changes = [tuple(change) for change in row["changes"]] or [OTHER]
        if row["null"]:
            changes = list(dict.fromkeys(asked.get(row["stem"], []))) or [("(null)", "")]
        for finding, direction in changes:
            out.setdefault((row["source"], finding, direction), []).append(
                row | _judged(row, finding, direction, labels)
            )
    return out


def _judged(row: rows.Row, finding: str, direction: str, labels: Sequence[str]) -> dict[str, float]:
    column = column_of(finding, labels)
    if column is None or not direction:
        return dict.fromkeys(JUDGED, float("nan"))
    before, after = np.array([row["before"]]), np.array([row["after"]])
    wanted = np.array([direction == "add"])
    told = before[:, column], after[:, column], wanted
    asked = np.arange(len(labels))[None] == column
    values = {
        "gain": measures.prediction_gain(*told),
        "flip_rate": measures.flipped(*told),
        "validity": measures.valid(after[:, column], wanted),
        "effectiveness": np.abs(wanted - after[:, column]),
        "side_effect": measures.side_effect(before, after, asked),
    }
    return {name: float(value[0]) for name, value in values.items()}


def column_of(finding: str, labels: Sequence[str]) -> int | None:
    """The judge's label that tells of a finding; a single device is told of by "support devices" where it has no own."""
    from counterscan.language.vocabulary import DEVICES

    name = "support devices" if finding in DEVICES and finding not in labels else finding
    return labels.index(name) if name in labels else None


def _line(key: Key, group: Sequence[rows.Row]) -> dict[str, Any]:
    """The means of one source and change."""
    patients = [row["patient"] for row in group]
    facts: dict[str, Any] = dict(zip(("source", "finding", "direction"), key, strict=True))
    facts |= {"null": all(row["null"] for row in group), "n": len(group), "patients": len(set(patients))}
    for name in (*JUDGED, *PRESERVED, "evaluations", "seconds"):
        values = [row[name] for row in group]
        facts[name] = None if np.isnan(values).all() else asdict(interval(values, patients))
    return facts


def _paired(groups: Mapping[Key, Sequence[rows.Row]]) -> list[dict[str, Any]]:
    """Every two sources on the same change of the same images."""
    out = []
    for a, b in combinations(groups, 2):
        if a[1:] != b[1:] or a[0] == b[0]:
            continue
        first, second = ({row["stem"]: row for row in groups[key]} for key in (a, b))
        shared = [stem for stem in first if stem in second]
        for name in COMPARED:
            x, y = (np.array([each[stem][name] for stem in shared]) for each in (first, second))
            if len(shared) < 2 or np.isnan(x - y).all():
                continue
            test = paired(x, y, [first[stem]["patient"] for stem in shared])
            facts = {"a": a[0], "b": b[0], "finding": a[1], "direction": a[2], "measure": name}
            out.append(facts | {"difference": asdict(test.difference), "p": test.p})
    return out


def _warnings(lines: Sequence[Mapping[str, Any]], judge: Space) -> list[str]:
    unknown = sorted({str(line["finding"]) for line in lines if line["gain"] is None and line["direction"]})
    out = [f"{name}: the judge {judge.name} has no such label, so nothing is said of the change" for name in unknown]
    few = min(line["patients"] for line in lines)
    if few < ROUGH:
        out.append(f"the smallest group has {few} patients: under {ROUGH}, bootstrap intervals are too narrow")
    if not any(line["null"] for line in lines):
        out.append("no null edits among the sources: part of every gain may be what the method does anyway")
    return out
