"""What notebooks show, and the notebook in examples/, run as plain Python on a tiny model."""

from __future__ import annotations

import ast
import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.models import tiny

import counterscan
from counterscan import backbones
from counterscan.attribution import Attribution
from counterscan.result import Counterfactual
from counterscan.types import Edit

NOTEBOOK = Path(__file__).parent.parent / "examples/quickstart.ipynb"
HOSTILE = "<script>alert('x')</script>\"&"


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder where ``chest-world`` is a tiny model."""
    tiny(tmp_path / "models/chest-world")
    monkeypatch.setattr(backbones, "_models", lambda: tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pictures(html: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def plain(html: str) -> None:
    """Nothing from elsewhere, nothing that runs, and what it is in words."""
    without = re.sub(r'src="data:[^"]+"', "", html)
    assert not re.search(r"https?:|src=|<script|<link|\bon\w+=", without)
    assert "Synthetic, not for diagnosis" in html and 'alt="Synthetic' in html


def test_the_notebook_runs_and_shows_its_answers(workplace, capsys):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    names: dict[str, Any] = {}
    shown = []
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            tree = ast.parse("".join(cell["source"]))
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            value = None
            exec(compile(tree, "quickstart.ipynb", "exec"), names)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), "quickstart.ipynb", "eval"), names)
            if hasattr(value, "_repr_html_"):
                shown.append(value)
    assert [type(value) for value in shown] == [Counterfactual, Attribution, Counterfactual]
    for value in shown:
        html = value._repr_html_()
        plain(html)
        (picture,) = pictures(html)
        assert picture.width > picture.height > 100
    assert (workplace / "out/pacemaker.json").is_file()
    assert "error inside the true change:" in capsys.readouterr().out


def test_words_are_escaped_in_html(workplace):
    image = np.linspace(0, 1, 40 * 50, dtype=np.float32).reshape(40, 50)
    result = counterscan.edit(
        image, source="chest radiograph", target="pacemaker", model="chest-world", method="sdedit"
    )
    object.__setattr__(result, "edit", Edit(HOSTILE, HOSTILE, region=HOSTILE))
    empty = np.zeros((40, 50), np.float32)
    where = Attribution(result.factual, HOSTILE, empty, empty, empty > 0, 0.1, [], False, 1, 0.1, 0, HOSTILE, "abc")
    for html in (result._repr_html_(), where._repr_html_()):
        plain(html)
        assert "&lt;script&gt;" in html
    assert "not seen" in where._repr_html_()
    left, right = np.hsplit(np.asarray(pictures(where._repr_html_())[0]), 2)
    assert np.array_equal(left, right)  # nothing found, nothing tinted
