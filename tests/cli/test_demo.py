"""The demo and its report: it stands alone, says what it is, and measures what it shows."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.models import tiny

import counterscan
from counterscan import report
from counterscan.backbones.base import Backbone
from counterscan.imaging import from_array
from counterscan.worlds import chest

EXAMPLES = Path(str(resources.files("counterscan"))) / "data" / "examples"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    findings = (*chest.FINDINGS, "support devices")
    return counterscan.load(tiny(tmp_path_factory.mktemp("model") / "tiny", findings=findings))


class Links(HTMLParser):
    """Collects tags that are not closed, and everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "input", "link"):
            self.open.append(tag)
        fetches = ("src", "srcset", "data") if tag != "link" else ("href",)
        self.fetched += [value or "" for key, value in attrs if key in fetches]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_demo_writes_a_report_that_stands_alone(backbone: Backbone, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    items = report.make_demo(tmp_path / "demo", backbone, backbone, progress=lambda *at: told.append(at))
    shipped = json.loads((EXAMPLES / "examples.json").read_text())["items"]
    assert len(items) == len(shipped) + len(report.WORLD_CASES) == told[-1][0] == told[-1][1]
    assert all((tmp_path / "demo" / item["counterfactual"]).is_file() for item in items)
    assert [item["error_inside"] is None for item in items] == [True] * len(shipped) + [False] * len(report.WORLD_CASES)
    text = (tmp_path / "demo" / "report.html").read_text()
    links = Links()
    links.feed(text)
    assert not links.open
    assert links.fetched
    assert all(link.startswith("data:image/png;base64,") for link in links.fetched)
    assert not re.search(r"url\(|@import|fetch\(|<script src", text)
    assert text.count("Not for diagnosis") >= 2
    assert "NIH Clinical Center" in text
    assert "https://nihcc.app.box.com/v/ChestXray-NIHCC" in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(("finding", "direction", "number"), report.WORLD_CASES)
def test_the_error_is_zero_for_the_truth_and_one_for_doing_nothing(
    finding: str, direction: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = chest.intervene(chest.sample(report.UNSEEN + number), {finding: direction == "add"}).image
    for error in (0, 1):

        def edit(image: Any, exact: bool = error == 0, **words: Any) -> SimpleNamespace:
            assert finding in words[direction]
            return SimpleNamespace(counterfactual=from_array(truth if exact else image))

        monkeypatch.setattr(counterscan, "edit", edit)
        shown = report.world_case(finding, direction, number, None, 0)  # type: ignore[arg-type]
        assert shown.error == pytest.approx(error, abs=1e-3)


def test_the_shipped_radiographs_are_small_and_credited() -> None:
    facts = json.loads((EXAMPLES / "examples.json").read_text())
    files = sorted(path.name for path in EXAMPLES.glob("*.png"))
    assert sorted(item["file"] for item in facts["items"]) == files
    assert sum((EXAMPLES / name).stat().st_size for name in files) < 1_500_000
    assert "NIH Clinical Center" in facts["credit"]
    assert "CVPR 2017" in facts["credit"]
    assert facts["link"].startswith("https://nihcc.app.box.com/")
    assert all(len(item["edit"]) == 1 for item in facts["items"])
