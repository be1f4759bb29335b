"""``counterscan edit``: change findings in images, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from counterscan.cli.output import Device, Dtype, Report, Slice, each, emit, folder_for, there, write_run
from counterscan.cli.robustness import Channels, Labels, Size, opened

if TYPE_CHECKING:
    from counterscan.imaging import Picture

KEYS = ("image", "counterfactual", "difference", "mask")  # the files of an item; scripts rely on these names


def edit(
    images: Annotated[list[Path], typer.Argument(help="PNG, JPEG, DICOM, NIfTI or .npy files.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    remove: Annotated[list[str] | None, typer.Option(help="A finding to remove.")] = None,
    add: Annotated[list[str] | None, typer.Option(help='A finding to add, such as "small left effusion".')] = None,
    source: Annotated[str | None, typer.Option("--from", help="A prompt for the image as it is.")] = None,
    target: Annotated[str | None, typer.Option("--to", help="A prompt for the image as it should become.")] = None,
    instruct: Annotated[str | None, typer.Option(help="An instruction in plain English.")] = None,
    region: Annotated[str | None, typer.Option(help="Change this region only, such as 'left lung'.")] = None,
    mask: Annotated[Path | None, typer.Option(help="A PNG of the image's size: change only where not black.")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="A finding that must stay, such as a pacemaker.")] = None,
    method: Annotated[
        str | None,
        typer.Option(help="The editing method, also NAME:key=value,key=value; the model's default otherwise."),
    ] = None,
    model: Annotated[str, typer.Option(help="A built-in name, a folder or a hub id.")] = "chest-nih",
    slice_index: Slice = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Equal seeds give equal results.")] = 0,
    until: Annotated[
        float | None, typer.Option(help="The weakest edit of which the selector is so sure (a probability).")
    ] = None,
    best_of: Annotated[int, typer.Option(min=1, max=1000, help="Seeds to try; the selector keeps the best.")] = 1,
    selector: Annotated[
        str | None, typer.Option(help="The classifier that chooses; for --best-of the model itself otherwise.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Another classifier, that scores the result; a built-in model's own otherwise.")
    ] = None,
    labels: Labels = None,
    size: Size = None,
    channels: Channels = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask images what if: remove or add findings, and see what changed.

    Example: counterscan edit chest.png --remove pacemaker -o out
    Example: counterscan edit chest.png --remove pacemaker --until 0.9 --selector my-classifier -o out
    """
    import counterscan
    from counterscan.imaging import read
    from counterscan.scale.devices import open_backbone

    folder = folder_for(output, images)
    if region and mask:
        raise typer.BadParameter("give --region or --mask, not both")
    backbone = open_backbone(model, device, dtype=dtype, offline=offline)
    request: dict[str, Any] = {"remove": remove or [], "add": add or [], "source": source, "target": target}
    request |= {"instruct": instruct, "region": region, "mask": there(mask), "keep": keep or []}
    counterscan.edit([], **request, method=method, model=backbone)  # refuses wrong words before any image is opened
    foreign = {"labels": labels, "size": size, "channels": channels}
    choice = _choice(backbone.card.name, until, best_of, selector, judge, foreign)

    def work(path: Path, stem: str, report: Report) -> dict[str, Any]:
        picture = read(path, slice_index=slice_index)
        asked = request | {"method": method, "model": backbone, "seed": seed, "progress": report}
        if choice is None:
            result = counterscan.edit(picture, **asked)
            told: dict[str, Any] = {"evaluations": result.evaluations, "seconds": result.seconds, "seed": result.seed}
        else:
            result, told = choice(picture, asked)
        files = result.save(folder, stem)
        return {key: files[key] for key in KEYS} | {"method": result.method, "source": str(path)} | told

    items, failed = each(images, work)
    summary = {"items": items, "model": backbone.card.name}
    if items:
        settings = request | {"method": method, "model": model, "seed": seed, "images": images}
        settings |= {"until": until, "best_of": best_of, "selector": selector, "judge": judge}
        write_run(folder, "edit", settings, summary, [backbone])
    emit(summary, as_json, f"{len(items)} of {len(images)} edited" + (f", in {folder}" if items else ""))
    if failed:
        raise typer.Exit(1)


def _choice(
    model: str, until: float | None, best_of: int, selector: str | None, judge: str | None, foreign: dict[str, Any]
) -> Callable[[Picture, dict[str, Any]], tuple[Any, dict[str, Any]]] | None:
    """One image's search and what is told of it; ``None`` where nothing is searched and nobody judges.

    ``foreign`` is what has to be told of a selector or judge that does not say it itself.
    """
    if any(foreign.values()) and selector is None and judge is None:
        raise typer.BadParameter("--labels, --size, --channels: give --selector or --judge too")
    if until is None and best_of == 1 and judge is None:
        if selector is not None:
            raise typer.BadParameter("--selector chooses among results: give --until or --best-of as well")
        return None
    from counterscan.robustness import opening
    from counterscan.search import judged, search

    judge = judge or (f"{model}-judge" if f"{model}-judge" in opening.judges() else None)
    chooses, judges = (opened(spec, **foreign) if spec else None for spec in (selector, judge))

    def found(picture: Picture, asked: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        from counterscan.cli.output import complain

        one = search(picture, **asked, until=until, best_of=best_of, selector=chooses, judge=judges)
        told: dict[str, Any] = {"evaluations": one.evaluations, "seconds": one.seconds, "seed": one.result.seed}
        told |= {"guidance": one.result.settings["guidance"], "trials": [asdict(trial) for trial in one.trials]}
        told |= {
            "selector": chooses.name if chooses else one.result.model,
            "reached": one.reached,
            "strength": one.strength,
        }
        if judges is not None:
            scores = judged(one.result, judges)
            told["judge"] = {"name": judges.name, "scores": {name: list(pair) for name, pair in scores.items()}}
        if one.reached is False:
            complain(f"{picture.path}: no strength reached {until:g}; the most convincing result is kept")
        return one.result, told

    return found
