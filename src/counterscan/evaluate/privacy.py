"""Are generated images copies of training images, and does the model know which images it was trained on?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from counterscan.errors import DataError, WordsError
from counterscan.evaluate import page, rows
from counterscan.evaluate.features import Extracted, extract
from counterscan.evaluate.losses import losses
from counterscan.evaluate.sources import identity
from counterscan.evaluate.spaces import Space, open_space
from counterscan.evaluate.twins import Gallery, find_twins, pixel_space
from counterscan.metrics.copies import RESAVED, copy_threshold
from counterscan.metrics.intervals import interval
from counterscan.metrics.membership import membership

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone

LISTED, SHOWN = 100, 12  # near-duplicate pairs in the summary, and on the page
MEMBERS = 200  # images of a kind whose losses are compared
Source = tuple[Path, str | None]


def privacy(
    generated: Path,
    train: Path,
    folder: Path,
    *,
    held_out: Path | None = None,
    space: str | Space = "chest-nih-judge",
    rate: float = 0.01,
    model: str | Backbone | None = None,
    members: int = MEMBERS,
    offline: bool = False,
    progress: rows.Progress | None = None,
) -> dict[str, Any]:
    """Look for training images among generated ones. Writes ``report.html``; goes on where it was killed.

    Candidates are the nearest training images by pixels, by pixels of the mirror image and by features of ``space``; each is
    laid over the image (:func:`counterscan.metrics.copies.correlate`). A copy is what is more alike than at most a share
    ``rate`` of honest images are, judged by held-out real ones (:func:`counterscan.metrics.copies.copy_threshold`), or than
    resaved copies are. Without
    ``held_out``, ``train`` is a manifest whose splits train and test are the two. With ``model``, a membership test compares
    its losses.

    Raises:
        WordsError: a rate outside (0, 1), or nothing held out.
        DataError: fewer than two images of a kind.
    """
    if not 0 < rate < 1:
        raise WordsError(f"the rate of honest images flagged lies between 0 and 1, got {rate}")
    if held_out is None and train.is_dir():
        raise WordsError(f"{train}: is a folder; name real images that were not trained on with --held-out")
    kinds: dict[str, Source] = {
        "train": (train, None if held_out else "train"),
        "held_out": (held_out, None) if held_out else (train, "test"),
        "generated": (generated, None),
    }
    opened, work = open_space(space, offline=offline), folder / "work"
    found = {name: _both(source, opened, work, progress) for name, source in kinds.items()}
    if len(set(found["held_out"][0].patients)) < 2:
        raise DataError("a copy rate needs held-out images of at least 2 patients, of 100 for a rate of 1 %")
    gallery = Gallery(*found["train"], _files(found["train"][0].index))
    twins = {}
    for name in ("held_out", "generated"):
        key = "-".join(identity(*kinds[each])[1] for each in (name, "train"))
        twins[name] = find_twins(
            work / f"twins-{opened.name}-{opened.key}-{key}.jsonl", *found[name], gallery, progress
        )
    told = None if model is None else _members(model, kinds, work, members, offline, progress)
    summary = rows.plain(_summary(twins, found, rate, opened.name) | {"membership": told})
    _write(summary, twins, folder / "report.html")
    return summary


def _both(source: Source, space: Space, work: Path, progress: rows.Progress | None) -> tuple[Extracted, Extracted]:
    """Descriptors and features of the images of a kind."""
    path, split = source
    return (
        extract(path, pixel_space(), work, split=split, progress=progress),
        extract(path, space, work, split=split, progress=progress),
    )


def _files(index: Path) -> list[tuple[Path, ...]]:
    return [tuple(map(Path, row["files"])) for row in rows.read(index) if "error" not in row]


def _summary(twins: dict[str, list[rows.Row]], found: dict[str, Any], rate: float, space: str) -> dict[str, Any]:
    honest = twins["held_out"]
    strangers = [row["patient"] for row in honest]
    safe = copy_threshold([row["similarity"] for row in honest], rate, strangers)
    threshold = min(safe, RESAVED)
    near = float(np.quantile([row["distance"] for row in honest], rate))
    made = twins["generated"]
    copied = [float(row["similarity"] > threshold) for row in made]
    close = [float(row["distance"] < near) for row in made]
    owners = [row["patient"] for row in made]
    flagged = sorted((row for row in made if row["similarity"] > threshold), key=lambda row: -row["similarity"])
    warnings = []
    if len(set(strangers)) < 1 / rate:
        warnings.append(
            f"{len(set(strangers))} held-out patients: a rate of {rate:g} is extrapolated, it can be seen with "
            f"{int(np.ceil(1 / rate))} or more"
        )
    if threshold < safe:
        warnings.append(
            f"the threshold is capped at {threshold:g}, which resaved copies reach; the held-out images ask for {safe:.3f}. "
            f"Altered copies may be missed, and more than {rate:g} of honest images flagged"
        )
    return {
        "images": {name: len(both[0].values) for name, both in found.items()},
        "rate": rate,
        "threshold": threshold,
        "copy_rate": asdict(interval(copied, owners)),
        f"near in features/{space}": asdict(interval(close, owners)) | {"threshold": near},
        "copies": [
            {key: row[key] for key in ("name", "path", "twin", "similarity", "caption")} for row in flagged[:LISTED]
        ],
        "prompts": _prompts(made, threshold),
        "warnings": warnings,
        "failed": [reason for both in found.values() for reason in both[0].failed],
    }


def _prompts(made: Sequence[rows.Row], threshold: float) -> list[dict[str, Any]]:
    """The prompts that reproduced a training image, how often, and which; the worst first."""
    out: dict[str, dict[str, Any]] = {}
    for row in made:
        if row["caption"]:
            line = out.setdefault(row["caption"], {"prompt": row["caption"], "images": 0, "copies": 0, "of": []})
            line["images"] += 1
            if row["similarity"] > threshold:
                line["copies"] += 1
                line["of"].append(row["twin"])
    return sorted((line for line in out.values() if line["copies"]), key=lambda line: -line["copies"] / line["images"])


def _members(
    model: str | Backbone,
    kinds: dict[str, Source],
    work: Path,
    most: int,
    offline: bool,
    progress: rows.Progress | None,
) -> dict[str, Any]:
    from counterscan.backbones import load

    backbone = load(model, offline=offline) if isinstance(model, str | Path) else model
    known, others = (
        losses(backbone, source, work, split=split, most=most, progress=progress)
        for source, split in (kinds["train"], kinds["held_out"])
    )
    told = membership(known, others)
    return {
        "model": backbone.card.name,
        "auroc": asdict(told.auroc),
        "found_at_1_percent": told.found_at_1_percent,
        "images": [len(known), len(others)],
    }


def _write(summary: dict[str, Any], twins: dict[str, list[rows.Row]], path: Path) -> None:
    images, told = summary["images"], summary["membership"]
    about = (
        f"{images['generated']} generated images against {images['train']} training images; {images['held_out']} held-out real "
        f"images set the threshold, {summary['threshold']:.3f}, so that {summary['rate']:.1%} of honest images are flagged."
    )
    lines = [(name, value) for name, value in summary.items() if isinstance(value, dict) and "mean" in value]
    if told:
        lines.append((f"membership AUROC of {told['model']} (0.5: none)", told["auroc"]))
        lines.append(("members found where 1 % of others are taken for one", told["found_at_1_percent"]))
    alike = sorted(twins["generated"], key=lambda row: -row["similarity"])
    parts = [
        page.section("Rates", page.table(("rate", "value"), lines), _plot(summary, twins)),
        page.section("The pairs most alike", *(_pair(row, summary["threshold"]) for row in alike[:SHOWN])),
    ]
    if summary["prompts"]:
        table = [(line["prompt"], line["copies"], line["images"]) for line in summary["prompts"]]
        parts.append(
            page.section("Prompts that reproduce training images", page.table(("prompt", "copies", "images"), table))
        )
    page.write_page(path, "Privacy", about, summary["warnings"] + summary["failed"], parts)


def _plot(summary: dict[str, Any], twins: dict[str, list[rows.Row]]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    values = [[row["similarity"] for row in some] for some in twins.values()]
    axes.hist(values, bins=40, density=True, label=["held-out real", "generated"])
    axes.axvline(summary["threshold"], color="tab:red", label="threshold")
    axes.set(xlabel="similarity to the most alike training image", ylabel="density")
    axes.legend()
    return page.plot(figure)


def _pair(row: rows.Row, threshold: float) -> str:
    from counterscan.imaging import read

    verdict = "copy" if row["similarity"] > threshold else "no copy"
    images = [read(Path(row["path"])).unit(), read(Path(row["twin"])).unit()]
    return page.case(images, f"{row['name']} and {Path(row['twin']).name}: {row['similarity']:.3f}, {verdict}")
