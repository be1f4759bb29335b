"""The demo and its report: one self-contained HTML page, no external resource."""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone
    from counterscan.result import Counterfactual

WORLD_CASES = (
    ("pleural effusion", "remove", 11),
    ("pacemaker", "remove", 12),
    ("cardiomegaly", "remove", 13),
    ("pneumothorax", "add", 14),
)
STYLE = """
body{background:#0e1116;color:#d8dee6;font:16px/1.55 system-ui,sans-serif;max-width:1080px;margin:0 auto;padding:2rem 1rem}
h1{font-weight:600}h2{margin-top:2.6rem;font-weight:500}p.small,footer{color:#93a1b0;font-size:.88rem}
.card{background:#171c24;border-radius:10px;padding:1rem 1.2rem;margin:1.2rem 0}
.row{display:flex;gap:1rem;flex-wrap:wrap}.row figure{margin:0;flex:1 1 230px}figcaption{font-size:.85rem;color:#93a1b0}
img{width:100%;display:block;border-radius:6px}
.slider{position:relative}.slider .top{position:absolute;inset:0;clip-path:inset(0 50% 0 0)}
input[type=range]{width:100%}b{color:#fff;font-weight:600}
"""
SCRIPT = """
document.querySelectorAll('.slider').forEach(s=>{const r=s.parentNode.querySelector('input');
r.oninput=()=>s.querySelector('.top').style.clipPath=`inset(0 ${100-r.value}% 0 0)`});
"""
LABEL = "Every counterfactual on this page was made by software. Not for diagnosis."


@dataclass(frozen=True)
class Shown:
    """One case of the report: a result, what was asked, and for world cases the truth and the measured error."""

    title: str
    result: Counterfactual
    truth: np.ndarray | None = None
    error: float | None = None


def make_demo(
    folder: Path, model: Backbone, world: Backbone, *, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> list[dict[str, Any]]:
    """Edit the shipped radiographs and four unseen world cases; write the results and ``report.html`` into ``folder``."""
    import counterscan

    examples = json.loads(_example("examples.json").read_text())
    total = len(examples["items"]) + len(WORLD_CASES)
    shown: list[Shown] = []

    def tick() -> None:
        if progress:
            progress(len(shown), total)

    for item in examples["items"]:
        result = counterscan.edit(Path(str(_example(item["file"]))), **item["edit"], model=model, seed=seed)
        verb, finding = next(iter(item["edit"].items()))
        shown.append(Shown(f"{verb} {finding}", result))
        tick()
    real = len(shown)
    for finding, direction, number in WORLD_CASES:
        shown.append(_world_case(world, finding, direction, number, seed))
        tick()
    items = []
    for k, case in enumerate(shown):
        files = case.result.save(folder, f"{k:02d}-{case.title.replace(' ', '-')}")
        facts = {"asked": case.title, "seconds": case.result.seconds, "evaluations": case.result.evaluations}
        items.append({**files, **facts, "model": case.result.model, "error_inside": case.error})
    page = _page(shown[:real], shown[real:], examples["credit"])
    draft = folder / f".report.html.{os.getpid()}"
    draft.write_text(page, encoding="utf-8")
    os.replace(draft, folder / "report.html")
    return items


def _example(name: str) -> Any:
    return resources.files("counterscan") / "data" / "examples" / name


def _world_case(model: Any, finding: str, direction: str, number: int, seed: int) -> Shown:
    """An unseen case of the chest world with its exact counterfactual; the error is 0 if exact and 1 if nothing was done."""
    import counterscan
    from counterscan.worlds import chest

    base = chest.intervene(chest.sample(800_000_000 + number), {finding: False})
    there = chest.intervene(base, {finding: True})
    factual, truth = (there, base) if direction == "remove" else (base, there)
    words = chest.words(finding, there.findings[finding])
    image = (factual.image * 65535).round().astype(np.uint16)
    request: dict[str, Any] = {direction: [words]}
    result = counterscan.edit(image, **request, model=model, seed=seed)
    mask = chest.change_mask(factual, truth)
    after, before = (np.abs(x - truth.image)[mask].mean() for x in (result.counterfactual.unit(), factual.image))
    return Shown(f"{direction} {words}", result, truth.image, float(after / before))


def _page(real: list[Shown], world: list[Shown], credit: str) -> str:
    cards = "".join(_card(case) for case in real)
    measured = "".join(_card(case) for case in world)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Counterscan demo</title><style>{STYLE}</style><h1>What if?</h1>"
        f"<p>Each radiograph was asked a question in words. Drag the slider from the original to the answer. "
        f"Outside the coloured area the two are equal in every bit.</p><p><b>{LABEL}</b></p>"
        f"<h2>Real radiographs</h2>{cards}<h2>Measured against the truth</h2>"
        f"<p>These images are computed from a model of the chest, so the exact answer is known. "
        f"Error 0 is exact, 1 is as far off as doing nothing.</p>{measured}"
        f"<footer><p>{html.escape(credit)}</p><p>{LABEL}</p></footer><script>{SCRIPT}</script></html>\n"
    )


def _card(case: Shown) -> str:
    from counterscan.drawing import difference_scale, overlay, signed_map

    result = case.result
    before, after = result.factual.unit(), result.counterfactual.unit()
    scale = difference_scale(result.difference)
    slider = (
        f"<figure><div class=slider>{_img(before)}<div class=top>{_img(after)}</div></div>"
        f"<input type=range value=50 aria-label='from original to counterfactual'>"
        f"<figcaption>counterfactual | original</figcaption></figure>"
    )
    figures = slider + _figure(signed_map(result.difference, scale), f"difference, ±{scale:.2f}")
    figures += _figure(overlay(before, result.difference, scale), "where it changed")
    if case.truth is not None:
        figures += _figure(case.truth, "the exact counterfactual")
    error = "" if case.error is None else f", error {case.error:.2f}"
    facts = f"{result.method}, {result.evaluations} evaluations, {result.seconds:.1f} s, {result.mask.mean():.1%} changed{error}"
    return f"<div class=card><h3>{html.escape(case.title)}</h3><div class=row>{figures}</div><p class=small>{facts}</p></div>"


def _figure(image: np.ndarray, caption: str) -> str:
    return f"<figure>{_img(image)}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _img(image: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8)).save(buffer, "PNG")
    return f"<img alt='' src='data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"
