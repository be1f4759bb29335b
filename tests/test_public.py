"""The public names are sorted, lazy, and lead somewhere; nothing calls home."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points, version
from types import ModuleType

import pytest

import counterscan


def run(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    kept = {name: value for name, value in os.environ.items() if name not in ("DO_NOT_TRACK", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept | environment
    )  # fmt: skip
    return done.stdout.strip()


def test_names_are_sorted_and_documented():
    assert counterscan.__all__ == sorted(counterscan.__all__)
    assert dir(counterscan) == counterscan.__all__
    for name in set(counterscan.__all__) - {"__version__"}:
        thing = getattr(counterscan, name)
        assert not isinstance(thing, ModuleType), f"a module hides {name}"
        assert thing.__doc__, f"{name} says what it is for"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = counterscan.nothing


@pytest.mark.parametrize("first", ["counterscan.editing", "counterscan.attribution", "counterscan.cli"])
def test_functions_stay_functions_whatever_is_imported_first(first):
    code = f"import {first}, counterscan as c; print(callable(c.edit), callable(c.attribute), callable(c.load))"
    assert run(code) == "True True True"


def test_importing_the_package_imports_nothing_heavy():
    heavy = ("torch", "numpy", "diffusers", "transformers", "PIL", "typer")
    assert run(f"import sys, counterscan; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_nothing_calls_home_unless_the_user_says_so():
    show = "import os, counterscan; print(os.environ['DO_NOT_TRACK'], os.environ['OMP_WAIT_POLICY'])"
    assert run(show) == "1 PASSIVE"
    assert run(show, DO_NOT_TRACK="0") == "0 PASSIVE"


def test_the_installed_package_is_this_one():
    assert version("counterscan") == counterscan.__version__
    assert [e.value for e in entry_points(group="console_scripts", name="counterscan")] == ["counterscan.cli:main"]
