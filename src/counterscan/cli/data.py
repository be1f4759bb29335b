"""``counterscan data``: data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from counterscan.cli import data_deidentify, data_sets
from counterscan.cli.output import emit, folder_for, progress, write_run
from counterscan.errors import WordsError

app = typer.Typer(
    help="Import, check, caption, de-identify and make data sets.",
    epilog="Example: counterscan data check manifest.parquet -o report",
    no_args_is_help=True,
)


app.command("import")(data_sets.import_)
app.command("layouts")(data_sets.layouts)
app.command("check")(data_sets.check)
app.command("caption")(data_sets.caption)
app.command("deidentify")(data_deidentify.deidentify)


@app.command()
def world(
    name: Annotated[str, typer.Argument(help="The world: brain, chest or colon.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for images and manifest.csv.")],
    count: Annotated[int, typer.Option("-n", min=1, help="How many cases.")] = 100,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Equal seeds give equal images.")] = 0,
    size: Annotated[int, typer.Option(min=32, max=4096, help="Pixels a side.")] = 256,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Draw computed images with exact labels, captions and (through the API) exact counterfactuals.

    Example: counterscan data world chest -n 100 -o world
    """
    from counterscan.worlds.dataset import WORLDS, write_world

    if name not in WORLDS:
        raise WordsError(f"no world {name!r}: known are {', '.join(WORLDS)}")
    folder = folder_for(output)
    _same_world(folder, {"world": name, "seed": seed, "size": size})
    settings = {"world": name, "n": count, "seed": seed, "size": size}
    write_run(folder, "data world", settings, {"finished": False})  # first, so that a stopped run can be gone on with
    with progress(f"drawing {name}") as report:
        manifest = write_world(name, folder, count, seed=seed, size=size, progress=report)
    summary = {"manifest": manifest.name, "items": count, "world": name, "seed": seed, "size": size}
    write_run(folder, "data world", settings, summary | {"finished": True})
    emit(summary, as_json, f"{count} cases in {manifest}")


def _same_world(folder: Path, asked: dict[str, Any]) -> None:
    """Images that exist are kept, so a folder may only be gone on with by the same words."""
    if not (folder / "images").is_dir():
        return
    try:
        found = json.loads((folder / "run.json").read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise WordsError(f"{folder}: holds images of unknown origin; name an empty folder") from None
    for key, value in asked.items():
        if found.get(key) != value:
            raise WordsError(f"{folder}: holds {key} {found.get(key)}, not {value}; name another folder")
