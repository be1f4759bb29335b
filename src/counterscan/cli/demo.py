"""``counterscan demo``: real radiographs and computed ones, edited, with a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from counterscan.cli.output import emit, progress, write_run


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Equal seeds give equal results.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Edit a few shipped radiographs and world cases, and write report.html. Under a minute on two cores.

    Example: counterscan demo -o demo
    """
    from counterscan.report import make_demo

    output.mkdir(parents=True, exist_ok=True)
    with progress("demo") as report:
        items = make_demo(output, seed=seed, progress=report)
    summary = {"report": "report.html", "items": items}
    write_run(output, "demo", {"seed": seed}, summary)
    emit(summary, as_json, f"open {output / 'report.html'}")
