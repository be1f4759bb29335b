"""``counterscan data import`` and ``counterscan data check``: public data sets in, and whether they are sound."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from counterscan.cli.output import complain, emit, folder_for, progress, write_run


def import_(
    layout: Annotated[str, typer.Argument(help="The layout: chexpert, mimic-cxr-jpg, dicom, captions ...")],
    source: Annotated[Path, typer.Argument(help="The data set's top folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The manifest: .csv, .parquet or .jsonl.")],
    split: Annotated[bool, typer.Option("--split", help="Give rows without a split one: 80/10/10 by patient.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List a downloaded data set in a manifest.

    Example: counterscan data import chexpert CheXpert-v1.0-small -o chexpert.parquet
    """
    from counterscan.data.manifest import write
    from counterscan.data.readers import open_layout
    from counterscan.data.splits import with_splits

    folder_for(output.parent)
    found = open_layout(layout, source, output.parent / f"{output.stem}-images")
    records = with_splits(found.records) if split else found.records
    count = write(output, records, found.findings, found.contrasts)
    summary = {"manifest": str(output), "layout": layout, "items": count, "findings": list(found.findings)}
    emit(summary, as_json, f"{count} images in {output}")


def check(
    manifest: Annotated[Path, typer.Argument(help="The manifest to check.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for report.html.")] = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Open every image.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a data set before training on it; exit code 1 when training would be unsound.

    Example: counterscan data check chexpert.parquet -o report
    """
    from counterscan.data.checks import check as check_manifest
    from counterscan.data.page import write_page

    folder = folder_for(output) if output else None
    with progress(f"checking {manifest.name}") as report:
        result = check_manifest(manifest, images=images, progress=report)
    summary = result.summary()
    if folder:
        summary["report"] = str(write_page(result, folder))
        write_run(folder, "data check", {"manifest": manifest, "images": images}, summary)
    lines = [f"{kind}: {count}" for kind, count in summary["issues"].items()] or ["nothing found"]
    emit(summary, as_json, "\n".join([f"{result.rows} rows", *lines]))
    if not result.sound:
        complain(f"{manifest}: training on this would be unsound" + (f"; see {folder}/report.html" if folder else ""))
        raise typer.Exit(1)
