"""``counterscan stress``, ``disentangle``, ``augment`` and ``train-classifier``: find shortcuts, and cure them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from counterscan.cli.output import complain, emit, folder_for, progress, write_run
from counterscan.errors import DataError, WordsError

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")]
Manifest = Annotated[Path, typer.Argument(help="A table of images: CSV or Parquet with a column 'path'.")]
Judge = Annotated[
    str,
    typer.Argument(
        metavar="CLASSIFIER", help="Folder, built-in, .ts, .pt2, .onnx, timm:NAME, xrv:NAME or module:function."
    ),
]
Labels = Annotated[str | None, typer.Option(help="Names of the outputs, comma-separated, of a foreign classifier.")]
Size = Annotated[int | None, typer.Option(min=1, help="Pixels a side that a foreign classifier takes; else 224.")]
Channels = Annotated[int | None, typer.Option(min=1, help="Channels that a foreign classifier takes; else 1.")]
Model = Annotated[str, typer.Option(help="The editing model: a built-in name, a folder or a hub id.")]
Method = Annotated[str | None, typer.Option(help="The editing method; the model's default otherwise.")]
Remove = Annotated[list[str] | None, typer.Option(help="A finding to remove, as an edit of its own.")]
Add = Annotated[list[str] | None, typer.Option(help="A finding to add, as an edit of its own.")]
Limit = Annotated[int | None, typer.Option("-n", min=2, help="Only the first N images.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Equal seeds give equal results.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def stress(
    classifier: Judge,
    manifest: Manifest,
    output: Output,
    remove: Remove = None,
    add: Add = None,
    labels: Labels = None,
    size: Size = None,
    channels: Channels = None,
    model: Model = "chest-nih",
    method: Method = None,
    count: Limit = None,
    seed: Seed = 0,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """How every output of a classifier moves under edits of one thing, overall and by subgroup, ranked. Goes on where it
    stopped.

    Example: counterscan stress chest-nih-judge manifest.csv --remove "support devices" -o stress
    """
    from counterscan.robustness.report import save_view, stress_page
    from counterscan.robustness.stress import effects, ranked, subgroups
    from counterscan.robustness.study import patients, read_table, stacked

    folder, outputs = folder_for(output), opened(classifier, labels, size, channels)
    backbone = _load(model, offline)
    asked = _asked(remove, add, backbone, method)

    def view(key: str) -> Path:
        return folder / "views" / f"{key}.png"

    rows, looked, failed = _look(
        read_table(manifest)[:count], asked, outputs, backbone, folder / "stress.jsonl",
        least=2, method=method, seed=seed, keep=lambda key, result: save_view(result, view(key)),
    )  # fmt: skip
    found, shown, owners, groups = [], {}, patients(rows), subgroups(rows)
    for name, some in looked.items():
        seen = stacked(some)
        found += effects(name, outputs.labels, seen.before, seen.after, seen.null, owners, groups, seed)
        shown[name] = seen, [view(one["key"]) for one in some]
    order = ranked(found)
    summary: dict[str, Any] = {
        "classifier": outputs.name,
        "model": backbone.card.name,
        "n": len(rows),
        "failed": failed,
    }
    summary |= {"ranked": [asdict(r) | {"distinct": r.distinct} for r in order], "effects": [asdict(r) for r in found]}
    stress_page(order, found, outputs.labels, shown, folder)
    settings = {"classifier": classifier, "manifest": manifest, "edits": list(asked), "method": method, "seed": seed}
    write_run(folder, "stress", settings, summary, [backbone])
    lines = [
        f"{r.edit}: {r.output} {r.change:+.3f} [{r.low:+.3f}, {r.high:+.3f}], null {r.null:+.3f}" for r in order[:12]
    ]
    _finish(summary, as_json, lines)


def disentangle(
    classifier: Judge,
    manifest: Manifest,
    output: Output,
    remove: Remove = None,
    add: Add = None,
    labels: Labels = None,
    size: Size = None,
    channels: Channels = None,
    model: Model = "chest-nih",
    method: Method = None,
    count: Limit = None,
    seed: Seed = 0,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """The matrix of edits and outputs: what else moves when one thing is edited, and how tangled that is. Goes on where it
    stopped.

    Example: counterscan disentangle chest-world-judge manifest.csv --remove pacemaker --remove cardiomegaly -o out
    """
    from counterscan.robustness.disentangle import entangled, matrix, moved
    from counterscan.robustness.names import meant
    from counterscan.robustness.report import heat_map
    from counterscan.robustness.stress import effects
    from counterscan.robustness.study import patients, read_table, stacked

    folder, outputs = folder_for(output), opened(classifier, labels, size, channels)
    backbone = _load(model, offline)
    asked = _asked(remove, add, backbone, method)
    targets = [meant(name.split(" ", 1)[1], outputs.labels) for name in asked]
    unknown = [name for name, target in zip(asked, targets, strict=True) if target not in outputs.labels]
    if unknown:
        raise WordsError(
            f"{unknown[0]!r} aims at no output of {outputs.name}: its outputs are {', '.join(outputs.labels)}"
        )
    rows, looked, failed = _look(
        read_table(manifest)[:count], asked, outputs, backbone, folder / "disentangle.jsonl", method=method, seed=seed
    )
    all_seen, owners = [stacked(some) for some in looked.values()], patients(rows)
    found = [
        effect
        for name, seen in zip(asked, all_seen, strict=True)
        for effect in effects(name, outputs.labels, seen.before, seen.after, seen.null, owners, {}, seed)
    ]
    aims = list(dict.fromkeys(targets))
    change = moved(all_seen, [outputs.labels.index(aim) for aim in aims])
    cells = matrix(change, owners, seed)
    score = entangled(change, [aims.index(target) for target in targets], owners, seed)
    caption = f"entanglement {score}, {score.n} images of {score.patients} patients"
    heat_map(change.mean(0), list(asked), aims, folder / "matrix.png", caption)
    summary: dict[str, Any] = {"edits": list(asked), "outputs": aims, "matrix": change.mean(0).tolist()}
    summary |= {"matrix_interval": [[[cell.low, cell.high] for cell in line] for line in cells]}
    summary |= {"entanglement": score.mean, "entanglement_interval": [score.low, score.high]}
    summary |= {"n": len(rows), "patients": score.patients, "failed": failed}
    summary |= {"classifier": outputs.name, "model": backbone.card.name, "effects": [asdict(r) for r in found]}
    settings = {"classifier": classifier, "manifest": manifest, "method": method, "seed": seed}
    write_run(folder, "disentangle", settings, summary, [backbone])
    lines = [
        f"{name}: {aim} {cell.mean:+.3f} [{cell.low:+.3f}, {cell.high:+.3f}]"
        for name, line in zip(asked, cells, strict=True)
        for aim, cell in zip(aims, line, strict=True)
    ]
    _finish(summary, as_json, [*lines, caption, f"heat map in {folder / 'matrix.png'}"])


def augment(
    manifest: Manifest,
    output: Output,
    finding: Annotated[str, typer.Option(help="The column whose classifier is to be cured.")],
    against: Annotated[
        list[str],
        typer.Option(
            help="A column it must not depend on; several are balanced together. Findings are edited, of words (sex, view) "
            "each value is balanced by itself."
        ),
    ],
    judge: Annotated[
        str | None, typer.Option(help="A classifier that must see the edit and still see the finding.")
    ] = None,
    labels: Labels = None,
    size: Size = None,
    channels: Channels = None,
    model: Model = "chest-nih",
    method: Method = None,
    count: Limit = None,
    seed: Seed = 0,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Balance columns of a manifest with counterfactuals; the new manifest holds the old rows and the made ones.

    Example: counterscan augment manifest.csv --finding "pleural effusion" --against pacemaker --model chest-world -o out
    """
    from counterscan.robustness.augment import Gates, columns, counts
    from counterscan.robustness.balancing import balance, write_manifest
    from counterscan.robustness.names import indistinct, meant
    from counterscan.robustness.study import present, read_table

    everything = read_table(manifest)
    finding, *against = (meant(name, list(everything[0])) for name in (finding, *against))
    if finding in against:
        raise WordsError(f"{finding!r} cannot be balanced against itself: name another column after --against")
    folder, backbone, gates = folder_for(output), _load(model, offline), Gates()
    table, failed = present(everything)
    if not table:
        raise DataError(f"none of {len(failed)} images can be used; the first: {failed[0]}")
    rows = [row for row in table if str(row.get("split") or "train") == "train"][:count]
    others = [row for row in table if str(row.get("split") or "train") != "train"]
    edited, held = columns(rows, finding, against)
    for name in edited:
        if same := indistinct(name, list(everything[0]), backbone.card.findings):
            raise WordsError(
                f"{backbone.card.name} cannot tell {name} from {', '.join(same)}: no column of it can be balanced"
            )
    unknown = [name for name in held if not any(name in row for row in rows)]
    _asked(edited + unknown, edited + unknown, backbone, method)
    outputs = opened(judge, labels, size, channels) if judge else None
    with progress("augment") as tell:
        made = balance(
            rows, finding, against, backbone, folder,
            judge=outputs, gates=gates, method=method, seed=seed, progress=tell,
        )  # fmt: skip
    written = write_manifest([*rows, *others], made, folder)
    used = [row for row in made if not row["refused"]]
    names = [finding, *dict.fromkeys(against)]
    before, after = counts(rows, names), counts([*rows, *used], names)
    summary: dict[str, Any] = {
        "manifest": written.name,
        "rows": len(rows),
        "made": len(used),
        "refused": len(made) - len(used),
        "finding": finding,
        "against": ", ".join(names[1:]),
        "edited": edited,
        "failed": list(dict.fromkeys([*failed, *(row["failed"] for row in made if "failed" in row)])),
        "model": backbone.card.name,
        "cells": [
            dict(zip(names, cell, strict=True)) | {"before": before[cell], "after": after[cell]}
            for cell in sorted(after, key=str)
        ],
    }
    settings = {"manifest": manifest, "judge": judge, "method": method, "seed": seed, "gates": asdict(gates)}
    write_run(folder, "augment", settings, summary, [backbone])
    text = f"{len(used)} counterfactuals beside {len(rows)} images, {len(made) - len(used)} refused: {written}"
    _finish(summary, as_json, [text])


