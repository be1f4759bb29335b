"""The page of ``evaluate edits``: the table, paired tests, gain against change, and the best, median and worst edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterscan.evaluate import page
from counterscan.evaluate.pairs import Pair, open_pair

COLUMNS = (
    "gain", "flip_rate", "validity", "side_effect", "l1", "l1_inside", "l1_outside", "proximity", "sparsity", "ssim",
    "ms_ssim", "psnr", "identity",
)  # fmt: skip


def write_edits_page(summary: Mapping[str, Any], groups: Mapping[Any, Sequence[Mapping[str, Any]]], path: Path) -> None:
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
    parts += [_cases(key, group) for key, group in groups.items() if not group[0]["null"]]
    about = (
        f"Judge: {summary['judge']}. gain is its mean move toward what was asked; l1, proximity and ssim are between original "
        "and counterfactual at the original's size. identity: the share of other patients farther away than the counterfactual."
    )
    page.write_page(path, "Edits", about, [*summary["warnings"], *summary["failed"]], parts)


def _plot(groups: Mapping[Any, Sequence[Mapping[str, Any]]]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [" ".join(key) for key in groups]
    left.boxplot(
        [[r["gain"] for r in group if r["gain"] == r["gain"]] for group in groups.values()], orientation="horizontal"
    )
    left.set_yticks(range(1, len(names) + 1), names, fontsize=7)
    left.axvline(0, color="grey", linewidth=0.8)
    left.set(xlabel="gain")
    for name, group in zip(names, groups.values(), strict=True):
        right.scatter([r["l1"] for r in group], [r["gain"] for r in group], s=8, label=name)
    right.set(xlabel="mean absolute change", ylabel="gain")
    right.legend(fontsize=7)
    return page.plot(figure)


def _cases(key: Any, group: Sequence[Mapping[str, Any]]) -> str:
    scores = [r["gain"] if r["gain"] == r["gain"] else -r["l1"] for r in group]
    parts = []
    for name, places in page.best_median_worst(scores).items():
        parts.append(f"<h3>{name}</h3>" + "".join(_case(group[i]) for i in places))
    return page.section(" ".join(key), *parts)


def _case(row: Mapping[str, Any]) -> str:
    """Original, counterfactual and the signed difference."""
    from counterscan.drawing import difference_scale, signed_map

    pair = open_pair(Pair(row["stem"], row["patient"], tuple(Path(p) for p in row["files"])))
    a, b = pair.factual.unit(), pair.counterfactual.unit()
    change = b - a if a.ndim == 2 else (b - a).mean(2)
    caption = f"{row['stem']}: gain {page.cell(row['gain'])}, mean change {row['l1']:.4f}"
    return page.case([a, b, signed_map(change, difference_scale(change))], caption)
