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
from counterscan.evaluate.groups import COSTS, JUDGED, PRESERVED, Group, Key, Seen, grouped
from counterscan.evaluate.pairs import Opened, Pair, by_stem, distinct, identity, named, open_pair, pairs
from counterscan.evaluate.spaces import Space, open_space
from counterscan.metrics import counterfactual as measures
from counterscan.metrics.intervals import interval, paired
from counterscan.metrics.similarity import ms_ssim, psnr, ssim

COMPARED = ("gain", "l1", "ssim")  # of methods on the same images
STRANGERS = 200  # images that a counterfactual must not be mistaken for
ROUGH = 20  # patients under which an interval says little


def edits(
    sources: Sequence[str],
    folder: Path,
    *,
    judge: str | Space = "chest-nih-judge",
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
    seen = [_seen(name, source, known, opened, folder / "work", progress) for name, source in chosen]
    failed = [reason for each in seen for reason in each.failed]
    if not any(len(each.identity) for each in seen):
        raise DataError(f"no pair can be read; the first: {failed[0]}")
    groups = grouped(seen, opened.labels)
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
) -> Seen:
    """A row a pair of one source, on disk."""
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
    patients = [row["patient"] for row in rows.read(index) if "error" not in row]
    failed = [row["error"] for row in rows.read(index) if "error" in row]
    kept = _identity(patients, store.values(len(patients))) if patients else np.empty(0)
    return Seen(name, index, kept, failed)


def _measure(pair: Opened, space: Space) -> tuple[rows.Row, NDArray[np.float32]]:
    """The row of a pair, and the features (1, 2 D) of factual and counterfactual."""
    import torch

    features = space(torch.stack([square(pair.factual, space), square(pair.counterfactual, space)]))
    told = space.read(features).detach().numpy() if space.read else np.zeros((2, 0), np.float32)
    a, b = pair.factual.unit(), pair.counterfactual.unit()
    kept = measures.identity_l1(a, b, pair.region)
    noise = psnr(a, b)
    row = {
        "image": pair.image,
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


def _identity(patients: Sequence[str], features: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,): is the counterfactual nearer to its factual than images of other patients are?"""
    half, out = features.shape[1] // 2, np.full(len(patients), np.nan)
    some = np.sort(np.random.default_rng(0).permutation(len(patients))[:STRANGERS])
    strangers, owners = np.asarray(features[some, :half], np.float64), [patients[i] for i in some]
    for i, patient in enumerate(patients):
        others = strangers[[owner != patient for owner in owners]]
        own = np.asarray(features[i : i + 1], np.float64)
        if len(others):
            out[i] = measures.identity_kept(own[:, :half], own[:, half:], others)[0]
    return out


def _line(key: Key, group: Group) -> dict[str, Any]:
    """The means of one source and change."""
    facts: dict[str, Any] = dict(zip(("source", "finding", "direction"), key, strict=True))
    facts |= {"null": group.null, "n": len(group), "patients": len(set(group.patients))}
    for name in (*JUDGED, *PRESERVED, *COSTS):
        unknown = np.isnan(group[name]).all()
        facts[name] = None if unknown else asdict(interval(group[name], group.patients))
    return facts


def _paired(groups: Mapping[Key, Group]) -> list[dict[str, Any]]:
    """Every two sources on the same change of the same images."""
    out = []
    for a, b in combinations(groups, 2):
        if a[1:] != b[1:] or a[0] == b[0]:
            continue
        first, second = groups[a], groups[b]
        there = second.places()
        both = [
            pair for image, some in first.places().items() for pair in zip(some, there.get(image, ()), strict=False)
        ]
        here, same = [k for k, _ in both], [k for _, k in both]
        patients = [first.patients[k] for k in here]
        for name in COMPARED:
            x, y = first[name][here], second[name][same]
            if len(here) < 2 or np.isnan(x - y).all():
                continue
            test = paired(x, y, patients)
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
