"""The worlds: how fast they draw, whether their counterfactuals are exact, and what they look like.

Writes ``benchmarks/results/worlds/results.json`` and ``results.md``, and of each world ``docs/figures/world-NAME.png`` (its first
cases, unpicked) and ``world-NAME-twins.png`` (a column a finding: without it, with it, the true change mask).

OMP_NUM_THREADS=1 python benchmarks/worlds.py
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import time
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from counterscan.worlds.dataset import WORLDS

SEED = 700_000_000  # no training run uses seeds from here on
SIZES = (64, 128, 256)
BUDGET = 300_000  # bytes of a figure
CELL = {"brain": 160, "chest": 128, "colon": 128}


def speed(world: ModuleType, size: int, seconds: float) -> float:
    """Images a second of one core's time: the processor's seconds, whatever else the machine does."""
    world.sample(SEED - 1, size=size)
    began, n = time.process_time(), 0
    while (spent := time.process_time() - began) < seconds:
        world.sample(SEED + n, size=size)
        n += 1
    return n / spent


def exactness(world: ModuleType, n: int, size: int = 64) -> dict[str, dict[str, float]]:
    """For each finding: how many of ``n`` cases come back bit for bit when it is added and taken away again; the largest
    noise-free change outside the true mask; the mask's mean share of the image.
    """
    out = {}
    for finding in world.FINDINGS:
        back, outside, share = 0, 0.0, 0.0
        for k in range(n):
            without = world.intervene(world.sample(SEED + k, size=size), {finding: False})
            having = world.intervene(without, {finding: True})
            back += np.array_equal(world.intervene(having, {finding: False}).image, without.image)
            mask = world.change_mask(without, having)
            change = np.abs(without.clean - having.clean).reshape(size, size, -1).max(2)
            outside, share = max(outside, float(change[~mask].max())), share + float(mask.mean()) / n
        out[finding] = {"of": n, "bit_for_bit": back, "largest_outside": outside, "mask_share": share}
    return out


def picture(image: np.ndarray, side: int) -> Image.Image:
    """One case as RGB; four contrasts as two by two."""
    if image.ndim == 3 and image.shape[2] == 4:
        image = np.vstack([np.hstack([image[..., 0], image[..., 1]]), np.hstack([image[..., 2], image[..., 3]])])
    return Image.fromarray((image * 255).round().astype(np.uint8)).convert("RGB").resize((side, side), Image.LANCZOS)


def sheet(world: ModuleType, side: int, rows: int = 3) -> Image.Image:
    """The first cases, unpicked."""
    columns = 1024 // side
    page = Image.new("RGB", (columns * side, rows * side))
    for k in range(rows * columns):
        case = world.sample(SEED + k, size=side)
        page.paste(picture(case.image, side), (k % columns * side, k // columns * side))
    return page


def twins(world: ModuleType, side: int) -> Image.Image:
    """A column a finding, each of the first case whose mask is more than a hundredth of the image."""
    names, top = world.FINDINGS, 16
    page = Image.new("RGB", (len(names) * side, top + 3 * side), "white")
    draw = ImageDraw.Draw(page)
    for column, finding in enumerate(names):
        for k in range(100):
            without = world.intervene(world.sample(SEED + 50 + k, size=side), dict.fromkeys(names, False))
            having = world.intervene(without, {finding: True})
            if (mask := world.change_mask(without, having)).mean() > 0.01:
                break
        shown = [picture(case.image, side) for case in (without, having)] + [
            Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB")
        ]
        for row, panel in enumerate(shown):
            page.paste(panel, (column * side, top + row * side))
        draw.text((column * side + 3, 2), finding, fill="black", font=ImageFont.load_default(min(0.085 * side, 11)))
    return page


def save(page: Image.Image, path: Path) -> None:
    """As a PNG of at most ``BUDGET`` bytes: fewer colours, then fewer pixels, until it fits."""
    for colours in (256, 128, 64, 48, 32):
        page.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= BUDGET:
            return
    page = page.resize((page.width * 3 // 4, page.height * 3 // 4), Image.LANCZOS)
    save(page, path)


def markdown(facts: dict) -> str:
    """Two tables."""
    lines = [f"Images a second of one core's time, by pixels a side; measured on {facts['cores']} shared cores.", ""]
    lines += ["| world | " + " | ".join(f"{size} px" for size in SIZES) + " |", "| --- |" + " --- |" * len(SIZES)]
    for name, fact in facts["worlds"].items():
        lines.append(
            f"| {name} | " + " | ".join(f"{fact['images_per_second'][str(size)]:.1f}" for size in SIZES) + " |"
        )
    lines += ["", "| world | finding | added and removed: bit for bit | largest change outside the mask | mask, share of image |",
              "| --- | --- | --- | --- | --- |"]  # fmt: skip
    for name, fact in facts["worlds"].items():
        lines += [
            f"| {name} | {finding} | {x['bit_for_bit']} of {x['of']} | {x['largest_outside']:.4f} | {x['mask_share']:.3f} |"
            for finding, x in fact["exactness"].items()
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=20, help="cases a finding")
    parser.add_argument("--seconds", type=float, default=4.0, help="of measuring, a world and size")
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results/worlds"))
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"))
    parser.add_argument("worlds", nargs="*", default=WORLDS, help="those to measure; others keep their last results")
    o = parser.parse_args()
    results = o.o / "results.json"
    worlds = json.loads(results.read_text(encoding="utf-8"))["worlds"] if results.is_file() else {}
    for name in o.worlds:
        world = importlib.import_module(f"counterscan.worlds.{name}")
        rates = {str(size): speed(world, size, o.seconds) for size in SIZES}
        worlds[name] = {"images_per_second": rates, "exactness": exactness(world, o.n)}
        save(sheet(world, CELL[name]), o.figures / f"world-{name}.png")
        save(twins(world, 256 if name == "brain" else 96), o.figures / f"world-{name}-twins.png")
    facts = {"cores": os.cpu_count(), "seed": SEED, "worlds": dict(sorted(worlds.items()))}
    o.o.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (o.o / "results.md").write_text(markdown(facts), encoding="utf-8")


if __name__ == "__main__":
    main()
