"""What the commands share: options, progress on stderr, one JSON object on stdout, run.json, one-line errors."""

from __future__ import annotations

import filecmp
import importlib
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from counterscan.errors import ImageError, WordsError

Device = Annotated[str, typer.Option(help="Where the model runs: cpu, openvino (a faster cpu) or cuda, also cuda:1.")]
Dtype = Annotated[str, typer.Option(help="What it computes in: float32, or bfloat16 or float16, half the memory.")]
Slice = Annotated[int | None, typer.Option("--slice", min=0, help="Of NIfTI volumes, which slice of the last axis.")]
Report = Callable[[int, int], None]
SECRET = "token"  # the option whose value no file may hold
log = logging.getLogger("counterscan.cli")


def emit(value: dict[str, Any], as_json: bool, text: str) -> None:
    """Print the result: the object itself with ``--json``, else a text for people."""
    typer.echo(json.dumps(strict(value), allow_nan=False) if as_json else text)


def strict(value: Any) -> Any:
    """The same with null for every number that JSON has not (NaN, infinity)."""
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def listening(what: str, as_json: bool) -> Callable[[str], None]:
    """What a server says once it listens: with ``--json`` its address on stdout as well."""

    def told(address: str) -> None:
        complain(f"the {what} is at {address} (Ctrl-C ends it)")
        if as_json:
            typer.echo(json.dumps({"address": address}))

    return told


def complain(message: str) -> None:
    """One line on stderr; inside an ``except``, ``--debug`` shows the traceback too."""
    typer.echo("counterscan: " + " ".join(message.split()), err=True)
    log.debug("traceback", exc_info=sys.exc_info()[0] is not None)


def explain(error: BaseException, path: Path | None = None) -> str:
    """An error as one line that says where: with the whole path of the image that was worked on, where there is one."""
    from counterscan.errors import CounterscanError

    if isinstance(error, CounterscanError):
        text = str(error)
        if path is None or str(path) in text:
            return text
        return f"{path}: {text.removeprefix(f'{path.name}: ')}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or path or 'file'}: {error.strerror}"
    where = f"{path}: " if path else ""
    return f"{where}unexpected {type(error).__name__}: {error}; please report it, with the output of --debug"


def folder_for(path: Path, images: Sequence[Path] = ()) -> Path:
    """Refuse an output folder that cannot be one, before any work is done. It is made when there is something in it.

    Nor may it hold what would be overwritten: another command's results, or the edit of another image than ``images`` under
    the name of one of them.
    """
    writable(path)
    context = _context()
    if context is not None:
        _same_command(path, context)
    _same_images(path, images)
    return path


def there(path: Path | None) -> Path | None:
    """Refuse a named file that is absent, before any work is done."""
    if path is not None and not path.is_file():
        raise ImageError(f"{path}: no such file")
    return path


def writable(path: Path) -> Path:
    """Refuse a folder that is a file, or that may not be written."""
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise WordsError(f"{nearest}: is a file; name a folder after -o")
    if not os.access(nearest, os.W_OK):
        raise WordsError(f"{nearest}: may not be written; name another folder after -o")
    return path


def _same_command(folder: Path, context: typer.Context) -> None:
    found = _read(folder / "run.json").get("command")
    if found not in (None, context.command_path.partition(" ")[2]):
        raise WordsError(f"{folder}: holds results of counterscan {found}; name another folder after -o")


def _same_images(folder: Path, images: Sequence[Path]) -> None:
    for image, stem in zip(images, unique_stems(images), strict=True):
        files = _read(folder / f"{stem}.json").get("files")
        held = folder / str(files["image"]) if isinstance(files, dict) and "image" in files else folder
        if image.is_file() and held.is_file() and not filecmp.cmp(image, held, shallow=False):
            raise WordsError(f"{folder}: holds the edit of another image named {stem}; name another folder after -o")


