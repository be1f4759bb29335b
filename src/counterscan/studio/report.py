"""One result as a page that needs nothing beside itself: what was asked, before and after, where, how large."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from counterscan.report import SCRIPT, STYLE

if TYPE_CHECKING:
    from counterscan.attribution import Region
    from counterscan.result import Counterfactual
    from counterscan.types import Edit

LABEL = "Synthetic: the counterfactual on this page was made by software. Not for diagnosis."
SIDE = 1024  # pixels of the pictures on the page


def write_report(result: Counterfactual, regions: Sequence[Region], path: Path) -> None:
    """Write the report of a counterfactual whose difference has these regions."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(page(result, regions), encoding="utf-8")
    os.replace(draft, path)


def page(result: Counterfactual, regions: Sequence[Region]) -> str:
    """The report as HTML."""
    from counterscan.drawing import colour, difference_scale, overlay, signed_map

    before, after = colour(result.factual.unit()), colour(result.counterfactual.unit())
    scale = difference_scale(result.difference)
    title = html.escape(asked(result.edit))
    facts = {
        "From": result.edit.source,
        "To": result.edit.target,
        "Method": result.method,
        "Model": f"{result.model} ({result.fingerprint})",
        "Seed": result.seed,
        "Cost": f"{result.evaluations} network evaluations, {result.seconds:.1f} s",
        "Changed": f"{result.mask.mean():.1%} of the image; outside it the two are equal bit for bit",
    }
    rows = "".join(f"<tr><th>{key}<td>{html.escape(str(value))}" for key, value in facts.items())
    parts = "".join(f"<tr><td>{k}<td>{_size(region)}<td>{region.box}" for k, region in enumerate(regions, start=1))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Counterscan: {title}</title><style>{STYLE}
table{{border-collapse:collapse}}td,th{{text-align:left;padding:.2rem 1rem .2rem 0;vertical-align:top}}</style></head>
<body><main><header><h1>{title[0].upper() + title[1:]}</h1><p class="warn">{LABEL}</p></header>
<article><button type="button" aria-pressed="false">Blink</button><h3>Original and answer</h3><div class="views">
<div class="slider">{_image(before, "original")}<div class="after">{_image(after, "answer, synthetic")}</div>
<div class="bar"></div><span class="tag l">original</span><span class="tag r">answer, synthetic</span>
<input type="range" min="0" max="100" value="50" aria-label="from original to answer"></div>
<div class="side"><figure>{_image(signed_map(result.difference, scale), "difference")}
<figcaption>difference, full colour at ±{scale:.2f}; red is denser, blue less dense</figcaption></figure>
<figure>{_image(overlay(before, result.difference, scale), "where")}<figcaption>on the original</figcaption></figure>
</div></div></article>
<h2>Regions</h2><table><tr><th>#<th>size<th>box (left, top, right, bottom)</tr>{parts}</table>
<h2>How it was made</h2><table>{rows}</table></main>
<footer><p><b>{LABEL}</b></p></footer><script>{SCRIPT}</script></body></html>
"""


def asked(edit: Edit) -> str:
    """What was asked, in a few words: the changes, else the target prompt."""
    return ", ".join(f"{change.direction} {_words(change)}" for change in edit.changes) or edit.target or "edit"


def _words(change: Any) -> str:
    return " ".join(word for word in (change.severity, change.side, change.place, change.finding) if word)


def _size(region: Region) -> str:
    return f"{region.area} px" if region.area_mm2 is None else f"{region.area_mm2 / 100:.1f} cm²"


def _image(image: NDArray[Any], words: str) -> str:
    from counterscan.drawing import as_image
    from counterscan.studio.views import shrink

    buffer = io.BytesIO()
    as_image(np.asarray(shrink(image, SIDE))).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(words)}" src="data:image/png;base64,{data}">'
