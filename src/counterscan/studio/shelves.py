"""What stands on the server's own shelves: example radiographs, data sets, and results of benchmarks. Read only."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from pathlib import Path
from typing import Annotated, Any

import fastapi
from fastapi import HTTPException, Query, Response
from fastapi.responses import FileResponse

from counterscan.studio import browse
from counterscan.studio.access import Here, Mine
from counterscan.studio.core import Studio
from counterscan.studio.described import ABSENT, DOOR, FULL, LARGE, sends
from counterscan.studio.requests import DatasetRequest
from counterscan.studio.sessions import Session

shelves = fastapi.APIRouter(prefix="/api", responses=DOOR)
Name = Annotated[str, Query(max_length=1000)]
Row = Annotated[int, Query(ge=0, le=2**40)]


@shelves.get("/examples")
def examples() -> dict[str, Any]:
    """The radiographs that come with the package, what they show, and whom to credit."""
    known = browse.examples()
    return {"examples": known["items"], "credit": known["credit"]}


@shelves.get("/examples/{number}/thumbnail", response_class=Response, responses=sends("image/png") | ABSENT)
async def example_thumbnail(number: int) -> Response:
    """A small PNG of an example."""
    return await _thumbnail(browse.example(number))


@shelves.post("/examples/{number}/image", status_code=201, responses=ABSENT | LARGE | FULL)
def example_open(number: int, studio: Here, session: Mine) -> dict[str, Any]:
    """Take an example into the session."""
    return _take(browse.example(number), studio, session)


@shelves.get("/datasets")
def datasets(studio: Here) -> dict[str, Any]:
    """The manifests below the folder given with ``--data``."""
    return {"manifests": browse.manifests(studio.options.data)}


@shelves.get("/datasets/rows", responses=ABSENT)
def dataset_rows(
    studio: Here,
    manifest: Name,
    offset: Row = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 25,
    query: Annotated[str, Query(max_length=200)] = "",
) -> dict[str, Any]:
    """Rows of a manifest."""
    return browse.rows(studio.options.data, manifest, offset, limit, query)


@shelves.get("/datasets/thumbnail", response_class=Response, responses=sends("image/png") | ABSENT)
async def dataset_thumbnail(studio: Here, manifest: Name, row: Row) -> Response:
    """A small PNG of a row's image."""
    return await _thumbnail(browse.image_of(studio.options.data, manifest, row))


@shelves.post("/datasets/open", status_code=201, responses=ABSENT | LARGE | FULL)
def dataset_open(ask: DatasetRequest, studio: Here, session: Mine) -> dict[str, Any]:
    """Take the image of a row into the session."""
    return _take(browse.image_of(studio.options.data, ask.manifest, ask.row), studio, session)


@shelves.get("/benches")
def benches(studio: Here) -> dict[str, Any]:
    """The results of ``counterscan bench`` below the folder given with ``--bench``."""
    return {"benches": browse.benches(studio.options.bench)}


@shelves.get("/benches/{bench}/{name:path}", response_class=FileResponse, responses=sends("image/png") | ABSENT)
def bench_picture(bench: int, name: str, studio: Here) -> FileResponse:
    """A picture of a benchmark."""
    path = browse.picture_of(studio.options.bench, bench, name)
    if path is None:
        raise HTTPException(404, "no such picture")
    return FileResponse(path, media_type="image/png")


def _take(path: Path, studio: Studio, session: Session) -> dict[str, Any]:
    if path.stat().st_size > studio.limits.upload_bytes:
        raise HTTPException(413, f"{path.name}: too large")
    copy = session.folder / "incoming" / secrets.token_hex(16)
    copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.copyfile(path, copy)
    return studio.add_image(session, copy, path.name)


async def _thumbnail(path: Path) -> Response:
    picture = await asyncio.to_thread(browse.thumbnail, path)
    return Response(picture, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})
