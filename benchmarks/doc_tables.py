"""Write the tables in the documentation that are the code's own words: ``python benchmarks/doc_tables.py``.

Each stands between ``<!-- NAME -->`` and ``<!-- end -->``; tests/test_docs.py fails where one has drifted.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

SOURCE, DOCS = Path("src/counterscan"), Path("docs")
PAPER = re.compile(r'([A-ZÀ-Ž][^()";:.]*?(?: et al\.)?[^()";:.]*? (?:19|20)\d\d),? "([^"]+?)"')


def docstring(path: Path) -> str:
    """The module's docstring on one line."""
    return " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split())


def parts() -> str:
    """Every part of the package and the first sentence of its docstring."""
    paths = sorted(p for p in SOURCE.iterdir() if (p.suffix == ".py" or (p / "__init__.py").is_file()))
    lines = ["| part | what it is |", "| --- | --- |"]
    for path in paths:
        if not path.name.startswith("_"):
            text = docstring(path if path.is_file() else path / "__init__.py").replace("``", "`").replace("|", "\\|")
            lines.append(f"| `{path.stem}` | {re.split(r'(?<=[.]) (?=[A-Z`>])', text)[0]} |")
    return "\n".join(lines)


def papers() -> str:
    """Every method with the papers that its docstring names."""
    lines = ["| method | paper |", "| --- | --- |"]
    for path in sorted((SOURCE / "methods").glob("*.py")):
        found = PAPER.findall(docstring(path))
        if found:
            told = "; ".join(f"{who}: *{title}*" for who, title in found)
            lines.append(f"| `{path.stem.replace('_', '-')}` | {told} |")
    return "\n".join(lines)


def measured() -> str:
    """What benchmarks/worlds.py found."""
    return Path("benchmarks/results/worlds/results.md").read_text(encoding="utf-8").strip()


TABLES = {"design.md": ("parts", parts), "cite.md": ("papers", papers), "worlds.md": ("results", measured)}


def filled(text: str, name: str, table: str) -> str:
    """The page with the table in its place."""
    return re.sub(f"(?s)<!-- {name} -->\n.*?<!-- end -->", lambda _: f"<!-- {name} -->\n{table}\n<!-- end -->", text)


if __name__ == "__main__":
    for page, (name, make) in TABLES.items():
        path = DOCS / page
        path.write_text(filled(path.read_text(encoding="utf-8"), name, make()), encoding="utf-8")
