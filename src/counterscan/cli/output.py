"""What the commands share: progress on stderr, one JSON object on stdout, run.json, one-line errors."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer


def emit(value: dict[str, Any], as_json: bool, text: str) -> None:
    """Print the result: the object itself with ``--json``, else a text for people."""
    typer.echo(json.dumps(value) if as_json else text)


def complain(message: str) -> None:
    """One line on stderr."""
    typer.echo("counterscan: " + " ".join(str(message).split()), err=True)


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr; gives the ``progress(done, total)`` callable of the API. Silent when not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=console,
        transient=True, disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def write_run(folder: Path, command: str, settings: dict[str, Any], result: dict[str, Any], backbone: Any = None) -> None:
    """Write ``run.json``: what was asked, with what, and what came of it."""
    import platform
    from importlib.metadata import version

    from counterscan import __version__

    run = {
        "command": command,
        "arguments": sys.argv[1:],
        "settings": settings,
        "versions": {"counterscan": __version__, "python": platform.python_version()}
        | {name: version(name) for name in ("torch", "diffusers", "transformers", "numpy")},
        "model": {"name": backbone.card.name, "fingerprint": backbone.fingerprint} if backbone is not None else None,
        "result": result,
    }
    path = folder / "run.json"
    draft = folder / f".run.json.{os.getpid()}"
    draft.write_text(json.dumps(run, indent=2, default=str) + "\n", encoding="utf-8")
    os.replace(draft, path)


def unique_stems(paths: list[Path]) -> list[str]:
    """A file stem for each path; equal ones are numbered, so no result overwrites another."""
    stems: list[str] = []
    for path in paths:
        base = path.name.split(".")[0] or "image"
        stem, k = base, 2
        while stem in stems:
            stem, k = f"{base}-{k}", k + 1
        stems.append(stem)
    return stems
