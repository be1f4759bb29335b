"""Pages and plots of the robustness studies."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from counterscan.imaging.files import replacing
from counterscan.robustness.stress import Effect

if TYPE_CHECKING:
    from counterscan.result import Counterfactual
    from counterscan.robustness.study import Seen

FLIPS = 6  # pictures an edit
SIDE = 192  # pixels of a picture
STYLE = """body{background:#0b0e13;color:#d5dce5;font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;
padding:0 1rem}table{border-collapse:collapse;width:100%;font-size:.88rem}
td,th{padding:.25rem .6rem;border-bottom:1px solid #232b37;text-align:right}td:first-child,td:nth-child(2),td:nth-child(3),
th:first-child,th:nth-child(2),th:nth-child(3){text-align:left}img{width:384px}figure{display:inline-block;margin:.4rem}
.strong{color:#ff8c40;font-weight:600}.dim{color:#8b98a8}"""


def stress_page(
    order: Sequence[Effect],
    rows: Sequence[Effect],
    labels: Sequence[str],
    shown: Mapping[str, tuple[Seen, Sequence[Path]]],
    folder: Path,
) -> Path:
    """``report.html``: the ranking, the subgroups, and pictures of the decisions that turned the most.

    ``shown`` are what was seen under each edit, and the files that :func:`save_view` wrote of these images.
    """
    columns = ("edit", "output", "group", "n", "change", "95 %", "null edit", "flips")
    head = "<tr>" + "".join(f"<th>{column}</th>" for column in columns) + "</tr>"
    groups = [r for r in rows if r.group != "all" and r.distinct]
    pictures = "".join(_flips(name, labels, *seen) for name, seen in shown.items())
    text = (
        f"<!doctype html><meta charset=utf-8><title>Stress test</title><style>{STYLE}</style><h1>Stress test</h1>"
        "<p>The change of each output's probability when one thing is edited, beside that under the null edit. "
        "Orange: outside what the null edit does.</p>"
        f"<table>{head}{''.join(map(_line, order))}</table><h2>Subgroups that stand out</h2><table>{head}"
        f"{''.join(map(_line, groups))}</table><h2>Decisions that moved most</h2>{pictures}"
        '<p class="dim">Counterfactuals are synthetic and not for diagnosis.</p>'
    )
    path, draft = folder / "report.html", folder / f".report.html.{os.getpid()}"
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
    return path


def _line(r: Effect) -> str:
    numbers = (str(r.n), f"{r.change:+.3f}", f"{r.low:+.3f} to {r.high:+.3f}", f"{r.null:+.3f}", f"{r.flips:.0%}")
    cells = "".join(f"<td>{html.escape(text)}</td>" for text in (r.edit, r.output, r.group, *numbers))
    return f'<tr class="{"strong" if r.distinct else ""}">{cells}</tr>'


def _flips(name: str, labels: Sequence[str], seen: Seen, views: Sequence[Path]) -> str:
    moved = seen.after - seen.before
    order = np.argsort(-np.abs(moved).max(axis=1))[:FLIPS]
    parts = []
    for i in order:
        k = int(np.abs(moved[i]).argmax())
        words = html.escape(f"{labels[k]} {seen.before[i, k]:.2f} → {seen.after[i, k]:.2f}")
        data = base64.b64encode(views[i].read_bytes()).decode()
        image = f'<img alt="{words}" src="data:image/png;base64,{data}">'
        parts.append(f"<figure>{image}<figcaption>{words}</figcaption></figure>")
    return f"<h3>{html.escape(name)}</h3>{''.join(parts)}"


def save_view(result: Counterfactual, path: Path) -> None:
    """A small grey view of factual and counterfactual, side by side, for :func:`stress_page`."""
    from PIL import Image

    from counterscan.imaging import fit

    squares = [fit(picture.unit(), SIDE)[0] for picture in (result.factual, result.counterfactual)]
    both = np.hstack([square if square.ndim == 2 else square.mean(2) for square in squares])
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        Image.fromarray((both * 255).round().astype(np.uint8)).save(draft, "PNG")


def heat_map(
    effect: NDArray[np.float64], edits: Sequence[str], outputs: Sequence[str], path: Path, caption: str
) -> Path:
    """The matrix of edits and outputs as a picture over its caption, blue less, red more."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.5 + 0.7 * len(outputs), 1.8 + 0.5 * len(edits)), layout="constrained")
    axes = figure.subplots()
    reach = max(float(np.abs(effect).max()), 1e-3)
    shown = axes.imshow(effect, cmap="RdBu_r", vmin=-reach, vmax=reach)
    axes.set_xticks(range(len(outputs)), outputs, rotation=40, ha="right")
    axes.set_yticks(range(len(edits)), edits)
    for i, j in np.ndindex(effect.shape):
        ink = "white" if abs(effect[i, j]) > reach / 2 else "black"
        axes.text(j, i, f"{effect[i, j]:+.2f}", ha="center", va="center", fontsize=8, color=ink)
    figure.supxlabel(caption, fontsize=9)
    figure.colorbar(shown, label="change less that of the null edit")
    draft = path.with_name(f".{os.getpid()}.{path.name}")
    figure.savefig(draft, dpi=150, format="png", bbox_inches="tight")
    os.replace(draft, path)
    return path
