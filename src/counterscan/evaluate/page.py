"""The report of an evaluation: one HTML file that needs no other."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.drawing import colour
from counterscan.imaging.files import replacing
from counterscan.metrics.intervals import Interval

SIDE = 192  # pixels of a picture
SHOWN = 4  # cases each of the best, the median and the worst
STYLE = """body{background:#0b0e13;color:#d5dce5;font:15px/1.5 system-ui,sans-serif;max-width:1120px;margin:2rem auto;
padding:0 1rem}table{border-collapse:collapse;width:100%;font-size:.88rem;margin:.6rem 0}
td,th{padding:.25rem .6rem;border-bottom:1px solid #232b37;text-align:right}td:first-child,th:first-child{text-align:left}
h2{margin-top:2.2rem}figure{display:inline-block;margin:.4rem;vertical-align:top}figcaption{font-size:.8rem;color:#8b98a8;
max-width:44rem;overflow-wrap:anywhere}.plot{max-width:100%;border-radius:8px}.dim{color:#8b98a8;font-size:.88rem}
.warn{border-left:3px solid #e0a83c;background:#1d1910;padding:.3rem .8rem;margin:.4rem 0}"""


def write_page(path: Path, title: str, about: str, warnings: Iterable[str], parts: Iterable[str]) -> Path:
    """Write the report; ``about`` and the warnings are plain text, the parts HTML. Returns its path."""
    text = "".join(
        [
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>",
            f"<h1>{html.escape(title)}</h1><p>{html.escape(about)}</p>",
            *(f'<p class="warn">{html.escape(warning)}</p>' for warning in warnings),
            *parts,
            '<p class="dim">Intervals are 95 % bootstraps by patient. Counterfactual and generated images are synthetic and '
            "not for diagnosis.</p>",
        ]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")
    return path


def table(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """A table; numbers and intervals are written with three digits, what is unknown as nothing."""
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell(value))}</td>' for value in line)}</tr>" for line in lines)
    return f"<table><tr>{''.join(f'<th>{html.escape(name)}</th>' for name in head)}</tr>{body}</table>"


def cell(value: Any) -> str:
    """A value as people read it."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, Interval):
        return f"{value.mean:.3f}" if np.isnan(value.low) else str(value)
    if isinstance(value, Mapping) and "mean" in value:
        mean, low, high = (float("nan") if value[key] is None else float(value[key]) for key in ("mean", "low", "high"))
        return cell(Interval(mean, low, high, value["n"], value["patients"]))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it."""
    return f"<h2>{html.escape(title)}</h2>{''.join(parts)}"


def text(words: str) -> str:
    """A paragraph."""
    return f"<p>{html.escape(words)}</p>"


def case(images: Sequence[NDArray[Any]], caption: str) -> str:
    """Pictures in [0, 1], (H, W), (H, W, 3) or of contrasts, side by side over a caption."""
    tiles = "".join(f'<img alt="" src="{_data(thumbnail(image))}"> ' for image in images)
    return f"<figure>{tiles}<figcaption>{html.escape(caption)}</figcaption></figure>"


def plot(figure: Any) -> str:
    """A matplotlib figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return f'<img class="plot" alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def thumbnail(image: NDArray[Any], side: int = SIDE) -> NDArray[np.uint8]:
    """uint8, at most ``side`` pixels a side."""
    from PIL import Image

    seen = colour(image) if image.ndim == 3 else image
    small = Image.fromarray((np.clip(seen, 0, 1) * 255).round().astype(np.uint8))
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(small)


def best_median_worst(scores: Sequence[float] | NDArray[Any], shown: int = SHOWN) -> dict[str, list[int]]:
    """Positions of the highest, the middle and the lowest scores, best first, no position twice; NaN is left out."""
    values = np.asarray(scores, np.float64)
    order = [int(i) for i in np.argsort(-values, kind="stable") if not np.isnan(values[i])]
    n, middle = len(order), max(len(order) // 2 - shown // 2, 0)
    groups, seen = (
        {"best": order[:shown], "worst": order[max(n - shown, 0) :], "median": order[middle : middle + shown]},
        set(),
    )
    out: dict[str, list[int]] = {}
    for name in ("best", "worst", "median"):
        out[name] = [i for i in groups[name] if i not in seen]
        seen.update(out[name])
    return {name: out[name] for name in ("best", "median", "worst")}


def _data(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
