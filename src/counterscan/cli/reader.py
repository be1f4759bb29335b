"""``counterscan reader``: a blinded reader study, and what came of it."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from counterscan.cli.output import emit, folder_for, listening, write_run
from counterscan.errors import WorkError


def reader(
    study: Annotated[Path, typer.Argument(help="The study: a YAML file that names tasks and images.")],
    report: Annotated[bool, typer.Option("--report", help="Measure the answers so far instead of asking.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")] = Path("report"),
    store: Annotated[
        Path | None, typer.Option(help="The SQLite file of answers; the study's name with .sqlite otherwise.")
    ] = None,
    host: Annotated[str, typer.Option(help="Another than loopback can be reached by others and needs --token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8760,
    token: Annotated[
        str | None, typer.Option(envvar="COUNTERSCAN_TOKEN", help="What readers must know; better in the variable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: the report, or the address.")] = False,
) -> None:
    """Ask readers blindly about real and synthetic images; with --report, say how well they told them apart.

    Example: counterscan reader study.yaml --port 8760
    """
    from counterscan.reader.study import read

    place = store or study.with_suffix(".sqlite")
    if report:
        from counterscan.reader.report import write_report

        folder = folder_for(output)
        summary = write_report(read(study), place, folder)
        write_run(folder, "reader", {"study": study, "store": place}, summary, scores=summary["tasks"])
        emit(
            summary,
            as_json,
            f"{summary['answers']} answers of {len(summary['readers'])} readers: {folder / 'report.html'}",
        )
        return
    for package in ("fastapi", "uvicorn"):
        if find_spec(package) is None:
            raise WorkError(f"a reader study needs {package}: pip install 'counterscan[studio]'")
    from counterscan.reader.app import create
    from counterscan.studio.door import LOOPBACK
    from counterscan.studio.serve import bind, check_access, is_loopback, run

    check_access(host, token)
    app = create(read(study), place, token=token, hosts=LOOPBACK if is_loopback(host) else ())
    with suppress(KeyboardInterrupt):  # that is how it ends
        run(app, bind(host, port), host, listening("study", as_json))
