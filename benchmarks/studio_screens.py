"""Screenshots of the studio for the documentation: ``python benchmarks/studio_screens.py --data DIR --bench DIR``.

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
from playwright.sync_api import Page, sync_playwright

from counterscan.worlds import chest

CHROMIUM = "/usr/bin/chromium"
MINUTES = 10 * 60 * 1000  # an edit on a busy machine takes its time


@contextmanager
def studio(data: Path | None, bench: Path | None) -> Iterator[str]:
    """The address of a studio that lasts as long as the block."""
    with tempfile.TemporaryDirectory() as state:
        words = ["--port", "0", "--model", "chest-world", "--state", state, "--offline"]
        words += [*(["--data", str(data)] if data else []), *(["--bench", str(bench)] if bench else [])]
        command = [sys.executable, "-m", "counterscan", "studio", *words]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            try:
                yield re.search(r"http://\S+", server.stderr.readline())[0]
            finally:
                server.terminate()


def case(seed: int, finding: str) -> bytes:
    """A computed radiograph with the finding, as a PNG file of 16 bits."""
    drawn = chest.intervene(chest.sample(seed), {finding: True})
    buffer = io.BytesIO()
    Image.fromarray((drawn.image * 65535).round().astype(np.uint16)).save(buffer, "PNG")
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
    """A picture of the window, in a palette: flat colours and grey images lose nothing to be seen."""
    settle(page)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    shot.quantize(256, dither=Image.Dither.NONE).save(out / f"studio-{name}.png", optimize=True)


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
    with studio(given.data, given.bench) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.on("console", lambda said: print(said.type, said.text))
        page.on("pageerror", lambda error: print("error", error))
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        question(page, given.output)
        others(page, given.output)
        browser.close()


if __name__ == "__main__":
    main()
