"""``counterscan batch``: one edit on every image of a manifest, resumable."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from counterscan.cli.output import Device, Report, complain, emit, folder_for, progress, there, write_run
from counterscan.cli.robustness import Channels, Labels, Size, opened

EVERY = 60.0  # seconds between two lines of progress where stderr is no terminal


def batch(
    manifest: Annotated[Path, typer.Argument(help="A table with a column 'path': .csv, .tsv, .parquet or .jsonl.")],
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="Folder or URL (s3://bucket/out) for the results; the same one to go on."),
    ],
    remove: Annotated[list[str] | None, typer.Option(help="A finding to remove.")] = None,
    add: Annotated[list[str] | None, typer.Option(help='A finding to add, such as "small left effusion".')] = None,
    source: Annotated[str | None, typer.Option("--from", help="A prompt for the images as they are.")] = None,
    target: Annotated[str | None, typer.Option("--to", help="A prompt for the images as they should become.")] = None,
    instruct: Annotated[str | None, typer.Option(help="An instruction in plain English.")] = None,
    region: Annotated[str | None, typer.Option(help="Change this region only, such as 'left lung'.")] = None,
    mask: Annotated[Path | None, typer.Option(help="A PNG of the images' size: change only where not black.")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="A finding that must stay.")] = None,
    method: Annotated[str | None, typer.Option(help="The editing method; the model's default otherwise.")] = None,
    model: Annotated[str, typer.Option(help="A built-in name, a folder or a hub id.")] = "chest-nih",
    judge: Annotated[str | None, typer.Option(help="A classifier that scores every result in the ledger.")] = None,
    labels: Labels = None,
    size: Size = None,
    channels: Channels = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Equal seeds give equal results.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images that go through the model at once.")] = 4,
    device: Device = "cpu",
    ray: Annotated[str | None, typer.Option(help="Run on Ray: 'local' or a cluster's address.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that read and write; with --ray, copies of the model.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Edit every image of a manifest. Run it again and it does only what is missing, failed or replaced.

    Example: counterscan batch manifest.csv --remove pacemaker -o out
    """
    from counterscan.scale import batch
    from counterscan.scale.store import Folder, store

    place = store(output)
    if isinstance(place, Folder):
        folder_for(place.path)
    if region and mask:
        raise typer.BadParameter("give --region or --mask, not both")
    request: dict[str, Any] = {"remove": remove or [], "add": add or [], "source": source, "target": target}
    request |= {"instruct": instruct, "region": region, "mask": there(mask), "keep": keep or []}
    how: dict[str, Any] = {"method": method, "model": model, "device": device, "seed": seed, "batch_size": batch_size}
    where: dict[str, Any] = {"ray": ray, "workers": workers, "offline": offline}
    scores = _judge(judge, labels, size, channels) if judge else None
    with _told(manifest.name) as report:
        summary = batch(manifest, output, **request, **how, **where, judge=scores, progress=report)
    for failure in summary["failures"]:
        item, reason = failure["item"], failure["reason"]
        complain(f"{item}: {reason.removeprefix(f'{Path(item).name}: ')}")
    settings = request | how | {"manifest": manifest, "ray": ray, "workers": workers}
    if isinstance(place, Folder):
        write_run(place.path, "batch", settings, summary)
    else:
        with place.draft() as draft:
            write_run(draft, "batch", settings, summary)
            place.put(draft / "run.json", "run.json")
    emit(summary, as_json, f"{summary['done']} of {summary['items']} done, {summary['failed']} failed, in {place}")
    if summary["failed"]:
        raise typer.Exit(1)


def _judge(judge: str, labels: str | None, size: int | None, channels: int | None) -> Any:
    from counterscan.scale.job import Judge
    from counterscan.search import judged

    outputs = opened(judge, labels, size, channels)
    return Judge(outputs.fingerprint, partial(judged, judge=outputs))


@contextmanager
def _told(label: str) -> Iterator[Report]:
    """A bar with the time left on a terminal; elsewhere, as in a job's log, a line a minute."""
    began = last = time.monotonic()
    with progress(label) as bar:

        def report(done: int, total: int) -> None:
            nonlocal last
            bar(done, total)
            now = time.monotonic()
            if now - last > EVERY and not _terminal():
                last, rate = now, done / (now - began)
                left = (total - done) / rate / 60
                complain(f"{label}: {done} of {total}, {rate:.2f} a second, {left:.0f} min left")

        yield report


def _terminal() -> bool:
    import sys

    return sys.stderr.isatty()
