"""Options that several commands share: settings of a method."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from tests.cli.test_cli import run
from tests.models import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "chest.png"
    Image.fromarray(np.add.outer(np.arange(50) * 3, np.arange(40) * 2).astype(np.uint8)).save(path)
    return path


def test_settings_behind_a_methods_name(model, image, tmp_path):
    words = ["edit", image, "--remove", "pacemaker", "--model", model]
    result, code, said = run(*words, "--method", "ddim:steps=2,depth=1", "-o", tmp_path / "out", "--json")
    assert code == 0, said
    (item,) = json.loads(result.stdout)["items"]
    assert (item["method"], item["evaluations"]) == ("ddim", 6)
    assert json.loads((tmp_path / "out/chest.json").read_text())["settings"]["steps"] == 2
    for wrong in ("ddim:step=2", "ddim:steps=two"):
        _, code, said = run(*words, "--method", wrong, "-o", tmp_path / "none")
        assert code == 2 and "known are steps, depth, guidance" in said


def test_rows_of_a_bench_go_by_the_full_spelling(model, tmp_path):
    names = ["sdedit:steps=2,depth=1", "sdedit:steps=3"]
    words = ["bench", "--model", model, "--methods", ",".join(names), "-n", 1, "--findings", "pacemaker", "--json"]
    result, code, said = run(*words, "-o", tmp_path)
    assert code == 0, said
    rows = json.loads(result.stdout)["rows"]
    assert [row["method"] for row in rows if row["direction"] == "add"] == names
    assert rows[0]["evaluations"] == 4 and names[0] in (tmp_path / "results.md").read_text()