def train_classifier(
    manifest: Manifest,
    output: Output,
    labels: Annotated[str, typer.Option(help="The columns to learn, comma-separated.")],
    group: Annotated[
        str | None, typer.Option(help="A second column: groups are its combinations with the first label.")
    ] = None,
    objective: Annotated[str, typer.Option(help="plain, balanced (groups drawn equally) or group-dro.")] = "plain",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 10,
    size: Annotated[int, typer.Option(min=32, max=1024, help="Pixels a side.")] = 192,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Train a small classifier on a manifest; prints test AUC, worst-group AUC and calibration error.

    Example: counterscan train-classifier manifest.csv --labels "pleural effusion" --group pacemaker -o classifier
    """
    from counterscan.robustness.learning import OBJECTIVES, learn
    from counterscan.robustness.names import meant
    from counterscan.robustness.study import present, read_table

    if objective not in OBJECTIVES:
        raise WordsError(f"no objective {objective!r}: known are {', '.join(OBJECTIVES)}")
    folder = folder_for(output)
    table, missing = present(read_table(manifest))
    if missing:
        raise DataError(f"{manifest}: {len(missing)} images are absent: {'; '.join(missing[:3])}")
    columns = list(table[0])
    names, group = [meant(part.strip(), columns) for part in labels.split(",")], group and meant(group, columns)
    with progress("training") as tell:
        model, scores = learn(
            table,
            names,
            group=group,
            objective=objective,
            epochs=epochs,
            size=size,
            seed=seed,
            progress=tell,
        )
    facts = {"name": folder.name, "data": manifest.name, "objective": objective, "seed": seed, "scores": scores}
    model.save(folder, facts | {"command": f"counterscan train-classifier --labels {labels!r}"})
    settings = {
        "manifest": manifest,
        "labels": names,
        "group": group,
        "objective": objective,
        "epochs": epochs,
        "seed": seed,
    }
    write_run(folder, "train-classifier", settings, {"scores": scores})
    emit({"labels": names, "scores": scores}, as_json, "\n".join(f"{k} {v:.3f}" for k, v in scores.items()))


def opened(classifier: str, labels: str | None, size: int | None, channels: int | None) -> Any:
    """The classifier of the options that name one."""
    from counterscan.robustness.opening import open_classifier

    names = [part.strip() for part in labels.split(",")] if labels else ()
    return open_classifier(classifier, names, size=size, channels=channels)


def _load(model: str, offline: bool) -> Any:
    import counterscan

    return counterscan.load(model, offline=offline)


def _asked(
    remove: list[str] | None, add: list[str] | None, backbone: Any, method: str | None
) -> dict[str, dict[str, Any]]:
    """Each edit by its name, refused before any work when its words are wrong."""
    import counterscan

    asked: dict[str, dict[str, Any]] = {f"remove {name}": {"remove": [name]} for name in remove or []}
    asked |= {f"add {name}": {"add": [name]} for name in add or []}
    if not asked:
        raise WordsError("nothing to edit: give --remove or --add, each as often as needed")
    for request in asked.values():
        counterscan.edit([], **request, method=method, model=backbone)
    return asked


def _look(
    table: list[Any], asked: dict[str, Any], outputs: Any, backbone: Any, made: Path, least: int = 1, **how: Any
) -> tuple[list[Any], dict[str, list[Any]], list[str]]:
    """The rows whose images could be edited in every way, ``least`` or more, by edit what was seen of these, and what is wrong
    with the others.
    """
    from counterscan.robustness.study import look

    looked = {}
    for name, request in asked.items():
        with progress(name) as tell:
            looked[name] = look(outputs, table, request, backbone, made, **how, progress=tell)
    wrong = [next((one["error"] for one in some if "error" in one), "") for some in zip(*looked.values(), strict=True)]
    good, failed = [i for i, reason in enumerate(wrong) if not reason], [reason for reason in wrong if reason]
    if len(good) < least:
        used = f"{len(good) or 'none'} of {len(table)} images can be used, {least} or more are needed"
        raise DataError(used + (f"; the first that cannot: {failed[0]}" if failed else ""))
    return [table[i] for i in good], {name: [some[i] for i in good] for name, some in looked.items()}, failed


def _finish(summary: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    """Name what failed, and print; fails where images failed."""
    for reason in summary["failed"]:
        complain(reason)
    emit(summary, as_json, "\n".join(lines))
    if summary["failed"]:
        raise typer.Exit(1)
