"""``counterscan models``: what is built in, what it scores, and whether it is intact."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any

import typer

from counterscan.cli.output import emit
from counterscan.errors import ModelError, WordsError

app = typer.Typer(
    help="List, show and verify models.", epilog="Example: counterscan models show chest-nih", no_args_is_help=True
)
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
SHOWN = 3  # scores of a model in a line
Model = Annotated[
    str,
    typer.Argument(help="A built-in name, a folder (of a classifier too) or a hub id that has been fetched before."),
]


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """The built-in models, the classifiers that judge what they do, and their scores.

    Example: counterscan models list
    """
    from counterscan.backbones import locate, names
    from counterscan.backbones.card import Card
    from counterscan.robustness.opening import judges

    cards = [asdict(card) for name in names() if (card := Card.read(locate(name)))]
    known = [facts for name in judges() if (facts := _classifier(name))]
    lines = [_line(card, card["resolution"], _known(card["findings"])) for card in cards]
    lines += [_line(facts, facts["size"], f"{len(facts['labels'])} labels, a classifier") for facts in known]
    emit({"models": cards, "classifiers": known}, as_json, "\n".join(lines) or "no built-in models")


def _line(card: dict[str, Any], side: int, knows: str) -> str:
    """The first scores; ``models show`` has all."""
    scores = "".join(f", {name} {value:.3g}" for name, value in islice(_measured(card["scores"]), SHOWN))
    return f"{card['name']:18} {side} px, {knows}{scores}"


def _measured(scores: dict[str, Any], under: str = "") -> Iterator[tuple[str, float]]:
    """Every score by its whole name, without how many images it was measured on."""
    for name, value in scores.items():
        if isinstance(value, dict):
            yield from _measured(value, f"{under}{name} ")
        elif isinstance(value, int | float) and name != "n":
            yield f"{under}{name}", value


def _known(findings: Sequence[str]) -> str:
    return f"{len(findings)} finding{'s' * (len(findings) != 1)}" if findings else "any words"


def _classifier(model: str) -> dict[str, Any] | None:
    """The card of a classifier; ``None`` where that is the name of none."""
    from counterscan.evaluate.spaces import classifier_folder

    try:
        path = classifier_folder(model) / "classifier.json"
    except WordsError:
        return None
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error})") from None
    return facts


@app.command()
def show(model: Model, as_json: AsJson = False) -> None:
    """The card of one model: what it knows, how it was made, what it scores.

    Example: counterscan models show chest-nih
    """
    from counterscan.backbones import locate
    from counterscan.backbones.card import Card

    facts = _classifier(model)
    if facts is None:
        folder = locate(model, offline=True)
        card = Card.read(folder)
        if card is None:
            raise ModelError(f"{folder}: has no counterscan.json; write one like that of a built-in model")
        facts = asdict(card)
    emit(facts, as_json, json.dumps(facts, indent=2))


@app.command()
def verify(model: Model, as_json: AsJson = False) -> None:
    """Open every component of a model, and compare its fingerprint with the one on its card if there is one.

    Example: counterscan models verify chest-nih
    """
    import counterscan
    from counterscan.evaluate.spaces import open_space

    card = _classifier(model)
    if card is None:
        backbone = counterscan.load(model, offline=True)
        name, family, promised = backbone.card.name, backbone.card.family, backbone.card.training.get("fingerprint")
        found = backbone.fingerprint
    else:
        space = open_space(model)
        name, family, promised, found = space.name, "classifier", card.get("fingerprint"), space.fingerprint
    if promised and promised != found:
        raise ModelError(f"{model}: its weights have fingerprint {found}, its card says {promised}; fetch it again")
    facts = {"model": name, "family": family, "fingerprint": found}
    words = "as on its card" if promised else "its card names none to compare with"
    emit(
        facts | {"card": promised, "ok": True}, as_json, f"{model}: every component opens, fingerprint {found}, {words}"
    )
