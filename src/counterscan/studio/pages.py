"""What any of our servers does with the files of its page, and how it says what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse

from counterscan.errors import CounterscanError, DataError, ImageError, WordsError
from counterscan.studio.sessions import Full

KINDS = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
CODES: tuple[tuple[type[Exception], int], ...] = (
    (Full, 429), (WordsError, 422), (ImageError, 422), (DataError, 404), (CounterscanError, 500)
)  # fmt: skip


def folder_of(package: str) -> Path:
    """The folder of a package's page."""
    return Path(str(resources.files("counterscan"))) / package / "page"


def add_files(app: FastAPI, paths: Iterable[Path]) -> None:
    """Serve each file under its name."""
    for path in paths:
        app.get(f"/{path.name}", include_in_schema=False)(_sender(path))


def _sender(path: Path) -> Callable[[], FileResponse]:
    def send() -> FileResponse:  # without parameters: FastAPI would let the browser set them
        return FileResponse(path, media_type=KINDS[path.suffix])

    return send


def add_errors(app: FastAPI) -> None:
    """Say what is wrong in one line of JSON, with the right code."""
    for kind, code in CODES:

        def answer(_: Request, error: Exception, code: int = code) -> JSONResponse:
            return JSONResponse({"detail": str(error)}, code, headers={"Retry-After": "5"} if code == 429 else None)

        app.exception_handler(kind)(answer)

    def misfit(_: Request, error: Exception) -> JSONResponse:
        """Which field is wrong; without what was given, which may be no JSON (NaN) or somebody's secret."""
        faults = error.errors() if isinstance(error, RequestValidationError) else []
        return JSONResponse({"detail": [{key: fault[key] for key in ("type", "loc", "msg")} for fault in faults]}, 422)

    app.exception_handler(RequestValidationError)(misfit)
