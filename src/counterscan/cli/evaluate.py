"""``counterscan evaluate``: fidelity, edits, attribution and privacy, with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from counterscan.cli.output import complain, emit, folder_for, progress, write_run

app = typer.Typer(
    help="Measure generated images, edits, maps and privacy on manifests or folders.",
    epilog="Example: counterscan evaluate fidelity manifest.csv generated -o report",
    no_args_is_help=True,
)
Output = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for report.html, run.json and what a stop leaves.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Spaces = Annotated[
    list[str] | None,
    typer.Option(
        "--space",
        help="Feature space: a classifier, inception:FILE, xrv:NAME, hf:MODEL, open_clip:MODEL or module:function.",
    ),
]


@app.command()
def fidelity(
    real: Annotated[Path, typer.Argument(help="Real images: a manifest or a folder.")],
    generated: Annotated[Path, typer.Argument(help="Generated images: a manifest or a folder.")],
    output: Output,
    space: Spaces = None,
    split: Annotated[str | None, typer.Option(help="Only this split of the real manifest.")] = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """How like real images generated ones are, in named feature spaces, and how varied. Goes on where it stopped.

    Example: counterscan evaluate fidelity manifest.csv generated --split test -o report
    """
    from counterscan.evaluate.fidelity import fidelity as run
    from counterscan.evaluate.spaces import open_space

    names = tuple(space or ["chest-nih-judge"])
    spaces = [open_space(name, offline=offline) for name in names]
    with progress("features") as tell, _alone(output):
        summary = run(real, generated, output, spaces=spaces, split=split, offline=offline, progress=tell)
    scores = {name: score for each in summary["spaces"] for name, score in each["scores"].items()}
    lines = [f"{name}: {_text(score)}" for name, score in scores.items()]
    settings = {"real": real, "generated": generated, "spaces": names, "split": split}
    _finish("fidelity", settings, summary, output, lines, as_json, spaces, scores)


@app.command()
def edits(
    sources: Annotated[
        list[str], typer.Argument(help="Folders of counterfactuals or manifests of pairs; NAME=PATH names one.")
    ],
    output: Output,
    judge: Annotated[str, typer.Option(help="A classifier that guided no edit.")] = "chest-nih-judge",
    manifest: Annotated[Path | None, typer.Option(help="Tells patients and region masks of the images.")] = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """What edits did to a judge's opinion and to the rest of the image; methods are compared on the same images.

    Example: counterscan evaluate edits ddim=out1 edit-friendly=out2 null=out3 --manifest manifest.csv -o report
    """
    from counterscan.evaluate.edits import edits as run
    from counterscan.evaluate.spaces import open_space

    judging = open_space(judge, offline=offline)
    with progress("edits") as tell, _alone(output):
        summary = run(sources, output, judge=judging, manifest=manifest, offline=offline, progress=tell)
    lines = [
        f"{row['source']}, {row['direction']} {row['finding']}, n = {row['n']}: "
        + ", ".join(f"{name} {_text(row[name])}" for name in ("gain", "flip_rate", "l1", "ssim") if row[name])
        for row in summary["rows"]
    ]
    settings = {"sources": sources, "judge": judge, "manifest": manifest}
    _finish("edits", settings, summary, output, lines, as_json, [judging], summary["rows"])


@app.command()
def attribution(
    manifest: Annotated[Path, typer.Argument(help="Images with labels of the finding and masks, or with --boxes.")],
    finding: Annotated[str, typer.Option(help="The finding to look for.")],
    output: Output,
    boxes: Annotated[Path | None, typer.Option(help="A CSV: file, finding, x, y, w, h in pixels.")] = None,
    model: Annotated[str, typer.Option(help="A built-in name, a folder or a hub id.")] = "chest-nih",
    judge: Annotated[str, typer.Option(help="The classifier whose own maps are the peers.")] = "chest-nih-judge",
    methods: Annotated[str | None, typer.Option(help="Comma-separated; the model's default otherwise.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Edits a method; their spread is the uncertainty.")] = 1,
    rate: Annotated[
        float, typer.Option(help="Share of images without the finding that may be taken for ones with.")
    ] = 0.05,
    validation: Annotated[str, typer.Option(help="The split that chooses thresholds.")] = "val",
    test: Annotated[str, typer.Option(help="The split that is scored.")] = "test",
    count: Annotated[int | None, typer.Option("-n", min=1, help="The first N images of each kind and split.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Repeat k has seed SEED + k.")] = 0,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Whether maps of a finding are right about where and whether, beside Grad-CAM and others. Goes on where it stopped.

    Example: counterscan evaluate attribution manifest.csv --finding "pleural effusion" --boxes boxes.csv -o report
    """
    import counterscan
    from counterscan.evaluate.attribution import attribution as run
    from counterscan.evaluate.spaces import classifier_folder, open_space
    from counterscan.methods import listed

    settings: dict[str, Any] = {"finding": finding, "boxes": boxes, "judge": judge, "repeats": repeats}
    settings |= {"rate": rate, "validation": validation, "test": test, "limit": count, "seed": seed}
    settings |= {"methods": listed(methods or "")}
    backbone, classifier = counterscan.load(model, offline=offline), open_space(str(classifier_folder(judge)))
    with progress("maps") as tell, _alone(output):
        summary = run(manifest, output, **settings, model=backbone, offline=offline, progress=tell)
    named = ("auprc", "pointing", "dice_validation", "boxes_iou", "false_alarms")
    lines = [
        f"{r['map']}: " + ", ".join(f"{name} {_text(r[name])}" for name in named if r[name]) for r in summary["rows"]
    ]
    settings |= {"manifest": manifest, "model": model}
    _finish("attribution", settings, summary, output, lines, as_json, [backbone, classifier], summary["rows"])


