"""``counterscan attribute``: where is the finding?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from counterscan.cli.output import Report, each, emit, folder_for, write_run


def attribute(
    images: Annotated[list[Path], typer.Argument(help="PNG, JPEG or DICOM files.")],
    finding: Annotated[str, typer.Option(help="The finding to look for.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    repeats: Annotated[int, typer.Option(min=1, help="Edits to average; their spread is the uncertainty.")] = 1,
    method: Annotated[str | None, typer.Option(help="The editing method; the model's default otherwise.")] = None,
    model: Annotated[str, typer.Option(help="A built-in name, a folder or a hub id.")] = "chest-nih",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Repeat k has seed SEED + k.")] = 0,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show where a finding is: remove it, and see where the image changes more than by itself.

    Example: counterscan attribute chest.png --finding "pleural effusion" --repeats 4 -o out
    """
    import counterscan

    folder = folder_for(output)
    backbone = counterscan.load(model, offline=offline)
    counterscan.edit([], remove=[finding], method=method, model=backbone)  # refuses wrong words before any work

    def work(path: Path, stem: str, report: Report) -> dict[str, Any]:
        settings: dict[str, Any] = {"finding": finding, "repeats": repeats, "method": method, "seed": seed}
        result = counterscan.attribute(path, **settings, model=backbone, progress=report)
        facts = {key: getattr(result, key) for key in ("finding", "present", "threshold")}
        cost = {"evaluations": result.evaluations, "seconds": result.seconds, "seed": seed, "source": str(path)}
        return result.save(folder, stem) | facts | {"regions": [asdict(region) for region in result.regions]} | cost

    items, failed = each(images, work)
    summary = {"items": items, "model": backbone.card.name}
    if items:
        settings = {"finding": finding, "repeats": repeats, "method": method, "model": model, "seed": seed}
        write_run(folder, "attribute", settings | {"images": images}, summary, [backbone])
    emit(summary, as_json, "\n".join(_sentence(item) for item in items) or f"0 of {len(images)} looked at")
    if failed:
        raise typer.Exit(1)


def _sentence(item: dict[str, Any]) -> str:
    boxes = ", ".join("x {}-{} y {}-{}".format(*(r["box"][i] for i in (0, 2, 1, 3))) for r in item["regions"])
    return f"{item['source']}: {item['finding']} " + (f"at {boxes}" if boxes else "not seen")
