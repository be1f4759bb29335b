"""A whole study in a real browser, with a stop in between."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra studio")
pytest.importorskip("playwright", reason="needs playwright")

from playwright import sync_api
from tests.reader.studies import edits, images, study

from counterscan.reader.measure import near
from counterscan.reader.store import Store
from counterscan.reader.trials import trials

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a system Chromium")
TASKS = (
    "  - {kind: rating, real: real, synthetic: made, count: 1}\n"
    "  - {kind: forced-choice, real: real, synthetic: made, count: 1}\n"
    "  - {kind: change, edits: edits, count: 1}\n  - {kind: quality, edits: edits, count: 1}\n"
)


@pytest.fixture
def known(tmp_path):
    images(tmp_path / "real", 2)
    images(tmp_path / "made", 2, 100)
    edits(tmp_path / "edits", 2)
    return study(tmp_path, TASKS)


@pytest.fixture
def page(known, tmp_path):
    command = [sys.executable, "-m", "counterscan", "reader", str(tmp_path / "study.yaml"), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    faults = []
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server,
        sync_api.sync_playwright() as play,
    ):
        try:
            address = next(found[0] for line in server.stderr if (found := re.search(r"http://\S+", line)))
            page = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page(
                viewport={"width": 1280, "height": 800}
            )
            page.set_default_timeout(300_000)
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.goto(address)
            page.wait_for_selector("body[data-ready]")
            yield page
        finally:
            server.terminate()
    assert faults == []


def counted(page, done):
    """Wait until so many are answered and the next is shown."""
    page.wait_for_selector(f"body[data-trial='{done}']")
    assert page.inner_text("#count") == f"{done} of 5"


def test_a_study_from_the_first_trial_to_the_last(page, known, tmp_path):
    page.fill("#code", "R1")
    page.keyboard.press("Enter")
    counted(page, 0)
    page.keyboard.press("6")
    counted(page, 1)
    page.reload()  # and go on
    counted(page, 1)
    page.keyboard.press("1")
    counted(page, 2)
    page.keyboard.press("ArrowRight")
    counted(page, 3)
    assert page.locator("#answer .primary").is_disabled()
    page.click("#answer button:text-is('effusion')")
    box = page.locator("#views canvas >> nth=0").bounding_box()
    side = min(box["width"], box["height"])  # the picture is square, and in the middle
    corner = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
    page.mouse.click(corner[0] + 0.6 * side, corner[1] + 0.2 * side)
    page.click("#answer .primary")
    counted(page, 4)
    for name, step in (("realism", 4), ("obeyed", 2), ("kept", 5)):
        page.locator(f"input[name={name}]").nth(step - 1).check(force=True)
    page.click("#answer .primary")
    page.wait_for_selector("#end:not([hidden])")
    store = Store(tmp_path / "study.sqlite", known.fingerprint)
    said = {name: answer for _, name, answer in store.answers()}
    first, second, third, fourth, fifth = trials(known, 0)
    assert (said[first.id].rating, said[second.id].rating, said[third.id].choice) == (6, 1, 1)
    assert said[fourth.id].finding == "effusion" and near(fourth.case, said[fourth.id].mark)
    assert said[fifth.id].scales == {"realism": 4, "obeyed": 2, "kept": 5}
    assert all(0 < answer.seconds < 300 for answer in said.values())
