"""``counterscan models``: what is built in, what it scores, and whether it is intact."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from counterscan.cli.output import emit

app = typer.Typer(help="List, show and verify models.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """The built-in models. Example: counterscan models list"""
    from counterscan.backbones import locate, names
    from counterscan.backbones.card import Card

    cards = [card for name in names() if (card := Card.read(locate(name)))]
    lines = [f"{c.name:14} {c.resolution} px, {c.channels} channel(s), {len(c.findings)} findings" for c in cards]
    emit({"models": [asdict(card) for card in cards]}, as_json, "\n".join(lines) or "no built-in models installed")


@app.command()
def show(model: str, as_json: AsJson = False) -> None:
    """The card of one model. Example: counterscan models show chest-nih"""
    from counterscan.backbones import locate
    from counterscan.backbones.card import Card
    from counterscan.errors import ModelError

    folder = locate(model, offline=True)
    card = Card.read(folder)
    if card is None:
        raise ModelError(f"{folder}: has no counterscan.json")
    emit(asdict(card), as_json, json.dumps(asdict(card), indent=2))


@app.command()
def verify(model: str, as_json: AsJson = False) -> None:
    """Open every component of a model and print its fingerprint. Example: counterscan models verify chest-nih"""
    import counterscan

    backbone = counterscan.load(model, offline=True)
    facts = {"model": backbone.card.name, "family": backbone.family, "fingerprint": backbone.fingerprint, "ok": True}
    emit(facts, as_json, f"{backbone.card.name}: every component opens, fingerprint {backbone.fingerprint}")