def _read(path: Path) -> dict[str, Any]:
    """What an earlier run left there; empty if there is nothing to be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def each(paths: list[Path], work: Callable[[Path, str, Report], dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Do the work for every path; returns the results and how many failed.

    A failure is one line on stderr and costs nobody else anything. Wrong words are wrong for all, so they are raised.
    """
    items, failed = [], 0
    for path, stem in zip(paths, unique_stems(paths), strict=True):
        try:
            with progress(path.name) as report:
                items.append(work(path, stem, report))
        except WordsError:
            raise
        except Exception as error:  # whatever is wrong with this image, the others are still to be done
            complain(explain(error, path))
            failed += 1
    return items, failed


@contextmanager
def progress(label: str) -> Iterator[Report]:
    """A progress bar on stderr; gives the ``progress(done, total)`` callable of the API. Silent when not a terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(escape(label), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def write_run(
    folder: Path,
    command: str,
    settings: dict[str, Any],
    result: dict[str, Any],
    models: Sequence[Any] = (),
    scores: Any = None,
) -> None:
    """Write ``run.json``: what was asked, where, with what, and what came of it.

    ``settings`` are completed by the running command's own options. ``models`` are what was in use: backbones, classifiers and
    feature spaces, or ``{"name", "fingerprint"}`` where none is open. ``scores`` are those of ``result`` if not given.
    """
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from counterscan import __version__

    versions = {"counterscan": __version__, "python": platform.python_version()}
    for name in ("torch", "diffusers", "transformers", "numpy"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # the commands that need no model work without them
            continue
    context = _context()
    if context is not None:
        settings = {k: v for k, v in context.params.items() if k not in ("as_json", "output", SECRET)} | settings
    used = [each if isinstance(each, dict) else _named(each) for each in models]
    run = {
        "command": command,
        "arguments": _without_secrets((context and context.find_root().obj) or sys.argv[1:]),
        "cwd": os.getcwd(),  # what relative paths start from
        "settings": settings,
        "seeds": sorted({seed for seed in _all("seed", [settings, result]) if isinstance(seed, int)}),
        "versions": versions,
        "model": used[0] if len(used) == 1 else used or result.get("model"),
        "scores": result.get("scores") if scores is None else scores,
        "result": result,
    }
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".run.json.{os.getpid()}"
    draft.write_text(json.dumps(strict(run), indent=2, default=str) + "\n", encoding="utf-8")
    os.replace(draft, folder / "run.json")


def _named(model: Any) -> dict[str, str]:
    return {"name": getattr(model, "card", model).name, "fingerprint": model.fingerprint}


def _without_secrets(words: list[str]) -> list[str]:
    """The words of the command line, without what readers and visitors must know."""
    option = f"--{SECRET}"
    return [
        "***" if before == option else f"{option}=***" if word.startswith(f"{option}=") else word
        for before, word in pairwise(["", *words])
    ]


def _context() -> typer.Context | None:
    """The running command's: of click, or of the copy of it that typer brings."""
    home = typer.Context.__mro__[1].__module__.rpartition(".")[0]
    context: typer.Context | None = importlib.import_module(f"{home}.globals").get_current_context(silent=True)
    return context


def _all(key: str, value: Any) -> Iterator[Any]:
    """What stands under a key, at any depth."""
    if isinstance(value, dict):
        yield from (found for k, item in value.items() for found in ([item] if k == key else _all(key, item)))
    elif isinstance(value, list):
        yield from (found for item in value for found in _all(key, item))


def unique_stems(paths: Sequence[Path]) -> list[str]:
    """A file stem for each path; equal ones are numbered, so no result overwrites another, nor ``run.json``."""
    from counterscan.imaging.picture import stem as name_of

    stems: list[str] = []
    for path in paths:
        base = name_of(path)
        stem, k = base, 2
        while stem in stems or stem == "run":
            stem, k = f"{base}-{k}", k + 1
        stems.append(stem)
    return stems
