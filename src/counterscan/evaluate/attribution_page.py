"""The page of ``evaluate attribution``: the table, paired tests, and the best, median and worst maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from counterscan.evaluate import page
from counterscan.evaluate.localise import MEASURES, load_map
from counterscan.evaluate.mapping import REMOVAL

PRESENCE = ("false_alarms", "sensitivity")


def write_attribution_page(
    summary: Mapping[str, Any], images: Mapping[str, Sequence[Mapping[str, Any]]], work: Path, path: Path
) -> None:
    """Write the report of the summary; ``images`` are the scores behind it, map by map."""
    columns = [c for c in ("auprc_pooled", *MEASURES, "error_ranking", *PRESENCE) if any(r[c] for r in summary["rows"])]
    table = page.table(("map", "n", *columns), [[row[c] for c in ("map", "n", *columns)] for row in summary["rows"]])
    head = ("a", "b", "measure", "difference", "p")
    tests = page.table(head, [[row[c] for c in head] for row in summary["paired"]])
    about = (
        f"{summary['finding']} by {summary['model']}, peers of {summary['judge']}: {summary['n']['test_located']} images whose "
        f"finding has a known place, {summary['n']['test_without']} without it. False alarms were asked to be "
        f"{summary['rate']:.0%}. dice_best is an upper bound: its threshold was chosen on these images."
    )
    parts = [page.section("Means", table), page.section("Paired tests", tests), page.section("AUPRC", _plot(images))]
    for kind, places in page.best_median_worst([row["auprc"] for row in images[REMOVAL]]).items():
        parts.append(page.section(kind, *(_case(images, i, work) for i in places)))
    page.write_page(
        path, f"Attribution of {summary['finding']}", about, [*summary["warnings"], *summary["failed"]], parts
    )


def _plot(images: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    axes.boxplot(
        [[r["auprc"] for r in rows if r["auprc"] == r["auprc"]] for rows in images.values()], orientation="horizontal"
    )
    axes.set_yticks(range(1, len(images) + 1), list(images))
    axes.set(xlabel="AUPRC of an image", xlim=(0, 1))
    return page.plot(figure)


def _case(images: Mapping[str, Sequence[Mapping[str, Any]]], i: int, work: Path) -> str:
    """The image, and the map of every kind, each from its own least to its own most."""
    from counterscan.imaging import read

    row = images[REMOVAL][i]
    maps = [load_map(work / row["maps"], name) for name in images]
    shown = [heat / max(float(np.max(heat)), 1e-12) for heat in maps]
    told = ", ".join(f"{name} {page.cell(rows[i]['auprc'])}" for name, rows in images.items())
    return page.case([read(row["path"]).unit(), *shown], f"{row['name']}; AUPRC: {told}")
