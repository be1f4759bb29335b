"""A bench as people read it: a table, a plot of speed against fidelity, and the contact sheets."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from counterscan.metrics.intervals import Interval, combined

ERRORS = ("error_inside", "drift_outside", "drift_composited")
COLUMNS = (
    *ERRORS,
    "mask_auprc",
    "mask_dice",
    "flip_rate",
    "side_right",
    "place_right",
    "evaluations",
    "seconds_per_image",
)
DIFFERENCE = "error_inside_difference"  # from the first method, on the same cases
MEASURED = ("error_inside", "drift_outside", "flip_rate")  # have `_low` and `_high` beside them, as the difference
ALL = "all findings"
NOTE = (
    "In brackets: 95 % bootstrap intervals over cases, without width where all cases agree; those of all findings are put "
    "together from each finding's."
)
PAIRED = (
    "The error inside, less that of the first method on the same cases (below 0: nearer to the truth), and the p-value of a "
    "sign-flip test."
)
STYLE = """body{background:#0b0e13;color:#d5dce5;font:15px/1.5 system-ui,sans-serif;max-width:1200px;margin:2rem auto;
padding:0 1rem}
table{border-collapse:collapse;width:100%;font-size:.85rem}
td,th{padding:.25rem .5rem;border-bottom:1px solid #232b37;text-align:right}
td:nth-child(-n+3),th:nth-child(-n+3){text-align:left}img{max-width:100%;border-radius:8px}tr.mean{font-weight:600;color:#fff}
.dim{color:#8b98a8}"""


def stem(row: Mapping[str, Any]) -> str:
    """What a row's files are called: ``diffusers-img2img-lung-nodule-add``."""
    return "-".join(row[key] for key in ("method", "finding", "direction")).replace(" ", "-").replace(":", "-")


def means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a method and direction: the mean over findings of every column that is known, and the limits of that mean."""
    out = []
    for method, direction in dict.fromkeys((row["method"], row["direction"]) for row in rows):
        some = [row for row in rows if (row["method"], row["direction"]) == (method, direction)]
        known = {c: [row for row in some if row.get(c) is not None] for c in (*COLUMNS, DIFFERENCE)}
        facts: dict[str, Any] = {"method": method, "finding": ALL, "direction": direction}
        facts |= {c: float(np.mean([row[c] for row in having])) if having else None for c, having in known.items()}
        for column in (*MEASURED, DIFFERENCE):
            facts |= _together(column, known[column])
        out.append(facts)
    return out


def limit_keys(column: str, found: Interval) -> dict[str, float | None]:
    """The limits of a column as a row keeps them: null where there are none."""
    ends = {f"{column}_low": found.low, f"{column}_high": found.high}
    return {key: None if np.isnan(end) else end for key, end in ends.items()}


def _together(column: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The limits of a column's mean over rows; nothing where a row has none, as those of an older run."""
    keys = column, f"{column}_low", f"{column}_high"
    if not rows or any(row.get(key) is None for row in rows for key in keys):
        return {}
    parts = [Interval(row[column], row[keys[1]], row[keys[2]], row["n"], row["n"]) for row in rows]
    return limit_keys(column, combined(parts))


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table, the means last; below it the methods compared, where there are several."""
    compared = comparisons(rows)
    parts = [_markdown(lines(rows)), f"{NOTE}\n", *([f"{PAIRED}\n", _markdown(compared)] if compared else [])]
    return "\n".join(parts)


def lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The cells of the table, its head first and the means last."""
    out = [["method", "finding", "direction", *COLUMNS]]
    for row in [*rows, *means(rows)]:
        out.append([row["method"], row["finding"], row["direction"], *(_cell(row, c) for c in COLUMNS)])
    return out


def comparisons(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The cells of the paired tests, as those of :func:`lines`; nothing where only one method ran."""
    tested = [row for row in rows if row.get(DIFFERENCE) is not None]
    if not tested:
        return []
    out = [["method", "finding", "direction", f"less that of {tested[0]['compared_with']}", "p"]]
    for row in [*tested, *means(tested)]:
        p = f"{row['p']:.2g}" if "p" in row else ""
        out.append([row["method"], row["finding"], row["direction"], _cell(row, DIFFERENCE), p])
    return out


def limits(row: Mapping[str, Any], column: str) -> str:
    """`` [0.29, 0.35]``, to be written behind a number; nothing where no interval is known."""
    low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
    if low is None or high is None:
        return ""
    digits = 2 if max(abs(low), abs(high)) >= 0.1 else 3
    return f" [{low:.{digits}f}, {high:.{digits}f}]"


def _markdown(table: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(line) + " |" for line in table]
    return "\n".join([head, "|" + " --- |" * len(table[0]), *body]) + "\n"


def _cell(row: Mapping[str, Any], column: str) -> str:
    return _number(row.get(column)) + limits(row, column)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.3f}"


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which (cost, error) points no other one beats in both, in rising order of cost."""
    order = sorted(range(len(points)), key=lambda i: points[i])
    best, front = float("inf"), []
    for i in order:
        if points[i][1] < best:
            best = points[i][1]
            front.append(i)
    return front


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Seconds an image against error inside, one point a method (mean over findings and directions)."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["method"] for row in rows))

    def point(name: str) -> tuple[float, float]:
        some = [row for row in rows if row["method"] == name]
        return float(np.mean([r["seconds_per_image"] for r in some])), float(np.mean([r["error_inside"] for r in some]))

    points = [point(name) for name in names]
    front = pareto(points)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([points[i][0] for i in front], [points[i][1] for i in front], color="tab:orange", label="Pareto front")
    for marker, theirs, label in (("o", False, None), ("s", True, "pipelines of diffusers")):
        some = [i for i, name in enumerate(names) if name.startswith("diffusers:") == theirs]
        if some:
            colours = ["tab:orange" if i in front else "tab:blue" for i in some]
            across, up = ([points[i][axis] for i in some] for axis in (0, 1))
            axes.scatter(across, up, color=colours, marker=marker, label=label)
    for name, at in zip(names, points, strict=True):
        axes.annotate(name, at, xytext=(5, 5), textcoords="offset points")
    axes.set(xscale="log", xlabel="seconds an image", ylabel="error inside the true change (0 exact, 1 nothing done)")
    axes.legend()
    draft = path.with_name(f".{os.getpid()}.{path.name}")
    figure.savefig(draft, dpi=150, format="png")
    os.replace(draft, path)
    return path


def page(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], folder: Path) -> Path:
    """``report.html``: the table, the plot and every contact sheet, referring to the files beside it."""
    compared = comparisons(rows)
    tables = _html(lines(rows)) + f'<p class="dim">{NOTE}</p>'
    tables += f'<h2>Compared</h2><p class="dim">{PAIRED}</p>{_html(compared)}' if compared else ""
    sheets = "".join(
        f"<h3>{html.escape(row['method'])}: {row['direction']} {html.escape(row['finding'])}</h3>"
        f'<img loading="lazy" alt="" src="cells/{html.escape(stem(row))}.png">'
        for row in rows
    )
    floor = facts["floor"]
    text = (
        f"<!doctype html><meta charset=utf-8><title>Counterscan bench</title><style>{STYLE}</style><h1>Bench</h1>"
        f"<p>{html.escape(facts['model'])} on the {html.escape(facts['world'])} world, {facts['n']} cases a cell. "
        f"The autoencoder alone has error {floor['error_inside']:.3f} and drift {floor['drift_outside']:.4f}.</p>"
        f'<img alt="seconds against error" src="speed.png">{tables}<p class="dim">Sheets: '
        f"factual, answer, truth, the answer's difference, the true difference. All are synthetic.</p>{sheets}"
    )
    path = folder / "report.html"
    draft = folder / f".report.html.{os.getpid()}"
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
    return path


def _html(table: Sequence[Sequence[str]]) -> str:
    head, *body = [[html.escape(cell) for cell in line] for line in table]
    rows = "".join(
        f'<tr class="{"mean" if line[1] == ALL else ""}">' + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>"
        for line in body
    )
    return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{rows}</table>"
