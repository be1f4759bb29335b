"""Run the studio: bind first, so that the folder of this address is ours alone, then serve until stopped."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from counterscan.backbones import check_name
from counterscan.errors import WordsError, WorkError

if TYPE_CHECKING:
    from fastapi import FastAPI


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server at ``host``."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ``WorkError`` when the address is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise WorkError(f"{host}:{port}: {error.strerror or error}; choose another --port or --host") from error
    return listener


def state_folder(host: str, port: int) -> Path:
    """Where sessions and the ledger of this address are kept, in the user's own state folder."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "counterscan" / f"studio-{host.replace(':', '_')}-{port}"


def usable(state: Path) -> Path:
    """The folder of sessions, made where it is absent. ``WordsError`` where it cannot be one."""
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        what = "is no folder" if state.exists() else error.strerror or error
        raise WordsError(f"{state}: {what}; name a folder after --state") from error
    if not os.access(state, os.W_OK):
        raise WordsError(f"{state}: may not be written; name another folder after --state")
    return state


def check_access(host: str, token: str | None) -> None:
    """Raise ``WordsError`` for a ``host`` that others can reach without a ``token``, and for a token easily guessed."""
    if not is_loopback(host) and not token:
        raise WordsError(f"--host {host} can be reached by others: give a --token that they must know")
    if token is not None and len(token) < 12:
        raise WordsError("--token: at least 12 characters, such as those of: openssl rand -hex 16")


def run(app: FastAPI, listener: socket.socket, host: str, ready: Callable[[str], None]) -> None:
    """Serve an application on a listening socket until Ctrl-C; ``ready`` is told the address."""
    import uvicorn

    ready(f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/")
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, limit_concurrency=256,
        timeout_keep_alive=15, timeout_graceful_shutdown=3, h11_max_incomplete_event_size=65536,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listener])


def serve(
    host: str,
    port: int,
    *,
    model: str,
    token: str | None,
    state: Path | None,
    data: Path | None,
    bench: Path | None,
    offline: bool,
    ready: Callable[[str], None],
) -> None:
    """Serve the studio until Ctrl-C; ``ready`` is told the address. A ``host`` that others can reach needs a ``token``."""
    check_access(host, token)
    for folder, option in ((data, "--data"), (bench, "--bench")):
        if folder is not None and not folder.is_dir():
            raise WordsError(f"{folder}: is no folder; name one after {option}")
    if state is not None:
        usable(state)
    check_name(model, offline=offline)
    from counterscan.studio.app import create
    from counterscan.studio.core import Options
    from counterscan.studio.door import LOOPBACK

    listener = bind(host, port)
    options = Options(
        state=state or usable(state_folder(host, listener.getsockname()[1])), model=model, token=token, data=data, bench=bench,
        offline=offline, hosts=LOOPBACK if is_loopback(host) else (),
    )  # fmt: skip
    run(create(options), listener, host, ready)
