"""The page in a real browser: ask, compare, download, cancel; and two visitors who see only their own."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

pytest.importorskip("fastapi", reason="needs the extra studio")
pytest.importorskip("playwright", reason="needs playwright")

from PIL import Image
from playwright import sync_api
from tests.models import tiny
from tests.studio.test_series import packed, slice_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a system Chromium")
PATIENCE = 300_000  # milliseconds, on a busy machine


def png(shade: int = 0) -> bytes:
    y, x = np.indices((60, 50))
    buffer = io.BytesIO()
    Image.fromarray((y * 700 + x * 300 + shade).astype(np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A studio of its own process, as people start it."""
    folder = tmp_path_factory.mktemp("studio")
    data = folder / "data"
    data.mkdir()
    (data / "one.png").write_bytes(png())
    (data / "set.csv").write_text("path,patient,pacemaker\none.png,1,1\n")
    model = tiny(folder / "tiny")
    words = ["--port", "0", "--model", str(model), "--state", str(folder / "state"), "--data", str(data), "--offline"]
    command = [sys.executable, "-m", "counterscan", "studio", *words]
    source = str(Path(__file__).parents[2] / "src")
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": source}
    ) as server:
        try:
            yield next(found[0] for line in server.stderr if (found := re.search(r"http://\S+", line)))
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def visit(browser, address):
    """Open the page as a new visitor. Nothing may be said on the console, or asked of another host."""
    contexts, faults = [], []

    def come(**more):
        context = browser.new_context(viewport={"width": 1280, "height": 800}, **more)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on(
            "console",
            lambda said: faults.append(said.text) if said.type == "error" and "422" not in said.text else None,
        )
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request",
            lambda request: None if request.url.startswith((address, "data:", "blob:")) else faults.append(request.url),
        )
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        return page

    yield come
    for context in contexts:
        context.close()
    assert faults == []


def upload(page, name="chest.png", content=None):
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content or png()})
    page.wait_for_function("n => document.getElementById('image-facts').textContent.includes(n)", arg=name)


def ask(page):
    page.click("[aria-label='Remove pacemaker']")
    page.click("#submit")


def answered(page):
    page.wait_for_selector("#result:not([hidden])")
    page.wait_for_function("() => !document.querySelector('#jobs .job')")


def test_upload_remove_slide_download(visit):
    page = visit()
    upload(page)
    ask(page)
    answered(page)
    assert page.inner_text("#asked") == "Remove pacemaker"
    assert page.inner_text("#tag-right") == "Answer, synthetic"
    shots = []
    for part in ("0", "1"):
        page.locator("#split").fill(part)
        page.wait_for_timeout(200)
        shots.append(page.locator("#canvas").screenshot())
    assert shots[0] != shots[1]
    with page.expect_download() as waiting:
        page.click("#files a:text-is('DICOM')")
    dicom = pydicom.dcmread(waiting.value.path())
    assert dicom.SyntheticData == "YES" and not dicom.PatientName
    with page.expect_download() as waiting:
        page.click("#files a:text-is('PNG')")
    with Image.open(waiting.value.path()) as made:
        assert made.size == (50, 60) and made.info["Synthetic"] == "yes"
        assert np.array_equal(np.asarray(made), dicom.pixel_array)


def test_find_tells_its_threshold_and_that_no_rate_is_promised(visit):
    page = visit()
    upload(page)
    page.check("input[name=kind][value=find]", force=True)
    page.select_option("#wanted", "pacemaker")
    page.select_option("#repeats", "2")
    page.click("#submit")
    answered(page)
    told = page.inner_text("#result")
    assert "How often it errs so is not known" in told and re.search(r"\d+ of 255 grey levels", told)
    assert page.is_enabled("input[name=mode][value=spread]")  # two repeats may disagree


