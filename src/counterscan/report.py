"""The demo and its report: one self-contained HTML page, no external resource."""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone
    from counterscan.result import Counterfactual

WORLD_CASES = (
    ("pleural effusion", "remove", 11),
    ("pacemaker", "remove", 12),
    ("cardiomegaly", "remove", 13),
    ("pneumothorax", "add", 14),
)
UNSEEN = 800_000_000  # world seeds from here on are in no training set
LABEL = "Synthetic: every counterfactual on this page was made by software. Not for diagnosis."
MORE, LESS, NIGHT = np.array([1.0, 0.55, 0.25]), np.array([0.3, 0.72, 1.0]), np.array([0.04, 0.05, 0.07])
"""The colours of denser, less dense, and no change, on a dark page."""

STYLE = """
:root{--night:#0b0e13;--panel:#141922;--line:#232b37;--text:#d5dce5;--dim:#8b98a8;--more:#ff8c40;--less:#4db8ff}
*{box-sizing:border-box}
body{margin:0;background:var(--night);color:var(--text);font:16px/1.6 system-ui,-apple-system,"Segoe UI",sans-serif}
main,footer{max-width:1120px;margin:auto;padding:0 1.25rem}
header{padding:3.5rem 0 1rem}
h1{font-size:3rem;letter-spacing:-.02em;line-height:1.1;margin:0 0 1rem;color:#fff;font-weight:650}
h2{font-size:1.5rem;margin:3.2rem 0 .4rem;color:#fff;font-weight:600}
h3{font-size:1.15rem;margin:0;color:#fff;font-weight:600}
p{max-width:46rem;margin:.5rem 0}
a{color:var(--less)}
.dim,figcaption,footer{color:var(--dim);font-size:.88rem}
.warn{display:inline-block;border:1px solid #5c4a24;background:#221c10;color:#f0cf85;border-radius:6px;padding:.35rem .8rem}
.tiles{display:flex;gap:2.2rem;flex-wrap:wrap;margin:1.6rem 0 0}
.tiles b{display:block;font-size:1.7rem;color:#fff;font-weight:600;line-height:1.2}
article{background:var(--panel);border:1px solid var(--line);border-radius:14px;padding:1.2rem;margin:1.3rem 0}
.views{display:grid;grid-template-columns:2fr 1fr;gap:1rem;margin:.9rem 0 .6rem}
.side{display:grid;gap:1rem;align-content:start}

figure{margin:0}
figcaption{padding-top:.35rem}
img{display:block;width:100%;border-radius:8px;background:#000}
.slider{--at:50%;position:relative;cursor:ew-resize;touch-action:pan-y}
.slider .after{position:absolute;inset:0;clip-path:inset(0 0 0 var(--at))}
.slider .bar{position:absolute;inset:0 auto 0 var(--at);width:2px;margin-left:-1px;background:#fffc;pointer-events:none}
.slider .bar:after{content:"\\2194";position:absolute;top:50%;left:50%;transform:translate(-50%,-50%);background:#fff;
color:#111;border-radius:50%;width:2rem;height:2rem;line-height:1.9rem;text-align:center}
.slider input{position:absolute;inset:0;width:100%;height:100%;margin:0;opacity:0;cursor:ew-resize}
.slider:focus-within{outline:2px solid var(--less);outline-offset:3px;border-radius:8px}
.tag{position:absolute;top:.6rem;background:#000a;border-radius:5px;padding:.05rem .5rem;font-size:.8rem;pointer-events:none}
.tag.l{left:.6rem}.tag.r{right:.6rem}
.blink .after{animation:blink 1.4s steps(1) infinite;clip-path:none}.blink .bar,.blink .tag{display:none}
@keyframes blink{50%{visibility:hidden}}
button{background:none;border:1px solid var(--line);color:var(--text);border-radius:6px;padding:.15rem .8rem;font:inherit;
font-size:.85rem;cursor:pointer;float:right}
button:hover,button[aria-pressed=true]{border-color:var(--less);color:#fff}
.meter{height:8px;max-width:26rem;border-radius:4px;background:linear-gradient(90deg,#2e9e6b,#c9a13b 60%,#b8432f);
position:relative;margin:.5rem 0 .2rem}
.meter i{position:absolute;top:-4px;width:3px;height:16px;background:#fff;border-radius:2px}
.more{color:var(--more)}.less{color:var(--less)}
footer{border-top:1px solid var(--line);margin-top:4rem;padding-top:1.2rem;padding-bottom:3rem}
footer p{max-width:none}
@media(max-width:720px){.views{grid-template-columns:1fr}.side{grid-template-columns:1fr 1fr}h1{font-size:2.2rem}}
@media print{body{background:#fff;color:#000}button,.slider input{display:none}}
"""
SCRIPT = """
document.querySelectorAll('.slider').forEach(s=>{
  const r=s.querySelector('input'),b=s.closest('article').querySelector('button');
  const move=()=>s.style.setProperty('--at',r.value+'%');
  r.addEventListener('input',move);move();
  b.addEventListener('click',()=>b.setAttribute('aria-pressed',s.classList.toggle('blink')));
});
"""