@app.command()
def privacy(
    generated: Annotated[Path, typer.Argument(help="Generated images: a manifest or a folder.")],
    train: Annotated[Path, typer.Argument(help="Images trained on: a manifest (its split train) or a folder.")],
    output: Output,
    held_out: Annotated[
        Path | None, typer.Option(help="Real images not trained on; else the manifest's split test.")
    ] = None,
    space: Annotated[str, typer.Option(help="Feature space of the search; see evaluate fidelity.")] = "chest-nih-judge",
    rate: Annotated[float, typer.Option(help="Share of honest images that may be flagged.")] = 0.01,
    model: Annotated[
        str | None, typer.Option(help="Also test whether this model's losses tell its training images.")
    ] = None,
    members: Annotated[int, typer.Option(min=2, help="Images of a kind in that test.")] = 200,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Whether generated images are copies of training images, disguised or not. Goes on where it stopped.

    Example: counterscan evaluate privacy generated manifest.csv --model chest-nih -o report
    """
    import counterscan
    from counterscan.evaluate.privacy import privacy as run
    from counterscan.evaluate.spaces import open_space

    searched = open_space(space, offline=offline)
    backbone = None if model is None else counterscan.load(model, offline=offline)
    settings: dict[str, Any] = {"held_out": held_out, "rate": rate, "members": members}
    opened: dict[str, Any] = {"space": searched, "model": backbone}
    with progress("images") as tell, _alone(output):
        summary = run(generated, train, output, **settings, **opened, offline=offline, progress=tell)
    lines = [f"copy rate: {_text(summary['copy_rate'])}, {len(summary['copies'])} listed"]
    if summary["membership"]:
        lines.append(f"membership AUROC: {_text(summary['membership']['auroc'])}")
    settings |= {"generated": generated, "train": train, "space": space, "model": model}
    used = [each for each in opened.values() if each is not None]
    scores = {name: summary[name] for name in ("copy_rate", "membership")}
    _finish("privacy", settings, summary, output, lines, as_json, used, scores)


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Refuse a bad folder, and a second run in the same one. What is refused before any work leaves no folder."""
    from counterscan.scale.ledger import only_writer

    work = folder_for(output) / "work"
    made = [place for place in (work, *work.parents) if not place.exists()]
    with only_writer(work):
        try:
            yield
        except BaseException:
            if made:
                (work / ".lock").unlink(missing_ok=True)
            for place in made:
                with suppress(OSError):  # something is in it: what is gone on with
                    place.rmdir()
            raise


def _text(score: dict[str, Any]) -> str:
    """A score in one line: with its interval where it has one."""
    if "mean" not in score:
        return "unknown" if score["value"] is None else f"{score['value']:.4g}"
    if score["low"] is None:
        return f"{score['mean']:.3f}"
    return f"{score['mean']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


def _finish(
    name: str,
    settings: dict[str, Any],
    summary: dict[str, Any],
    output: Path,
    lines: list[str],
    as_json: bool,
    used: list[Any],
    scores: Any,
) -> None:
    """Write run.json, say what has to be known, print; fails where images failed."""
    write_run(output, f"evaluate {name}", settings, summary, used, scores)
    for warning in (*summary["warnings"], *summary["failed"]):
        complain(warning)
    emit(summary | {"report": "report.html"}, as_json, "\n".join([*lines, f"report: {output / 'report.html'}"]))
    if summary["failed"]:
        raise typer.Exit(1)
