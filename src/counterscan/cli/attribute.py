"""``counterscan attribute``: where is the finding?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from counterscan.cli.output import complain, emit, progress, unique_stems, write_run


def attribute(
    images: Annotated[list[Path], typer.Argument(help="PNG, JPEG or DICOM files.")],
    finding: Annotated[str, typer.Option(help="The finding to look for.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    repeats: Annotated[int, typer.Option(min=1, help="Edits to average; their spread is the uncertainty.")] = 1,
    method: Annotated[str | None, typer.Option(help="The editing method; the model's default otherwise.")] = None,
    model: Annotated[str, typer.Option(help="A built-in name, a folder or a hub id.")] = "chest-nih",
    seed: Annotated[int, typer.Option(help="Equal seeds give equal results.")] = 0,
    offline: Annotated[bool, typer.Option(help="Never use the network.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find a finding: remove it, and see where the image changes more than by itself.

    Example: counterscan attribute chest.png --finding "pleural effusion" --repeats 4 -o out
    """
    import counterscan
    from counterscan.attribution.maps import save_map
    from counterscan.errors import WorkError

    backbone = counterscan.load(model, offline=offline)
    output.mkdir(parents=True, exist_ok=True)
    items, failed = [], 0
    for path, stem in zip(images, unique_stems(images), strict=True):
        try:
            with progress(path.name) as report:
                result = counterscan.attribute(
                    path, finding=finding, repeats=repeats, method=method, model=backbone, seed=seed, progress=report
                )
            files = save_map(result.factual.unit(), result.map, result.mask, output, stem)
        except (WorkError, OSError) as error:
            complain(str(error))
            failed += 1
            continue
        items.append(
            {
                **files, "source": str(path), "finding": finding, "present": result.present, "threshold": result.threshold,
                "regions": [asdict(region) for region in result.regions], "evaluations": result.evaluations,
                "seconds": result.seconds, "seed": seed,
            }
        )  # fmt: skip
    summary = {"items": items, "model": backbone.card.name}
    write_run(output, "attribute", {"finding": finding, "repeats": repeats, "method": method, "seed": seed}, summary, backbone)
    words = [f"{i['source']}: {len(i['regions'])} regions" if i["present"] else f"{i['source']}: no such finding here" for i in items]
    emit(summary, as_json, "\n".join(words))
    if failed:
        raise typer.Exit(1)