@dataclass(frozen=True)
class Shown:
    """One case of the report: what was asked, of whom, the answer, and for world cases the truth and the error."""

    asked: str
    about: str
    result: Counterfactual
    truth: NDArray[np.float32] | None = None
    error: float | None = None


def make_demo(
    folder: Path,
    model: Backbone,
    world: Backbone,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Edit the shipped radiographs with ``model`` and unseen world cases with ``world``.

    Writes the results and ``report.html`` into ``folder``; returns one record a case, with file names relative to it.
    """
    examples = json.loads((_examples() / "examples.json").read_text(encoding="utf-8"))
    jobs = [partial(real_case, item, model, seed) for item in examples["items"]]
    jobs += [partial(world_case, *case, world, seed) for case in WORLD_CASES]
    shown, items = [], []
    for k, job in enumerate(jobs):
        case = job()
        shown.append(case)
        items.append(_record(case, case.result.save(folder, f"{k:02d}-{case.asked.replace(' ', '-')}")))
        if progress:
            progress(k + 1, len(jobs))
    draft = folder / f".report.html.{os.getpid()}"
    draft.write_text(page(shown, credit=examples["credit"], link=examples["link"], seed=seed), encoding="utf-8")
    os.replace(draft, folder / "report.html")
    return items


def real_case(item: dict[str, Any], model: Backbone, seed: int) -> Shown:
    """One shipped radiograph, edited as its entry in ``examples.json`` says."""
    import counterscan

    result = counterscan.edit(Path(str(_examples() / item["file"])), **item["edit"], model=model, seed=seed)
    ((verb, finding),) = item["edit"].items()
    labels = ", ".join(item["labels"]).lower() or "no finding"
    about = (
        f"{'Woman' if item['sex'] == 'F' else 'Man'}, {item['age']}, {item['view']}: {item['shows']}. Labels: {labels}."
    )
    return Shown(f"{verb} {finding}", about, result)


def world_case(finding: str, direction: str, number: int, model: Backbone, seed: int) -> Shown:
    """An unseen case of the chest world with its exact counterfactual.

    The error is the mean absolute distance to the truth inside the true change mask, divided by that of doing nothing.
    """
    import counterscan
    from counterscan.worlds import chest

    base = chest.intervene(chest.sample(UNSEEN + number), {finding: False})
    there = chest.intervene(base, {finding: True})
    factual, truth = (there, base) if direction == "remove" else (base, there)
    words = chest.words(finding, there.findings[finding])
    request: dict[str, Any] = {direction: words}
    image = (factual.image * 65535).round().astype(np.uint16)
    result = counterscan.edit(image, **request, model=model, seed=seed)
    mask = chest.change_mask(factual, truth)
    after, before = (float(np.abs(x - truth.image)[mask].mean()) for x in (result.counterfactual.unit(), factual.image))
    also = ", ".join(base.findings) or "nothing else"
    return Shown(f"{direction} {words}", f"A computed chest with {also}.", result, truth.image, after / before)


def page(shown: Sequence[Shown], *, credit: str, link: str, seed: int) -> str:
    """The whole report as HTML that needs nothing beside itself."""
    real, world = ([c for c in shown if (c.truth is None) == kind] for kind in (True, False))
    results = [case.result for case in shown]
    models = sorted({f"{r.model} ({r.fingerprint})" for r in results})
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Counterscan: what if?</title><style>{STYLE}</style></head><body><main>
<header><h1>What if?</h1>
<p>Each radiograph below was asked one question in words, and answered with an image. Drag across a picture to go from
the original to the answer, or let it blink. Outside the coloured area the two are equal bit for bit.</p>
<p class="warn">{LABEL}</p>{_tiles(results, world)}</header>
<h2>Real radiographs</h2>
<p>Nobody knows what these patients would look like otherwise, so no score stands here: look, and judge.
<span class="more">Orange</span> became denser, <span class="less">blue</span> less dense.</p>
{"".join(map(_card, real))}
<h2>Measured against the truth</h2>
<p>These chests are computed, with patient, anatomy and noise held fixed, so the exact answer is known.
The error compares the answer with it where the two differ: 0 is exact, 1 is as far off as doing nothing.</p>
{"".join(map(_card, world))}
</main><footer><p><b>{LABEL}</b></p>
<p>{html.escape(credit)} <a href="{html.escape(link)}">{html.escape(link)}</a></p>
<p>Models: {html.escape(", ".join(models))}. Seed {seed}. The run.json beside this page
says how to make it again.</p></footer>
<script>{SCRIPT}</script></body></html>
"""


def _tiles(results: Sequence[Counterfactual], world: Sequence[Shown]) -> str:
    tiles = [(f"{len(results)}", "questions"), (f"{sum(r.seconds for r in results):.1f} s", "of computing")]
    tiles.append((f"{sum(r.evaluations for r in results)}", "network evaluations"))
    errors = [case.error for case in world if case.error is not None]
    if errors:
        tiles.append((f"{np.mean(errors):.2f}", "mean error where the truth is known"))
    return '<div class="tiles">' + "".join(f'<div class="dim"><b>{a}</b>{b}</div>' for a, b in tiles) + "</div>"


def _card(case: Shown) -> str:
    from counterscan.drawing import colour, difference_scale

    result = case.result
    before, after = result.factual.unit(), result.counterfactual.unit()
    scale = difference_scale(result.difference)
    side = _figure(_glow(result.difference, scale, NIGHT), f"difference, full colour at ±{scale:.2f}")
    if case.truth is None:
        side += _figure(_glow(result.difference, scale, colour(before), most=0.65), "where, on the original")
    else:
        side += _figure(case.truth, "the exact answer")
    facts = f"{result.method}, {result.evaluations} evaluations, {result.seconds:.1f} s, "
    facts += f"{result.mask.mean():.1%} of the image changed" if result.mask.any() else "nothing changed"
    return f"""<article><button type="button" aria-pressed="false">Blink</button>
<h3>{html.escape(case.asked[0].upper() + case.asked[1:])}</h3><div class="dim">{html.escape(case.about)}</div>
<div class="views"><div class="slider">{_image(before, "original")}<div class="after">{_image(after, "answer")}</div>
<div class="bar"></div><span class="tag l">original</span><span class="tag r">answer</span>
<input type="range" min="0" max="100" value="50" aria-label="from original to answer"></div>
<div class="side">{side}</div></div>{_meter(case.error)}<div class="dim">{html.escape(facts)}</div></article>
"""


def _meter(error: float | None) -> str:
    if error is None:
        return ""
    return f'<div class="meter"><i style="left:{100 * min(error, 1):.0f}%"></i></div><div>error {error:.2f}</div>'


def _glow(difference: NDArray[np.float32], scale: float, ground: NDArray[Any], most: float = 1) -> NDArray[np.float64]:
    """Signed (H, W) as colours on a ground, itself a colour or a picture (H, W, 3): RGB (H, W, 3) in [0, 1].

    ``most`` is how much of the ground the largest differences cover.
    """
    strength = np.clip(difference / scale, -1, 1)[..., None]
    return ground + most * np.abs(strength) * (np.where(strength > 0, MORE, LESS) - ground)


def _figure(image: NDArray[Any], caption: str) -> str:
    return f"<figure>{_image(image, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _image(image: NDArray[Any], words: str) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8)).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(words)}" src="data:image/png;base64,{data}">'


def _examples() -> Path:
    return Path(str(resources.files("counterscan"))) / "data" / "examples"


def _record(case: Shown, files: dict[str, str]) -> dict[str, Any]:
    result = case.result
    cost = {"evaluations": result.evaluations, "seconds": result.seconds, "seed": result.seed}
    return {
        **files,
        "asked": case.asked,
        "method": result.method,
        **cost,
        "model": result.model,
        "error_inside": case.error,
    }
