"""``counterscan train``: train or fine-tune any part of a model, as a config says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from counterscan.cli.output import complain, emit, folder_for, write_run

EVERY = 30.0  # seconds between two lines of progress where stderr is no terminal


def train(
    config: Annotated[Path, typer.Argument(help="What to train, on what and how: a YAML file, such as in configs/.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Laid over the file.")] = None,
    more: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="The same.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan with memory and time; keep nothing.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run; an error if there is none.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train or fine-tune a model. The same command goes on with a run that was stopped, as if it had not been.

    Example: counterscan train configs/quick-unet.yaml data.manifest=manifest.csv output=runs/first
    """
    from counterscan.training.config import read

    asked = read(config, [*(settings or []), *(more or [])])
    if dry_run:
        from counterscan.training.plan import plan

        found = plan(asked)
        emit(asdict(found) | {"seconds": found.seconds}, as_json, str(found))
        return
    folder = folder_for(asked.output)
    from counterscan.backbones.card import Card
    from counterscan.training.state import Run
    from counterscan.training.trainer import train

    if resume:
        Run(folder).newest()
    with _told() as report:
        result = train(asked, report=report)
    card = Card.read(result.folder)
    assert card is not None  # what is trained has one
    model = {"name": card.name, "fingerprint": card.training["fingerprint"]}
    summary = asdict(result) | {"folder": str(result.folder), "model": model, "scores": dict(card.scores)}
    write_run(folder, "train", {"config": config, **asked.model_dump(mode="json")}, summary)
    emit(summary, as_json, f"{result.steps} steps, loss {result.loss:.4f}: the model is in {result.folder}")


@contextmanager
def _told() -> Iterator[Callable[[Any], None]]:
    """A bar with loss, pace and time left on a terminal; elsewhere, as in a job's log, a line twice a minute."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = BarColumn(), TextColumn("{task.description}")
    last = 0.0
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("opening model and data", total=None)

        def report(progress: Any) -> None:
            nonlocal last
            bar.update(task, description=str(progress), completed=progress.done, total=progress.total)
            if not console.is_terminal and (time.monotonic() - last > EVERY or progress.done == progress.total):
                last = time.monotonic()
                complain(str(progress))

        yield report
