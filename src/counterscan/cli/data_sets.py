"""``counterscan data import``, ``check`` and ``caption``: data sets in, whether they are sound, and their words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from counterscan.cli.output import complain, emit, folder_for, progress, writable, write_run
from counterscan.errors import WordsError

SOURCES, POLICIES = ("auto", "captions", "labels"), ("ignore", "words")


def import_(
    layout: Annotated[
        str,
        typer.Argument(
            help="The layout: chexpert, mimic-cxr-jpg, brats, dicom, captions, huggingface ... (see data layouts)"
        ),
    ],
    source: Annotated[Path, typer.Argument(help="The data set's top folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The manifest: .csv, .parquet or .jsonl.")],
    split: Annotated[bool, typer.Option("--split", help="Give rows without a split one: 80/10/10 by patient.")] = False,
    resplit: Annotated[
        bool, typer.Option("--resplit", help="Give every row such a split, in place of its own.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List a downloaded data set in a manifest.

    Example: counterscan data import chexpert CheXpert-v1.0-small -o chexpert.parquet
    """
    from counterscan.data.manifest import write
    from counterscan.data.readers import open_layout
    from counterscan.data.splits import with_splits

    _check_manifest(output)
    found = open_layout(layout, source, output.parent / f"{output.stem}-images")
    records = with_splits(found.records, anew=resplit) if split or resplit else found.records
    with progress(f"importing {layout}"):
        count = write(output, records, found.findings, found.contrasts)
    summary = {"manifest": str(output), "layout": layout, "items": count, "findings": list(found.findings)}
    emit(summary, as_json, f"{count} images in {output}")


def _check_manifest(output: Path) -> None:
    """Refuse what no manifest can be written to, before any work."""
    from counterscan.data.manifest import ENDINGS

    writable(output.parent)
    if output.suffix not in ENDINGS:
        raise WordsError(f"{output}: name a manifest that ends in {', '.join(ENDINGS)}")
    if output.is_dir():
        raise WordsError(f"{output}: is a folder; name a file after -o")


def layouts(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the layouts that can be imported.

    Example: counterscan data layouts
    """
    from counterscan.data.readers import describe

    found = describe()
    emit({"layouts": found}, as_json, "\n".join(f"{name:18} {text.replace('``', '')}" for name, text in found.items()))


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


def caption(
    manifest: Annotated[Path, typer.Argument(help="The manifest to write captions for.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The new manifest: .csv, .parquet or .jsonl.")],
    source: Annotated[
        str, typer.Option("--from", help="labels, captions (reports too), or auto: captions first.")
    ] = "auto",
    template: Annotated[str, typer.Option(help="How captions of labels open.")] = "chest radiograph",
    uncertain: Annotated[str, typer.Option(help="Labels of -1: ignore them, or tell them in words.")] = "ignore",
    deny: Annotated[float, typer.Option(min=0, max=1, help="How often an absent finding is denied.")] = 0.14,
    paraphrase: Annotated[float, typer.Option(min=0, max=1, help="Share told as a radiograph's report is.")] = 0.0,
    view: Annotated[bool, typer.Option("--view", help="Tell the view.")] = False,
    person: Annotated[bool, typer.Option("--person", help="Tell age and sex.")] = False,
    model: Annotated[str | None, typer.Option(help="Shorten to this model's text encoder.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Equal seeds give equal captions.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write captions of labels or reports, whole findings only, as long as a model's text encoder takes.

    Example: counterscan data caption chexpert.parquet -o captioned.parquet --uncertain words --view
    """
    from counterscan.data.captions import Told, Wording, captioned, encoder_of
    from counterscan.data.manifest import rewrite

    for name, value, choices in (("--from", source, SOURCES), ("--uncertain", uncertain, POLICIES)):
        if value not in choices:
            raise WordsError(f"{name} {value!r}: one of {', '.join(choices)}")
    _check_manifest(output)
    wording = Wording(source, template, uncertain, deny, paraphrase, view, person)  # type: ignore[arg-type]
    told = Told()
    fits = encoder_of(model, offline=offline) if model else None
    with progress(f"captioning {manifest.name}"):
        rewrite(manifest, output, lambda records: captioned(records, wording, seed=seed, fits=fits, told=told))
    summary = {"manifest": str(output)} | {name: getattr(told, name) for name in ("rows", "empty", "shortened", "lost")}
    emit(summary, as_json, f"{told.rows} captions in {output}; {told.shortened} shortened, {told.empty} empty")
