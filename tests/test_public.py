"""The public names are sorted, lazy, and lead somewhere."""

from __future__ import annotations

import subprocess
import sys

import counterscan


def test_names_are_sorted_and_resolve():
    assert counterscan.__all__ == sorted(counterscan.__all__)
    for name in counterscan.__all__:
        assert getattr(counterscan, name) is not None


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, counterscan; print([m for m in ('torch', 'numpy', 'diffusers', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
