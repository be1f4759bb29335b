"""``counterscan data``: data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from counterscan.cli.output import emit, progress

app = typer.Typer(help="Make data sets.", no_args_is_help=True)


@app.command()
def world(
    name: Annotated[str, typer.Argument(help="The world: chest.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for images and manifest.csv.")],
    count: Annotated[int, typer.Option("-n", min=1, help="How many cases.")] = 100,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal images.")] = 0,
    size: Annotated[int, typer.Option(min=32, help="Pixels a side.")] = 256,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Draw computed images with exact labels, captions and (through the API) exact counterfactuals.

    Example: counterscan data world chest -n 100 -o world
    """
    from counterscan.worlds.dataset import write_world

    with progress(f"drawing {name}") as report:
        manifest = write_world(name, output, count, seed=seed, size=size, progress=report)
    emit({"manifest": manifest.name, "items": count, "world": name, "seed": seed}, as_json, f"{count} cases, {manifest}")