@pytest.mark.parametrize("zipped", [False, True])
def test_a_series_is_looked_through_and_one_of_its_images_edited(visit, zipped):
    page = visit()
    slices = {f"IM{k}": slice_of(k + 1, z=float(-k), shade=k) for k in range(4)}
    files = {"ct.zip": packed(slices)} if zipped else slices | {"notes.txt": b"not of the series"}
    page.set_input_files("#file", [{"name": n, "mimeType": "", "buffer": data} for n, data in files.items()])
    page.wait_for_selector("#series[open] .instances button:nth-child(4)")
    assert [b.inner_text() for b in page.locator("#series .instances button").all()] == ["4", "3", "2", "1"]
    page.wait_for_function(
        "() => [...document.querySelectorAll('#series img')].every((i) => i.complete && i.naturalWidth)"
    )
    page.click("#series [aria-label='Image 3, IM2']")
    page.wait_for_function("() => document.getElementById('image-facts').textContent.includes('IM2')")
    assert page.is_hidden("#series")
    ask(page)
    answered(page)
    assert page.inner_text("#tag-right") == "Answer, synthetic"
    page.reload()
    page.wait_for_selector("body[data-ready]")
    page.click("#all-series button")
    page.wait_for_selector("#series[open] .instances button:nth-child(4)")
    page.keyboard.press("Escape")
    assert page.is_hidden("#series")


def test_cancel(visit):
    page = visit()
    upload(page)
    page.click("text=Model, method, seeds")
    page.select_option("#count", "6")
    page.click("[aria-label='Remove pacemaker']")
    page.click("#submit")
    page.click("#submit")  # it waits for the first, so it cannot be done before it is cancelled
    page.wait_for_selector("#jobs .job:nth-child(2)")
    page.click("#jobs .job:nth-child(2) .cancel")
    page.wait_for_function("() => document.getElementById('note').textContent === 'Cancelled'")
    answered(page)
    assert page.locator("#history li").count() == 1


def test_two_visitors_see_only_their_own(visit):
    one, two = visit(), visit()
    upload(one, "mine.png")
    upload(two, "theirs.png", png(900))
    for page, own, other in ((one, "mine.png", "theirs.png"), (two, "theirs.png", "mine.png")):
        page.reload()
        page.wait_for_selector("body[data-ready]")
        labels = [button.get_attribute("aria-label") for button in page.locator("#images button").all()]
        assert labels == [f"Open {own}"] and other not in page.content()
    one.click("#end")
    one.wait_for_selector("#empty:not([hidden])")
    two.reload()
    two.wait_for_selector("#images button")


def test_wrong_files_are_refused_in_words(visit):
    page = visit()
    page.set_input_files("#file", {"name": "notes.png", "mimeType": "image/png", "buffer": b"not an image"})
    page.wait_for_selector(".note.bad.shown")
    assert "notes.png" in page.inner_text("#note")


def test_keyboard_alone(visit):
    page = visit()
    upload(page)
    page.keyboard.press("Tab")
    page.focus("#tab-edit")
    page.keyboard.press("ArrowRight")
    assert page.is_visible("#generate") and page.is_hidden("#edit")
    page.keyboard.press("ArrowLeft")
    page.focus("#filter")
    page.keyboard.type("pace")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.inner_text("#changes b") == "Remove pacemaker"
    page.keyboard.press("Control+Enter")
    answered(page)
    page.focus("#canvas")
    page.keyboard.press("5")
    assert page.is_checked("input[name=mode][value=heat]")


def test_ask_the_same_of_a_data_set(visit):
    page = visit()
    page.click("#tab-data")
    page.click("#batch summary")
    page.select_option("#a-finding", "pacemaker")
    page.click("#a-submit")
    page.wait_for_selector("#answers figure canvas")
    assert page.locator("#answers .tag").inner_text() == "Synthetic"
    page.click("#answers figure button")
    page.wait_for_selector("#tag-right:not([hidden])")
    assert page.inner_text("#tag-right") == "Synthetic"


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (820, 1180), (1180, 820)])
def test_nothing_sticks_out(visit, width, height):
    page = visit()
    page.set_viewport_size({"width": width, "height": height})
    upload(page)
    for tab in ("edit", "generate", "data", "bench"):
        page.click(f"#tab-{tab}")
        wide = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, (tab, wide)
        cut = page.evaluate(
            "() => [...document.querySelectorAll('header, [role=tab], .segments')]"
            ".filter((e) => e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight + 1).map((e) => e.textContent)"
        )
        assert cut == [], tab
        for name in ("#submit", "#g-submit"):
            if page.is_visible(name):
                box = page.locator(name).bounding_box()
                assert box["height"] >= 30 and box["x"] + box["width"] <= width
