"""The guide to data names every layout and every kind of problem, in the words of the code."""

from __future__ import annotations

import re
from pathlib import Path

from counterscan.data import checks, looks, opened
from counterscan.data.readers import LAYOUTS, describe

GUIDE = Path(__file__).parents[2] / "docs/data.md"


def table():
    """What stands between the marks; to write it anew, paste what this returns."""
    lines = [f"| `{name}` | {text.replace('``', '`')} |" for name, text in describe().items()]
    return "\n".join(["| layout | what |", "| --- | --- |", *lines])


def test_the_table_of_layouts_is_the_readers_own():
    text = GUIDE.read_text(encoding="utf-8")
    assert text.partition("<!-- layouts -->\n")[2].partition("\n<!-- end -->")[0] == table()
    assert all(f"**{layout}** —" in text for layout in LAYOUTS)


def test_every_kind_of_problem_is_explained():
    sources = "".join(Path(module.__file__).read_text(encoding="utf-8") for module in (checks, looks, opened))
    named = set(re.findall(r'found\.add\("([a-z ]+)"', sources)) | set(
        re.findall(r'\[?\("((?:bad|missing|unr)[a-z ]+)"', sources)
    )
    named |= checks.UNSOUND | {"duplicate", "inverted", "rotated"}
    rows = dict(re.findall(r"^\| ([a-z ,]+) \| .* \| (yes|) ?\|$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE))
    told = {kind: bool(unsound) for kinds, unsound in rows.items() for kind in kinds.split(", ")}
    assert told == {kind: kind in checks.UNSOUND for kind in named}
