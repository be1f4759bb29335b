"""Series of DICOM files: uploaded as one zip, looked through, and one instance at a time taken to be edited."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from pathlib import Path
from typing import Annotated, Any

import fastapi
from fastapi import HTTPException, Query, Request, Response

from counterscan.studio.access import Here, Mine
from counterscan.studio.described import ABSENT, DOOR, FILE_BODY, FULL, LARGE, sends
from counterscan.studio.receive import received
from counterscan.studio.sessions import Session

series = fastapi.APIRouter(prefix="/api/series", responses=DOOR)


@series.post("", status_code=201, responses=LARGE | FULL, openapi_extra=FILE_BODY)
async def upload_series(
    request: Request, studio: Here, session: Mine, name: Annotated[str, Query(max_length=1000)] = "series.zip"
) -> dict[str, Any]:
    """Upload a zip of DICOM files (``curl --data-binary @ct.zip``). Answers with its instances in their order."""
    async with received(request, session, studio, name, studio.limits.series_bytes) as path:
        return _told(await asyncio.to_thread(studio.add_series, session, path, name))


@series.get("")
def all_series(session: Mine) -> dict[str, Any]:
    """The session's series, oldest first."""
    folder = session.folder / "series"
    known = [facts for p in folder.iterdir() if (facts := session.instances(p.name))] if folder.is_dir() else []
    return {"series": [_told(facts) for facts in sorted(known, key=lambda facts: facts["taken"])]}


@series.get("/{one}/{instance}/thumbnail", response_class=Response, responses=sends("image/png") | ABSENT)
def instance_thumbnail(one: str, instance: int, studio: Here, session: Mine) -> Response:
    """A small PNG of an instance, as it is, unedited."""
    folder, known = _instance(session, one, instance)
    picture = studio.thumbnail(folder, known)
    return Response(picture, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


@series.post("/{one}/{instance}/image", status_code=201, responses=ABSENT | FULL)
def take_instance(one: str, instance: int, studio: Here, session: Mine) -> dict[str, Any]:
    """Make an instance an image of the session, to be edited."""
    folder, known = _instance(session, one, instance)
    copy = session.folder / "incoming" / secrets.token_hex(16)
    copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.copyfile(folder / "files" / known["file"], copy)
    return studio.add_image(session, copy, known["name"], series=one, instance=instance)


@series.delete("/{one}", status_code=204, responses=ABSENT)
def delete_series(one: str, session: Mine) -> None:
    """Delete a series; images that were taken from it stay."""
    folder = session.series(one)
    if folder is None:
        raise HTTPException(404, "no such series in this session")
    shutil.rmtree(folder)


def _instance(session: Session, one: str, instance: int) -> tuple[Path, dict[str, Any]]:
    folder, known = session.series(one), session.instances(one)
    if folder is None or known is None:
        raise HTTPException(404, "no such series in this session")
    if not 0 <= instance < len(known["instances"]):
        raise HTTPException(404, f"no instance {instance}: there are {len(known['instances'])}, from 0")
    return folder, known["instances"][instance]


def _told(facts: dict[str, Any]) -> dict[str, Any]:
    """Without the names of our own files."""
    return facts | {"instances": [{k: v for k, v in one.items() if k != "file"} for one in facts["instances"]]}
