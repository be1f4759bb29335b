"""The method that docs/methods.md builds works as it says there; every method has its entry."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from counterscan import load, methods
from counterscan.bench.run import bench
from counterscan.methods.check import check_method
from counterscan.types import Edit

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


@pytest.fixture(scope="module")
def one_step(tmp_path_factory: pytest.TempPathFactory) -> Any:
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    assert len(code.splitlines()) < 60
    path = tmp_path_factory.mktemp("own") / "one_step.py"
    path.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("one_step", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "one_step", module)  # where dataclasses look annotations up
        spec.loader.exec_module(module)
    return module.OneStep


def test_it_keeps_the_promises(one_step: Any, tiny_folder: Path) -> None:
    edit = Edit("no pleural effusion", "small left pleural effusion")
    check_method(one_step(), load(tiny_folder, dtype=torch.float64), edit=edit, null_tolerance=1e-5)


def test_it_appears_in_bench(one_step: Any, tiny_folder: Path, tmp_path: Path) -> None:
    rows = bench(
        load(tiny_folder), [one_step(draws=2)], "chest", tmp_path, n=1, findings=["pacemaker"], directions=["remove"]
    )["rows"]
    assert [(row["method"], row["evaluations"]) for row in rows] == [("one-step", 4)]


def test_every_method_and_preset_has_an_entry() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert set(re.findall(r"^### `(.*)`$", text, re.MULTILINE)) == set(methods.names()) - set(methods.PRESETS)
    assert set(re.findall(r"^\| `(.*?)` \|", text, re.MULTILINE)) == set(methods.names())
