"""The pages on methods say of every method and peer what they should, and of defaults what the cards say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from counterscan import methods
from counterscan.backbones import names
from counterscan.backbones.card import Card
from counterscan.bench.peers import PEERS

DOCS = Path(__file__).parent.parent / "docs"
MODELS = Path(methods.__file__).parent.parent / "models"
PAGE = (DOCS / "methods.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in methods.names() if name not in methods.PRESETS])
def test_every_method_is_cited(name):
    assert re.search(rf"(?m)^\| `{name}` \| .+ \d{{4}}: \*", (DOCS / "cite.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_has_its_line(name):
    assert re.search(rf"(?m)^\| .+`{name}` \|", PAGE)


def test_defaults_are_those_of_the_cards():
    defaults = {name: Card.read(MODELS / name).default_method for name in names()}
    told = [
        (heading, model)
        for heading, text in re.findall(r"(?ms)^### `([\w-]+)`$(.*?)(?=^##)", PAGE)
        for model in re.findall(r"the default of `([\w-]+)`", text)
    ]
    assert len(told) >= 2
    assert all(defaults[model] == method for method, model in told)
    assert "default of the built-in" not in PAGE
