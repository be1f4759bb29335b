"""``generate``: whole images from a prompt, with DPM-Solver++ on the model's own noise schedule.

The built-in chest models say with their edits where a finding lies far better than from noise (of chest-world's images from noise
under the whole prompt 0.50 have the side right, which is chance, and 0.93 of edited ones: benchmarks/text_to_image.py). Where the
card says so (``generate_by``), images are drawn in two parts: the radiograph, as one without the findings that the prompt tells
of, and then every finding that it denies or names, one after the other, by the model's default method.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from counterscan.blending import applied, blend
from counterscan.diffusion import CLEAN, draw, guide, solver_step
from counterscan.errors import WordsError
from counterscan.types import Condition, Prediction

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from counterscan.backbones.base import Backbone
    from counterscan.imaging import Picture
    from counterscan.methods import Progress
    from counterscan.types import Edit

BATCH = 4


def generate(
    prompt: str,
    *,
    n: int = 1,
    steps: int = 30,
    guidance: float = 2.0,
    model: str | Path | Backbone = "chest-nih",
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Picture]:
    """``n`` images (8 bits) of a prompt. Image ``i`` depends on ``seed + i`` alone, not on ``n``.

    ``guidance`` 1 is none; above it, the image leans away from the empty prompt. Costs ``2 * steps`` evaluations an
    image, ``steps`` with guidance 1; and by edits also one for each finding that the prompt tells of.
    """
    import torch

    from counterscan.backbones.text import tell_unknown
    from counterscan.editing import as_backbone, check_seed
    from counterscan.imaging import Picture

    check_seed(seed)
    if not isinstance(prompt, str):
        raise WordsError(f"a prompt is text, got {prompt!r}")
    whole = all(isinstance(number, int | np.integer) for number in (n, steps))
    if not (whole and n >= 1 and 1 <= steps <= 1000 and 0 <= guidance <= 100):
        raise WordsError(
            f"generate needs whole n >= 1, steps 1 to 1000, guidance 0 to 100; got {n}, {steps}, {guidance}"
        )
    backbone = as_backbone(model)
    tell_unknown(backbone, prompt)
    words, edits = in_parts(backbone, prompt)
    parts = 1 + len(edits)
    pictures: list[Picture] = []
    for start in range(0, n, BATCH):
        seeds = range(seed + start, seed + min(start + BATCH, n))
        generators = [torch.Generator().manual_seed(s) for s in seeds]

        def report(done: int, total: int, part: int = 0, start: int = start, size: int = len(seeds)) -> None:
            if progress is not None:
                progress((start * parts + part * size) * steps + size * steps * done // total, n * parts * steps)

        images = sample(backbone, words, generators, steps=steps, guidance=guidance, progress=report)
        for part, change in enumerate(edits, 1):
            images = edited(backbone, images, change, generators, partial(report, part=part))
        for image in images:
            pixels = (image.cpu().numpy() * 255).round().astype(np.uint8)
            pictures.append(Picture(pixels[0] if pixels.shape[0] == 1 else np.moveaxis(pixels, 0, 2), synthetic=True))
    return pictures


def in_parts(backbone: Backbone, prompt: str) -> tuple[str, list[Edit]]:
    """The words of a prompt to draw from noise, without any finding it tells of, and as edits what it says of these: what it
    denies, then what it names, in the order of the model's findings. Where its card does not say that it generates by edits, and
    where no finding is told of, the whole prompt.
    """
    from counterscan.language.captions import mentions
    from counterscan.language.phrase import phrase
    from counterscan.language.phrase import prompt as written
    from counterscan.language.resolve import resolve

    known = backbone.card.findings
    told = dict.fromkeys(mentions(prompt, known)) if backbone.card.generate_by == "edits" and known else {}
    if not told:
        return prompt, []
    clauses = [clause.strip() for clause in re.split(r"[,.;:]|\b(?:with|without|showing|shows)\b", prompt)]
    words = ", ".join(clause for clause in clauses if clause and not mentions(clause, known))
    named = sorted((m for m in told if m.present), key=lambda m: known.index(m.finding))
    texts = {m: phrase(m.finding, side=m.side, place=m.place, severity=m.severity) for m in told}
    gone = [resolve(remove=[texts[m]], card=backbone.card) for m in told if not m.present]
    without = [phrase(finding, absent=True) for finding in dict.fromkeys(m.finding for m in told)]
    clear = written(without, template=words or backbone.card.template)
    return clear, gone + [resolve(add=[texts[m]], card=backbone.card) for m in named]


def drawn(
    backbone: Backbone, prompts: Sequence[str], generators: Sequence[torch.Generator], *, steps: int, guidance: float
) -> Tensor:
    """What :func:`generate` makes of one prompt a generator: images (B, C, H, W) float32 in [0, 1]."""
    parts = [in_parts(backbone, words) for words in prompts]
    images = sample(backbone, [words for words, _ in parts], generators, steps=steps, guidance=guidance)
    for i, (_, edits) in enumerate(parts):
        for change in edits:
            images[i : i + 1] = edited(backbone, images[i : i + 1], change, generators[i : i + 1])
    return images


def edited(
    backbone: Backbone,
    images: Tensor,
    change: Edit,
    generators: Sequence[torch.Generator],
    progress: Progress | None = None,
) -> Tensor:
    """``images`` (B, C, H, W) after an edit by the model's default method, nothing changed outside it."""
    import torch

    from counterscan import methods
    from counterscan.editing import to_array, to_tensor

    after = methods.suited(backbone.card)(backbone, images, change, generator=generators, progress=progress)
    before, grey = backbone.decode(backbone.encode(images)), images.shape[1] == 1
    out = []
    for rows in zip(images, before, after, strict=True):
        image, rebuilt, answer = (to_array(row, grey) for row in rows)
        out.append(to_tensor(applied(image, *blend(image, rebuilt, answer)), images.shape[1]))
    return torch.stack(out).to(images.device)


def sample(
    backbone: Backbone,
    prompt: str | Sequence[str],
    generators: Sequence[torch.Generator],
    *,
    steps: int,
    guidance: float,
    progress: Progress | None = None,
) -> Tensor:
    """Images (B, C, H, W) float32 in [0, 1], one a generator, of one prompt for all or one a generator."""
    import torch

    with torch.no_grad():
        times = [*backbone.schedule.timesteps(steps).tolist(), CLEAN]
        levels = [backbone.schedule.coefficients(t) for t in times]
        negative, positive = backbone.embed([""]), backbone.embed([prompt] if isinstance(prompt, str) else prompt)
        z = draw((len(generators), *backbone.latent_shape), generators, 1, backbone.device)[0]
        older = None
        for i in range(steps):
            clean = _guided(backbone, z, times[i], negative, positive, guidance)
            # the last step is of first order: the solver's extrapolation is unstable towards no noise
            z = solver_step(z, clean, older if i < steps - 1 else None, (levels[i - 1], levels[i], levels[i + 1]))
            older = clean
            if progress is not None:
                progress(i + 1, steps)
        return backbone.decode(z)


def _guided(backbone: Backbone, z: Tensor, t: int, negative: Condition, positive: Condition, weight: float) -> Tensor:
    import torch

    if weight == 1:
        return backbone.predict(z, t, positive).clean
    rows = z.shape[0]
    positive = positive.repeat(rows // len(positive))
    both = backbone.predict(torch.cat([z, z]), t, Condition.cat([negative.repeat(rows), positive]))
    low, high = Prediction(both.clean[:rows], both.noise[:rows]), Prediction(both.clean[rows:], both.noise[rows:])
    return guide(low, high, weight).clean
