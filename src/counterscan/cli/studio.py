"""``counterscan studio``: the web page and the HTTP API."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from counterscan.cli.output import listening
from counterscan.errors import WorkError


def studio(
    host: Annotated[str, typer.Option(help="Another than loopback can be reached by others and needs --token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8750,
    model: Annotated[str, typer.Option(help="A built-in name, a folder or a hub id.")] = "chest-nih",
    token: Annotated[
        str | None, typer.Option(envvar="COUNTERSCAN_TOKEN", help="What visitors must know; better in the variable.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A folder of data sets to browse.")] = None,
    bench: Annotated[Path | None, typer.Option(help="A folder of results of counterscan bench to show.")] = None,
    state: Annotated[Path | None, typer.Option(help="Where sessions are kept while they last.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network for a model.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the address as one JSON object once it listens.")
    ] = False,
) -> None:
    """Open the studio in a browser: load an image, ask what if, and see the answer. Ctrl-C ends it.

    Example: counterscan studio --port 8750
    """
    for package in ("fastapi", "uvicorn"):
        if find_spec(package) is None:
            raise WorkError(f"the studio needs {package}: pip install 'counterscan[studio]'")
    from counterscan.studio.serve import serve

    with suppress(KeyboardInterrupt):  # that is how it ends
        serve(
            host, port, model=model, token=token, state=state, data=data, bench=bench, offline=offline,
            ready=listening("studio", as_json),
        )  # fmt: skip
