"""House rules that a linter does not know."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "counterscan"
FILES = sorted(SOURCE.rglob("*.py"))
FORBIDDEN = ("np.random.seed", "numpy.random.seed", "pickle.load", "torch.manual_seed", "random.seed")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_file(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(tree), "a module says what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in FORBIDDEN
            assert called != "print" or "training" in path.parts, "the library does not print"
            if called == "torch.load":
                assert any(k.arg == "weights_only" and getattr(k.value, "value", 0) is True for k in node.keywords)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 90, f"{node.name} does not fit on a screen"
            if not node.name.startswith("_"):
                assert node.returns is not None, f"{node.name} says what it returns"
