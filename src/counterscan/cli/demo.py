"""``counterscan demo``: real radiographs and computed ones, edited, with a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from counterscan.cli.output import emit, folder_for, progress, write_run


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Equal seeds give equal results.")] = 0,
    model: Annotated[str, typer.Option(help="The model for the radiographs.")] = "chest-nih",
    world_model: Annotated[str, typer.Option(help="The model for the computed images.")] = "chest-world",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Edit a few real radiographs and computed ones, and write report.html. Under a minute on two cores.

    Example: counterscan demo -o demo
    """
    import counterscan
    from counterscan.report import make_demo

    folder = folder_for(output)
    backbones = counterscan.load(model, offline=True), counterscan.load(world_model, offline=True)
    with progress("demo") as report:
        items = make_demo(folder, *backbones, seed=seed, progress=report)
    summary = {"report": "report.html", "items": items}
    settings = {"seed": seed, "model": model, "world_model": world_model}
    write_run(folder, "demo", settings, summary, list(backbones))
    emit(summary, as_json, f"done: open {folder / 'report.html'}")
