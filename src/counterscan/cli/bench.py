"""``counterscan bench``: which method to trust, by distance to the exact counterfactual."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from counterscan.cli.output import Device, Dtype, emit, folder_for, progress, write_run

JUDGES = {"chest": "chest-world-judge"}


def bench(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    model: Annotated[str, typer.Option(help="A built-in name, a folder or a hub id.")] = "chest-world",
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated, also NAME:key=value,key=value, diffusers:img2img and the like; the model's default otherwise."
        ),
    ] = None,
    world: Annotated[str, typer.Option(help="The world that asks and knows the answers.")] = "chest",
    count: Annotated[int, typer.Option("-n", min=1, help="Cases a finding and direction.")] = 16,
    findings: Annotated[
        str | None, typer.Option(help="Comma-separated; all that model and world share otherwise.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=99, help="Another seed asks about other cases.")] = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Edit unseen cases of a world and measure the distance to their exact counterfactuals. Goes on where it stopped.

    Example: counterscan bench --model chest-world --methods flow-edit,ddim:steps=50,diffusers:img2img -n 8 -o bench
    """
    from counterscan.bench import report
    from counterscan.bench.run import bench as run
    from counterscan.methods import listed
    from counterscan.robustness.classifier import Classifier
    from counterscan.scale.devices import open_backbone

    folder, names = folder_for(output), listed(methods or "")
    for name in names:
        _method(name)  # refuses wrong words before the model is opened
    backbone = open_backbone(model, device, dtype=dtype, offline=offline)
    chosen = {name: _method(name, backbone.card) for name in names or [backbone.card.default_method]}
    judge = Classifier.load(JUDGES[world]) if world in JUDGES else None
    told = {name: repr(method) for name, method in chosen.items()}
    settings: dict[str, Any] = {"model": model, "methods": told, "world": world, "n": count}
    with progress("bench") as tell:
        result = run(
            backbone, chosen, world, folder, n=count, findings=_split(findings), judge=judge, seed=seed, progress=tell
        )
    rows = [{k: row[k] for k in row if k != "cases"} for row in result["rows"]]
    summary = {"rows": rows, "floor": result["floor"], "model": backbone.card.name, "world": world, "n": count}
    report.plot(rows, folder / "speed.png")
    table = report.markdown(rows)
    (folder / "results.md").write_text(table, encoding="utf-8")
    report.page(rows, summary, folder)
    write_run(folder, "bench", settings | {"seed": seed}, summary, [backbone])
    emit(summary, as_json, table)


def _method(name: str, card: Any = None) -> Any:
    """The method of that name with the settings that suit a model, or the pipeline of diffusers."""
    from counterscan.bench import peers
    from counterscan.methods import get, suited

    if name.startswith("diffusers:"):
        return peers.get(name)
    return suited(card, name) if card else get(name)


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]
