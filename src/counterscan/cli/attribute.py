"""``counterscan attribute``: where is the finding?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from counterscan.cli.output import Device, Dtype, Report, Slice, each, emit, folder_for, progress, write_run
from counterscan.errors import DataError, WordsError

if TYPE_CHECKING:
    from counterscan.attribution import Calibration

RATE = 0.05
PLENTY = 5  # times the images that a rate needs at least are calibrated on: the threshold then varies less


def attribute(
    images: Annotated[list[Path], typer.Argument(help="PNG, JPEG, DICOM, NIfTI or .npy files.")],
    finding: Annotated[str, typer.Option(help="The finding to look for.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    repeats: Annotated[int, typer.Option(min=1, help="Edits to average; their spread is the uncertainty.")] = 1,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="An editing method, also NAME:key=value,key=value, or several, each told; the model's default otherwise."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="A built-in name, a folder or a hub id.")] = "chest-nih",
    slice_index: Slice = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Repeat k has seed SEED + k.")] = 0,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Images without the finding (a folder or a manifest), or a calibration.json made of such."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Share of images without the finding that may be taken for ones with, with --calibration."),
    ] = None,
    attention: Annotated[
        bool, typer.Option("--attention", help="Also map what the finding's words draw, a second opinion.")
    ] = False,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="png, nifti or dicom-seg; may be repeated.")
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show where a finding is: remove it, and see where the image changes more than by itself; or that it is not there.

    Example: counterscan attribute chest.png --finding "pleural effusion" --repeats 4 -o out
    Example: counterscan attribute chest.dcm --finding effusion --calibration manifest.csv --rate 0.05 --format dicom-seg -o out
    """
    import counterscan
    from counterscan.attribution.maps import check_formats, check_segmentable
    from counterscan.imaging import read
    from counterscan.scale.devices import open_backbone

    folder, formats = folder_for(output, images), list(dict.fromkeys(formats or ["png"]))
    check_formats(formats)
    if "dicom-seg" in formats:  # whatever will be found: the same command is refused always or never
        check_segmentable(images)
    if rate is not None and calibration is None:
        raise WordsError("--rate is promised by a calibration; give --calibration with images without the finding")
    share = RATE if rate is None else rate
    backbone = open_backbone(model, device, dtype=dtype, offline=offline)
    tried: list[str | None] = [*method] if method else [None]
    for one in tried:
        counterscan.edit([], remove=[finding], method=one, model=backbone)  # refuses wrong words before any work
    asked: dict[str, Any] = {"finding": finding, "repeats": repeats, "method": method, "seed": seed}
    known = None if calibration is None else _calibrated(calibration, folder, share, asked, backbone)

    def work(path: Path, stem: str, report: Report) -> dict[str, Any]:
        more: dict[str, Any] = {"calibration": known, "rate": share, "attention": attention, "progress": report}
        result = counterscan.attribute(read(path, slice_index=slice_index), **asked, **more, model=backbone)
        kinds = [kind for kind in formats if result.present or kind != "dicom-seg"]  # none may be empty
        names = ("finding", "present", "threshold", "rate", "uncertainty", "agreement")
        cost = {"evaluations": result.evaluations, "seconds": result.seconds, "seed": seed, "source": str(path)}
        found = {"regions": [asdict(region) for region in result.regions]}
        return result.save(folder, stem, kinds) | {name: getattr(result, name) for name in names} | found | cost

    items, failed = each(images, work)
    summary = {"items": items, "model": backbone.card.name}
    if items:
        settings = asked | {"model": model, "images": images, "calibration": calibration, "rate": rate}
        write_run(folder, "attribute", settings | {"attention": attention, "format": formats}, summary, [backbone])
    emit(summary, as_json, "\n".join(_sentence(item) for item in items) or f"0 of {len(images)} looked at")
    if failed:
        raise typer.Exit(1)


def _calibrated(source: Path, folder: Path, rate: float, asked: dict[str, Any], backbone: Any) -> Calibration:
    """The calibration in a file, or one made of images and kept in ``folder``; refused if it cannot promise the rate."""
    from counterscan.attribution import Calibration, calibrate

    if source.suffix == ".json":
        known = Calibration.load(source)
        known.threshold(rate)
        return known
    paths = _without(source, asked["finding"], rate)
    Calibration(asked["finding"], (0.0,) * len(paths)).threshold(rate)  # too few are too few whatever they show
    with progress("calibration") as report:
        known = calibrate(paths, **asked, model=backbone, progress=report)
    folder.mkdir(parents=True, exist_ok=True)
    known.save(folder / "calibration.json")
    return known


def _without(source: Path, finding: str, rate: float) -> list[Path]:
    """Images that do not have the finding: those of a folder, or the rows of a manifest that say so; as many as are plenty."""
    from itertools import islice

    from counterscan.evaluate.sources import items
    from counterscan.evaluate.truths import same_finding

    def healthy() -> Any:
        for item in items(source):
            labels = [value for name, value in item.findings.items() if same_finding(name, finding)]
            if source.is_dir() or labels == [0]:
                yield item.path

    paths = list(islice(healthy(), round(PLENTY / rate) if 0 < rate < 1 else 1))
    if not paths:
        raise DataError(f"{source}: no image is known to be without {finding}; name a folder of such, or label them 0")
    return paths


def _sentence(item: dict[str, Any]) -> str:
    boxes = ", ".join("x {}-{} y {}-{}".format(*(r["box"][i] for i in (0, 2, 1, 3))) for r in item["regions"])
    text = f"{item['source']}: {item['finding']} " + (f"at {boxes}" if boxes else "not seen")
    if item["rate"] is not None:
        text += f", at a false-positive rate of {100 * item['rate']:g} %"
    if item["uncertainty"] is not None:
        text += f", spread {100 * item['uncertainty']:.0f} % of the change"
    return text
