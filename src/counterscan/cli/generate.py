"""``counterscan generate``: images from a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from counterscan.cli.output import Device, Dtype, emit, folder_for, progress, write_run


def generate(
    prompt: Annotated[str, typer.Argument(help="What the image should show.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the images.")],
    count: Annotated[int, typer.Option("-n", min=1, help="How many images.")] = 1,
    model: Annotated[str, typer.Option(help="A built-in name, a folder or a hub id.")] = "chest-nih",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Image i has seed SEED + i.")] = 0,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Sampling steps.")] = 30,
    guidance: Annotated[float, typer.Option(min=0, max=100, help="How closely to follow the prompt; 1 = plainly.")] = 2,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make images from words.

    Example: counterscan generate "chest radiograph, PA: large left pleural effusion." -n 4 -o out
    """
    import counterscan
    from counterscan.imaging import write
    from counterscan.scale.devices import open_backbone

    folder = folder_for(output)
    backbone = open_backbone(model, device, dtype=dtype, offline=offline)
    settings: dict[str, Any] = {"n": count, "steps": steps, "guidance": guidance, "seed": seed}
    with progress("generating") as report:
        pictures = counterscan.generate(prompt, **settings, model=backbone, progress=report)
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for i, picture in enumerate(pictures):
        note = {"prompt": prompt, "seed": seed + i, "model": backbone.card.name, "fingerprint": backbone.fingerprint}
        items.append({"image": write(picture, folder / f"{i:05d}{picture.suffix}", note=note).name, "seed": seed + i})
    summary = {"items": items, "model": backbone.card.name, "prompt": prompt}
    write_run(folder, "generate", settings | {"prompt": prompt, "model": model}, summary, [backbone])
    emit(summary, as_json, f"{len(items)} images in {folder}")
