"""``counterscan models``: what is built in, what it scores, and whether it is intact."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from counterscan.cli.output import emit

app = typer.Typer(
    help="List, show and verify models.", epilog="Example: counterscan models show chest-nih", no_args_is_help=True
)
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Model = Annotated[str, typer.Argument(help="A built-in name, a folder or a hub id that has been fetched before.")]


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """The built-in models and their scores.

    Example: counterscan models list
    """
    from counterscan.backbones import locate, names
    from counterscan.backbones.card import Card

    cards = [card for name in names() if (card := Card.read(locate(name)))]
    emit({"models": [asdict(card) for card in cards]}, as_json, "\n".join(map(_line, cards)) or "no built-in models")


def _line(card: object) -> str:
    facts = asdict(card)  # type: ignore[call-overload]
    scores = "".join(f", {key} {value:.3g}" for key, value in facts["scores"].items() if isinstance(value, int | float))
    return f"{facts['name']:14} {facts['resolution']} px, {len(facts['findings'])} findings{scores}"


@app.command()
def show(model: Model, as_json: AsJson = False) -> None:
    """The card of one model: what it knows, how it was made, what it scores.

    Example: counterscan models show chest-nih
    """
    from counterscan.backbones import locate
    from counterscan.backbones.card import Card
    from counterscan.errors import ModelError

    folder = locate(model, offline=True)
    card = Card.read(folder)
    if card is None:
        raise ModelError(f"{folder}: has no counterscan.json; write one like that of a built-in model")
    emit(asdict(card), as_json, json.dumps(asdict(card), indent=2))


@app.command()
def verify(model: Model, as_json: AsJson = False) -> None:
    """Open every component of a model, and compare its fingerprint with the one on its card if there is one.

    Example: counterscan models verify chest-nih
    """
    import counterscan
    from counterscan.errors import ModelError

    backbone = counterscan.load(model, offline=True)
    found, promised = backbone.fingerprint, backbone.card.training.get("fingerprint")
    if promised and promised != found:
        raise ModelError(f"{model}: its weights have fingerprint {found}, its card says {promised}; fetch it again")
    facts = {"model": backbone.card.name, "family": backbone.card.family, "fingerprint": found}
    words = "as on its card" if promised else "its card names none to compare with"
    emit(
        facts | {"card": promised, "ok": True}, as_json, f"{model}: every component opens, fingerprint {found}, {words}"
    )
