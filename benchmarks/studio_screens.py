"""Screenshots of the studio and of a reader study: ``python benchmarks/studio_screens.py --data DIR --bench DIR``.

Starts a studio with the chest world's model, walks through every tab with a browser, and leaves a picture of each.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Browser, Page, sync_playwright

from counterscan.imaging import from_array
from counterscan.result import Counterfactual
from counterscan.types import Change, Edit
from counterscan.worlds import chest

CHROMIUM = "/usr/bin/chromium"
MINUTES = 10 * 60 * 1000  # an edit on a busy machine takes its time


@contextmanager
def served(*words: str | Path) -> Iterator[str]:
    """The address of a server of the command line that lasts as long as the block."""
    command = [sys.executable, "-m", "counterscan", *map(str, words), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            yield next(found[0] for line in server.stderr if (found := re.search(r"http://\S+", line)))
        finally:
            server.terminate()


@contextmanager
def studio(data: Path | None, bench: Path | None) -> Iterator[str]:
    """The address of a studio with the chest world's model."""
    with tempfile.TemporaryDirectory() as state:
        words = ["--model", "chest-world", "--state", state, "--offline"]
        words += [*(["--data", str(data)] if data else []), *(["--bench", str(bench)] if bench else [])]
        with served("studio", *words) as address:
            yield address


def write_study(folder: Path) -> Path:
    """A reader study of computed radiographs and their exact counterfactuals."""
    for number, finding in enumerate(("pacemaker", "pleural effusion", "cardiomegaly")):
        before = chest.intervene(chest.sample(700_000_010 + number), {finding: True})
        after = chest.intervene(before, {finding: False})
        pixels = [from_array((case.image * 65535).round().astype(np.uint16)) for case in (before, after)]
        difference = (after.image - before.image).astype(np.float32)
        edit = Edit("", "", (Change(finding, "remove"),))
        Counterfactual(*pixels, difference, difference != 0, edit, "exact").save(folder / "edits", f"case{number}")
    text = "title: Which finding differs?\nseed: 2\ntasks:\n  - {kind: change, edits: edits}\n"
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return folder / "study.yaml"


def trial(browser: Browser, out: Path) -> None:
    """A trial of a reader study, with a mark."""
    with tempfile.TemporaryDirectory() as folder, served("reader", write_study(Path(folder))) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        page.fill("#code", "R1")
        page.click("#begin-form button")
        page.wait_for_selector("#views canvas")
        page.click("#answer .choices button:text-is('pacemaker')")
        box = page.locator("#views canvas >> nth=1").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x - 185, y - 190)
        page.mouse.down()
        page.mouse.move(x - 105, y - 115, steps=4)
        page.mouse.up()
        shoot(page, out, "reader")
        page.close()


def case(seed: int, finding: str) -> bytes:
    """A computed radiograph with the finding, as a PNG file of 16 bits that says so."""
    drawn, note = chest.intervene(chest.sample(seed), {finding: True}), PngInfo()
    note.add_text("Synthetic", "yes")
    buffer = io.BytesIO()
    Image.fromarray((drawn.image * 65535).round().astype(np.uint16)).save(buffer, "PNG", pnginfo=note)
    return buffer.getvalue()


def upload(page: Page, name: str, content: bytes) -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content})
    page.wait_for_function("n => document.getElementById('image-facts').textContent.includes(n)", arg=name)


def answered(page: Page, words: str) -> None:
    page.click("#submit")
    page.wait_for_function("w => document.getElementById('asked').textContent === w", arg=words, timeout=MINUTES)
    page.wait_for_function("() => !document.querySelector('#jobs .job')", timeout=MINUTES)


def settle(page: Page) -> None:
    """Wait until pictures are there and the note at the foot has gone."""
    page.wait_for_load_state("networkidle")
    page.evaluate("() => { document.getElementById('note').className = 'note'; }")
    page.wait_for_timeout(400)


def shoot(page: Page, out: Path, name: str) -> None:
    """A picture of the window in 256 colours: half of them greys, for the radiographs, the rest for what else is seen."""
    settle(page)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    pixels = np.asarray(shot).reshape(-1, 3)
    coloured = pixels[np.ptp(pixels, axis=1) > 4]
    others = Image.fromarray(coloured[None]).quantize(128, Image.Quantize.MAXCOVERAGE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for grey in range(0, 256, 2) for value in (grey,) * 3] + others)
    shot.quantize(palette=palette, dither=Image.Dither.NONE).save(out / f"studio-{name}.png", optimize=True)


def question(page: Page, out: Path) -> None:
    shoot(page, out, "start")
    upload(page, "chest.png", case(700_000_003, "pacemaker"))
    page.click("text=Model, method, seeds")
    page.select_option("#count", "3")
    page.click("[aria-label='Remove pacemaker']")
    shoot(page, out, "question")
    answered(page, "Remove pacemaker")
    for name in ("compare", "difference", "heat", "spread"):
        page.check(f"input[name=mode][value={name}]", force=True)
        shoot(page, out, name)
    page.check("input[name=mode][value=compare]", force=True)


def others(page: Page, out: Path) -> None:
    page.click("#tab-generate")
    page.fill("#g-prompt", "world chest radiograph with large left pleural effusion")
    page.click("#g-submit")
    page.wait_for_selector("#gallery canvas", timeout=MINUTES)
    shoot(page, out, "generate")
    page.click("#tab-data")
    page.wait_for_selector("#rows td img", timeout=MINUTES)
    page.click("#batch summary")
    shoot(page, out, "data")
    page.click("#tab-bench")
    page.wait_for_selector("#bench td", timeout=MINUTES)
    shoot(page, out, "bench")
    page.click("#tab-edit")
    page.set_viewport_size({"width": 820, "height": 1180})
    shoot(page, out, "tablet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder with manifests")
    parser.add_argument("--bench", type=Path, help="a folder with results of counterscan bench")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/figures"))
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        with studio(given.data, given.bench) as address:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.set_default_timeout(MINUTES)
            page.on("console", lambda said: print(said.type, said.text))
            page.on("pageerror", lambda error: print("error", error))
            page.goto(address)
            page.wait_for_selector("body[data-ready]")
            question(page, given.output)
            others(page, given.output)
        trial(browser, given.output)
        browser.close()


if __name__ == "__main__":
    main()
