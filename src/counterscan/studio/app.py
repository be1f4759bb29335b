"""The application: the API and the page, behind a guard at the door."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Cookie, FastAPI, Response
from fastapi.responses import FileResponse

from counterscan import __version__
from counterscan.studio.access import COOKIE, Here
from counterscan.studio.api import api
from counterscan.studio.core import Options, Studio
from counterscan.studio.described import require_token
from counterscan.studio.door import guard, set_cookie
from counterscan.studio.pages import add_errors, add_files, folder_of
from counterscan.studio.series import series
from counterscan.studio.shelves import shelves

SWEEP = 60.0  # seconds between looks for idle sessions


def create(options: Options) -> FastAPI:
    """The application. Sessions of a former run with the same ``state`` go on; its open jobs are reported as failed."""

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        app.state.studio = studio = Studio(options)
        threading.Thread(target=studio.warm, daemon=True).start()
        sweeper = asyncio.create_task(_sweep(studio))
        try:
            yield
        finally:
            sweeper.cancel()
            await asyncio.to_thread(studio.end)

    app = FastAPI(
        title="Counterscan", version=__version__, lifespan=life, docs_url=None, redoc_url=None,
        description="Counterfactual edits of medical images. All results are synthetic and not for diagnosis.",
    )  # fmt: skip
    app.include_router(api)
    app.include_router(shelves)
    app.include_router(series)
    _add_page(app)
    add_errors(app)
    if options.token:
        require_token(app.openapi())
    app.middleware("http")(guard(options.token, options.hosts))
    return app


def _add_page(app: FastAPI) -> None:
    folder = folder_of("studio")

    def index(studio: Here, cookie: Annotated[str | None, Cookie(alias=COOKIE)] = None) -> Response:
        response = FileResponse(folder / "index.html", media_type="text/html")
        if studio.sessions.find(cookie) is None:
            set_cookie(response, COOKIE, studio.sessions.begin())
        return response

    app.get("/", include_in_schema=False)(index)
    add_files(app, folder.glob("*.*"))


async def _sweep(studio: Studio) -> None:
    while True:
        await asyncio.sleep(SWEEP)
        for session in await asyncio.to_thread(studio.sessions.sweep):
            studio.jobs.drop(session)
