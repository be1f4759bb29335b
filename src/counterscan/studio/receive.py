"""Uploads arrive as the body of a request and go to disk as they come, never further than a limit."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import HTTPException, Request

from counterscan.studio.core import Studio
from counterscan.studio.sessions import Session, clean


@contextlib.asynccontextmanager
async def received(request: Request, session: Session, studio: Studio, name: str, limit: int) -> AsyncIterator[Path]:
    """The body as a file of the session, deleted afterwards if it is still there. 413 beyond ``limit`` bytes."""
    too_large = HTTPException(413, f"{clean(name)}: more than {limit // 2**20} MB; crop or compress it")
    if (length := request.headers.get("content-length", "")).isdigit() and int(length) > limit:
        raise too_large
    session.room(studio.limits)  # before anything is sent
    folder = session.folder / "incoming"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path, size = folder / secrets.token_hex(16), 0
    try:
        with path.open("wb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise too_large
                file.write(chunk)
        yield path
    finally:
        path.unlink(missing_ok=True)
