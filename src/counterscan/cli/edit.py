"""``counterscan edit``: change findings in images, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from counterscan.cli.output import Report, each, emit, folder_for, write_run

KEYS = ("image", "counterfactual", "difference", "mask")  # the files of an item; scripts rely on these names


def edit(
    images: Annotated[list[Path], typer.Argument(help="PNG, JPEG or DICOM files.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    remove: Annotated[list[str] | None, typer.Option(help="A finding to remove.")] = None,
    add: Annotated[list[str] | None, typer.Option(help='A finding to add, such as "small left effusion".')] = None,
    source: Annotated[str | None, typer.Option("--from", help="A prompt for the image as it is.")] = None,
    target: Annotated[str | None, typer.Option("--to", help="A prompt for the image as it should become.")] = None,
    instruct: Annotated[str | None, typer.Option(help="An instruction in plain English.")] = None,
    region: Annotated[str | None, typer.Option(help="Change this region only, such as 'left lung'.")] = None,
    mask: Annotated[Path | None, typer.Option(help="A PNG of the image's size: change only where not black.")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="A finding that must stay.")] = None,
    method: Annotated[str | None, typer.Option(help="The editing method; the model's default otherwise.")] = None,
    model: Annotated[str, typer.Option(help="A built-in name, a folder or a hub id.")] = "chest-nih",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Equal seeds give equal results.")] = 0,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask images what if: remove or add findings, and see what changed.

    Example: counterscan edit chest.png --remove pacemaker -o out
    """
    import counterscan

    folder = folder_for(output)
    if region and mask:
        raise typer.BadParameter("give --region or --mask, not both")
    backbone = counterscan.load(model, offline=offline)
    request: dict[str, Any] = {"remove": remove or [], "add": add or [], "source": source, "target": target}
    request |= {"instruct": instruct, "region": region, "mask": mask, "keep": keep or []}
    counterscan.edit([], **request, method=method, model=backbone)  # refuses wrong words before any image is opened

    def work(path: Path, stem: str, report: Report) -> dict[str, Any]:
        result = counterscan.edit(path, **request, method=method, model=backbone, seed=seed, progress=report)
        files = result.save(folder, stem)
        facts = {"method": result.method, "evaluations": result.evaluations, "seconds": result.seconds, "seed": seed}
        return {key: files[key] for key in KEYS} | facts | {"source": str(path)}

    items, failed = each(images, work)
    summary = {"items": items, "model": backbone.card.name}
    if items:
        settings = request | {"method": method, "model": model, "seed": seed, "images": images}
        write_run(folder, "edit", settings, summary, [backbone])
    emit(summary, as_json, f"{len(items)} of {len(images)} edited" + (f", in {folder}" if items else ""))
    if failed:
        raise typer.Exit(1)
