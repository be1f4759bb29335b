"""``counterscan edit``: change findings in images, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from counterscan.cli.output import complain, emit, progress, unique_stems, write_run


def edit(
    images: Annotated[list[Path], typer.Argument(help="PNG, JPEG or DICOM files.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    remove: Annotated[list[str] | None, typer.Option(help="A finding to remove.")] = None,
    add: Annotated[list[str] | None, typer.Option(help='A finding to add, such as "small left effusion".')] = None,
    source: Annotated[str | None, typer.Option("--from", help="A prompt for the image as it is.")] = None,
    target: Annotated[str | None, typer.Option("--to", help="A prompt for the image as it should become.")] = None,
    instruct: Annotated[str | None, typer.Option(help="An instruction in plain English.")] = None,
    region: Annotated[str | None, typer.Option(help="Change this region only, such as 'left lung'.")] = None,
    mask: Annotated[Path | None, typer.Option(help="A PNG of the image's size; change only where it is not black.")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="A finding that must stay.")] = None,
    method: Annotated[str | None, typer.Option(help="The editing method; the model's default otherwise.")] = None,
    model: Annotated[str, typer.Option(help="A built-in name, a folder or a hub id.")] = "chest-nih",
    seed: Annotated[int, typer.Option(help="Equal seeds give equal results.")] = 0,
    offline: Annotated[bool, typer.Option(help="Never use the network.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask images what if: remove or add findings, and see what changed.

    Example: counterscan edit chest.png --remove pacemaker -o out
    """
    import counterscan
    from counterscan.errors import WorkError

    backbone = counterscan.load(model, offline=offline)
    request: dict[str, Any] = {
        "remove": remove or [], "add": add or [], "source": source, "target": target, "instruct": instruct,
        "region": region, "mask": mask, "keep": keep or [],
    }  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    items, failed = [], 0
    for path, stem in zip(images, unique_stems(images), strict=True):
        try:
            with progress(path.name) as report:
                result = counterscan.edit(path, **request, method=method, model=backbone, seed=seed, progress=report)
            files = result.save(output, stem)
        except (WorkError, OSError) as error:
            complain(str(error))
            failed += 1
            continue
        facts = {"method": result.method, "evaluations": result.evaluations, "seconds": result.seconds, "seed": result.seed}
        items.append({**files, **facts, "source": str(path)})
    summary = {"items": items, "model": backbone.card.name}
    write_run(output, "edit", {**request, "method": method, "seed": seed}, summary, backbone)
    emit(summary, as_json, f"{len(items)} of {len(images)} done, in {output}")
    if failed:
        raise typer.Exit(1)
