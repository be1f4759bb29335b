"""The page of ``evaluate edits``: the table, paired tests, gain against change, and the best, median and worst edits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from counterscan.evaluate import page
from counterscan.evaluate.groups import Group, Key
from counterscan.evaluate.pairs import Pair, open_pair

COLUMNS = (
    "gain", "flip_rate", "validity", "side_effect", "l1", "l1_inside", "l1_outside", "proximity", "sparsity", "ssim",
    "ms_ssim", "psnr", "identity",
)  # fmt: skip


def write_edits_page(summary: Mapping[str, Any], groups: Mapping[Key, Group], path: Path) -> None:
    """Write the report of the summary; ``groups`` are its rows, image by image."""
    named = [c for c in COLUMNS if any(line[c] for line in summary["rows"])]
    facts = ("source", "finding", "direction", "n")
    lines = [[line[c] for c in (*facts, *named)] for line in summary["rows"]]
    parts = [page.section("Means", page.table((*facts, *named), lines))]
    if summary["paired"]:
        head = ("a", "b", "finding", "direction", "measure", "difference", "p")
        tests = [[line[c] for c in head] for line in summary["paired"]]
        words = "Sign-flip tests by patient, of a minus b, on the images that both edited."
        parts.append(page.section("Paired tests", page.text(words), page.table(head, tests)))
    parts.append(page.section("Gain against change", _plot(groups)))
    parts += [_cases(key, group) for key, group in groups.items() if not group.null]
    about = (
        f"Judge: {summary['judge']}. gain is its mean move toward what was asked; l1, proximity and ssim are between original "
        "and counterfactual at the original's size. identity: the share of other patients farther away than the counterfactual."
    )
    page.write_page(path, "Edits", about, [*summary["warnings"], *summary["failed"]], parts)


def _plot(groups: Mapping[Key, Group]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [" ".join(key) for key in groups]
    gains = [group["gain"] for group in groups.values()]
    left.boxplot([values[~np.isnan(values)] for values in gains], orientation="horizontal")
    left.set_yticks(range(1, len(names) + 1), names, fontsize=7)
    left.axvline(0, color="grey", linewidth=0.8)
    left.set(xlabel="gain")
    for name, group in zip(names, groups.values(), strict=True):
        right.scatter(group["l1"], group["gain"], s=8, label=name)
    right.set(xlabel="mean absolute change", ylabel="gain")
    right.legend(fontsize=7)
    return page.plot(figure)


def _cases(key: Key, group: Group) -> str:
    gains = group["gain"]
    parts = []
    for name, places in page.best_median_worst(-group["l1"] if np.isnan(gains).all() else gains).items():
        parts.append(f"<h3>{name}</h3>" + "".join(_case(group, i) for i in places))
    return page.section(" ".join(key), *parts)


def _case(group: Group, i: int) -> str:
    """Original, counterfactual and the signed difference."""
    from counterscan.drawing import difference_scale, signed_map

    pair = open_pair(Pair(group.stems[i], group.patients[i], tuple(Path(p) for p in group.files[i])))
    a, b = pair.factual.unit(), pair.counterfactual.unit()
    change = b - a
    if change.ndim == 3:  # that of the channel that changes most: a mean hides what is darker here and brighter there
        change = np.take_along_axis(change, np.abs(change).argmax(2)[..., None], 2)[..., 0]
    caption = f"{group.stems[i]}: gain {page.cell(float(group['gain'][i]))}, mean change {group['l1'][i]:.4f}"
    return page.case([a, b, signed_map(change, difference_scale(change))], caption)
