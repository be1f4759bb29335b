"""The figures of README and docs, made from the shipped models: ``python benchmarks/figures.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import counterscan
from counterscan.drawing import as_image, colour, difference_scale, overlay
from counterscan.worlds import chest

OUT = Path("docs/figures")
SEED = 700_000_000


def hero(finding: str = "pacemaker", cases: int = 3) -> Image.Image:
    """Factual, our counterfactual, the exact one, and where ours changed; the first cases that show the finding, unpicked."""
    model = counterscan.load("chest-world")
    rows = []
    for k in range(cases):
        base = chest.intervene(chest.sample(SEED + k), {finding: False})
        there = chest.intervene(base, {finding: True})
        image = (there.image * 65535).round().astype(np.uint16)
        result = counterscan.edit(image, remove=[chest.words(finding, there.findings[finding])], model=model)
        ours = result.counterfactual.unit()
        scale = difference_scale(result.difference)
        rows.append([there.image, ours, base.image, overlay(there.image, result.difference, scale)])
    titles = ("asked: remove the " + finding, "answer", "exact answer", "where it changed")
    side, top = 256, 26
    page = Image.new("RGB", (4 * side, top + cases * side), "white")
    draw = ImageDraw.Draw(page)
    for column, title in enumerate(titles):
        draw.text((column * side + 6, 5), title, fill="black", font=ImageFont.load_default(14))
        for row, panels in enumerate(rows):
            page.paste(as_image(colour(panels[column])), (column * side, top + row * side))
    return page


def world_sheet(columns: int = 5, rows: int = 4) -> Image.Image:
    """The first cases of the chest world, unpicked."""
    page = Image.new("L", (columns * 256, rows * 256))
    for k in range(columns * rows):
        case = chest.sample(SEED + k)
        page.paste(
            Image.fromarray((case.image * 255).round().astype(np.uint8)), (k % columns * 256, k // columns * 256)
        )
    return page


def text_sheet(model: str, prompts: tuple[str, ...], n: int = 4) -> Image.Image:
    """Samples of a few prompts, one row each."""
    backbone = counterscan.load(model)
    page = Image.new("L", (n * 256, len(prompts) * 256))
    for row, prompt in enumerate(prompts):
        for column, picture in enumerate(
            counterscan.generate(f"{backbone.card.template}{prompt}", n=n, model=backbone)
        ):
            page.paste(Image.fromarray(picture.pixels), (column * 256, row * 256))
    return page


def main() -> None:
    """Make every figure."""
    OUT.mkdir(parents=True, exist_ok=True)
    hero().save(OUT / "hero.png", optimize=True)
    world_sheet().save(OUT / "chest-world.png", optimize=True)
    prompts = (": large left pleural effusion.", ", AP: support devices.", ", PA: no support devices.")
    for model in ("chest-world", "chest-nih"):
        text_sheet(model, prompts).save(OUT / f"{model}-samples.png", optimize=True)


if __name__ == "__main__":
    main()
