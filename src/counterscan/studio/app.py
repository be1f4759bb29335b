"""The application: the API and the page, behind a guard at the door."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from pathlib import Path
from typing import Annotated

from fastapi import Cookie, FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from counterscan import __version__
from counterscan.errors import CounterscanError, DataError, ImageError, WordsError
from counterscan.studio.access import COOKIE, Here, set_cookie
from counterscan.studio.api import api
from counterscan.studio.core import Options, Studio
from counterscan.studio.sessions import Full
from counterscan.studio.shelves import shelves

ACCESS = "counterscan_access"
SWEEP = 60.0  # seconds between looks for idle sessions
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


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
    _add_page(app)
    _add_errors(app)
    app.middleware("http")(_guard(options))
    return app


def _add_page(app: FastAPI) -> None:
    folder = Path(str(resources.files("counterscan"))) / "studio" / "page"

    def index(studio: Here, cookie: Annotated[str | None, Cookie(alias=COOKIE)] = None) -> Response:
        response = FileResponse(folder / "index.html", media_type="text/html")
        if studio.sessions.find(cookie) is None:
            set_cookie(response, COOKIE, studio.sessions.begin())
        return response

    app.get("/", include_in_schema=False)(index)
    for path in folder.glob("*.*"):
        kind = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}[path.suffix]
        app.get(f"/{path.name}", include_in_schema=False)(lambda p=path, k=kind: FileResponse(p, media_type=k))


def _add_errors(app: FastAPI) -> None:
    codes: list[tuple[type[Exception], int]] = [
        (Full, 429), (WordsError, 422), (ImageError, 422), (DataError, 404), (CounterscanError, 500)
    ]  # fmt: skip
    for kind, code in codes:

        def answer(_: Request, error: Exception, code: int = code) -> JSONResponse:
            return JSONResponse({"detail": str(error)}, code, headers={"Retry-After": "5"} if code == 429 else None)

        app.exception_handler(kind)(answer)


Next = Callable[[Request], Awaitable[Response]]


def _guard(options: Options) -> Callable[[Request, Next], Awaitable[Response]]:
    """Who may come in: the right host name, the token where one was given, and no other site's page."""

    async def guard(request: Request, go_on: Next) -> Response:
        host = request.headers.get("host", "").rsplit(":", 1)[0] if request.headers.get("host") else ""
        site = request.headers.get("sec-fetch-site", "same-origin")
        if options.hosts and request.headers.get("host", "") not in options.hosts and host not in options.hosts:
            response: Response = JSONResponse({"detail": "unknown host name"}, 421)
        elif request.method not in ("GET", "HEAD") and site not in ("same-origin", "none"):
            response = JSONResponse({"detail": "from another site"}, 403)
        elif options.token and not _allowed(request, options.token):
            response = JSONResponse({"detail": "give the token: open /?token=… or send Authorization: Bearer …"}, 401)
        elif options.token and request.url.path == "/" and "token" in request.query_params:
            response = Response(status_code=303, headers={"Location": "/"})  # so that it stays in no history
            set_cookie(response, ACCESS, options.token)
        else:
            response = await go_on(request)
        for key, value in SECURITY.items():
            response.headers.setdefault(key, value)
        return response

    return guard


def _allowed(request: Request, token: str) -> bool:
    given = [request.headers.get("authorization", "").removeprefix("Bearer "), request.cookies.get(ACCESS, "")]
    if request.url.path == "/":
        given.append(request.query_params.get("token", ""))
    return any(hmac.compare_digest(word.encode(), token.encode()) for word in given)


async def _sweep(studio: Studio) -> None:
    while True:
        await asyncio.sleep(SWEEP)
        for session in await asyncio.to_thread(studio.sessions.sweep):
            studio.jobs.drop(session)
