"""A bench as people read it: a table, a plot of speed against fidelity, and the contact sheets."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
    """One row a method and direction: the mean over findings of every column that is known."""
    out = []
    for method, direction in dict.fromkeys((row["method"], row["direction"]) for row in rows):
        some = [row for row in rows if (row["method"], row["direction"]) == (method, direction)]
        values = {c: [row[c] for row in some if row.get(c) is not None] for c in COLUMNS}
        facts = {"method": method, "finding": "all findings", "direction": direction}
        out.append(facts | {c: float(np.mean(v)) if v else None for c, v in values.items()})
    return out


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table, the means last."""
    head = ("method", "finding", "direction", *COLUMNS)
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in [*rows, *means(rows)]:
        words = [str(row[c]) for c in head[:3]]
        lines.append("| " + " | ".join(words + [_number(row.get(c)) for c in COLUMNS]) + " |")
    return "\n".join(lines) + "\n"


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
    head = "".join(f"<th>{html.escape(c)}</th>" for c in ("method", "finding", "direction", *COLUMNS))
    body = "".join(_line(row, "") for row in rows) + "".join(_line(row, "mean") for row in means(rows))
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
        f'<img alt="seconds against error" src="speed.png"><table><tr>{head}</tr>{body}</table><p class="dim">Sheets: '
        f"factual, answer, truth, the answer's difference, the true difference. All are synthetic.</p>{sheets}"
    )
    path = folder / "report.html"
    draft = folder / f".report.html.{os.getpid()}"
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
    return path


def _line(row: Mapping[str, Any], kind: str) -> str:
    words = [html.escape(str(row[c])) for c in ("method", "finding", "direction")]
    cells = "".join(f"<td>{cell}</td>" for cell in [*words, *(_number(row.get(c)) for c in COLUMNS)])
    return f'<tr class="{kind}">{cells}</tr>'
