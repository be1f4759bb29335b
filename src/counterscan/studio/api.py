"""The HTTP API: sessions, uploads, jobs and results. Every name in a path is looked up among what the session has."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import fastapi
import numpy as np
from fastapi import HTTPException, Query, Request, Response
from fastapi.responses import FileResponse

from counterscan import __version__
from counterscan.errors import CounterscanError, WordsError
from counterscan.imaging import read
from counterscan.robustness.opening import judges
from counterscan.search import REFINEMENTS, STRENGTHS, check_selector, stronger
from counterscan.studio import browse, work
from counterscan.studio.access import COOKIE, Here, Mine
from counterscan.studio.core import Studio
from counterscan.studio.described import ABSENT, DOOR, FILE_BODY, FULL, LARGE, sends
from counterscan.studio.door import set_cookie
from counterscan.studio.receive import received
from counterscan.studio.requests import STRONGEST, AttributeRequest, BatchRequest, EditRequest, GenerateRequest
from counterscan.studio.sessions import Session

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone
    from counterscan.robustness.opening import Outputs

REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
TOLD = ("upload_bytes", "pixels", "queued_each", "series_bytes", "instances")  # limits that the page has to know
TYPES = {".png": "image/png", ".html": "text/html", ".json": "application/json", ".dcm": "application/dicom"}
OTHER = "application/octet-stream"


api = fastapi.APIRouter(prefix="/api", responses=DOOR)


@api.post("/sessions", status_code=201, responses=FULL)
def begin_session(studio: Here, response: Response) -> dict[str, str]:
    """Begin a session. Send its token as the header ``X-Counterscan-Session``, or let the cookie do it."""
    token = studio.sessions.begin()
    set_cookie(response, COOKIE, token)
    return {"session": token}


@api.delete("/session", status_code=204)
def end_session(studio: Here, session: Mine) -> None:
    """End the session: its jobs are cancelled, its images and results deleted."""
    studio.jobs.drop(session.id)
    studio.sessions.end(session.id)


@api.get("/about")
def about(studio: Here) -> dict[str, Any]:
    """Models with their findings, classifiers, methods, regions and limits."""
    from counterscan import methods
    from counterscan.backbones import locate
    from counterscan.backbones.card import Card
    from counterscan.editing import REGIONS
    from counterscan.language.vocabulary import VOCABULARY

    admits = {f.name: {"sides": f.sides, "places": f.places, "severities": f.severities} for f in VOCABULARY}
    models = []
    for name in studio.models.names:
        with contextlib.suppress(CounterscanError):
            card = Card.read(locate(name, offline=True))
            if card is not None and card.findings:
                findings = {finding: admits.get(finding, {}) for finding in card.findings}
                facts = {"template": card.template, "resolution": card.resolution, "method": card.default_method}
                models.append({"name": name, "label": card.name, "findings": findings, **facts})
    limits = studio.limits
    return {
        "version": __version__,
        "models": models,
        "classifiers": judges(),
        "methods": methods.names(),
        "regions": {name: list(box) for name, box in REGIONS.items()},
        "limits": {key: getattr(limits, key) for key in TOLD} | {"strength": STRONGEST},
    }


@api.post("/images", status_code=201, responses=LARGE | FULL, openapi_extra=FILE_BODY)
async def upload(
    request: Request,
    studio: Here,
    session: Mine,
    name: Annotated[str, Query(max_length=1000)] = "image",
    slice_index: Annotated[int | None, Query(alias="slice", ge=0)] = None,
) -> dict[str, Any]:
    """Upload an image: the file itself is the body (``curl --data-binary @chest.dcm``), ``name`` its name.

    Of a NIfTI volume ``slice`` says which slice of the last axis is the image.
    """
    async with received(request, session, studio, name, studio.limits.upload_bytes) as path:
        return await asyncio.to_thread(studio.add_image, session, path, name, slice_index=slice_index)


@api.get("/images")
def images(session: Mine) -> dict[str, Any]:
    """The session's images, oldest first."""
    folder = session.folder / "images"
    known = [facts for p in folder.iterdir() if (facts := session.facts(p.name))] if folder.is_dir() else []
    return {"images": sorted(known, key=lambda facts: facts["taken"])}


@api.get("/images/{image}/view", response_class=FileResponse, responses=sends(OTHER) | ABSENT)
def image_view(image: str, session: Mine) -> FileResponse:
    """What is shown of an image: uint16 little-endian, row by row; its size is in the image's facts."""
    folder = session.image(image)
    if folder is None:
        raise HTTPException(404, "no such image in this session")
    return FileResponse(folder / "view", media_type="application/octet-stream")


@api.delete("/images/{image}", status_code=204, responses=ABSENT)
def delete_image(image: str, session: Mine) -> None:
    """Delete an image; results made from it stay."""
    folder = session.image(image)
    if folder is None:
        raise HTTPException(404, "no such image in this session")
    shutil.rmtree(folder)


@api.post("/edit", status_code=202, responses=ABSENT | FULL)
def edit(ask: EditRequest, studio: Here, session: Mine) -> dict[str, str]:
    """Queue an edit; returns the job's id."""
    import counterscan
    from counterscan import methods

    backbone = studio.models.get(ask.model)
    original = _original(session, ask.image, backbone)
    words = ask.model_dump(
        exclude={"image", "model", "mask", "count", "strength", "judge", "until", "best_of", "selector"}
    )
    if ask.strength != 1:
        words["method"] = stronger(methods.suited(backbone.card, ask.method, keep=bool(ask.keep)), ask.strength)
    counterscan.edit([], **words, model=backbone)  # refuses wrong words before anything is queued
    request = words | {"mask": _mask(ask, session)}
    strengths = 1 if ask.until is None else len(STRENGTHS) + REFINEMENTS
    _check_size(studio, session, ask.image, ask.best_of * strengths)
    goal: dict[str, Any] = {"until": ask.until, "best_of": ask.best_of}
    goal |= {"selector": _selector(ask, backbone)}
    done = partial(work.search, **goal) if ask.searched else partial(work.edit, count=ask.count)
    done = partial(done, strength=ask.strength)
    done, side = partial(done, judge=work.classifier(ask.judge) if ask.judge else None), studio.limits.view_side

    def run(job: str, report: work.Report) -> dict[str, Any]:
        return done(original, session.job(job), backbone, request, side=side, report=report) | {"image": ask.image}

    return {"job": studio.jobs.submit(session.id, "edit", run)}


@api.post("/attribute", status_code=202, responses=ABSENT | FULL)
def attribute(ask: AttributeRequest, studio: Here, session: Mine) -> dict[str, str]:
    """Queue an attribution: where is the finding?"""
    from counterscan.attribution import Calibration, promise

    backbone = studio.models.get(ask.model)
    original = _original(session, ask.image, backbone)
    known = Calibration(**ask.calibration.model_dump()) if ask.calibration else None
    promise(ask.finding, ask.repeats, ask.method, backbone, known, ask.rate)  # refuses wrong words
    _check_size(studio, session, ask.image, ask.repeats + 1)
    request, side = ask.model_dump(exclude={"image", "model"}) | {"calibration": known}, studio.limits.view_side

    def run(job: str, report: work.Report) -> dict[str, Any]:
        return work.attribute(original, session.job(job), backbone, request, side=side, report=report) | {
            "image": ask.image
        }

    return {"job": studio.jobs.submit(session.id, "attribute", run)}


@api.post("/batch", status_code=202, responses=ABSENT | FULL)
def batch(ask: BatchRequest, studio: Here, session: Mine) -> dict[str, str]:
    """Queue the same edit of some rows of a data set; for whole archives see ``counterscan batch``."""
    import counterscan

    paths = browse.images_of(studio.options.data, ask.manifest, ask.query, ask.n)
    backbone, words = studio.models.get(ask.model), ask.model_dump(exclude={"manifest", "query", "n", "model"})
    counterscan.edit([], **words, model=backbone)
    side = studio.limits.view_side

    def run(job: str, report: work.Report) -> dict[str, Any]:
        result = work.batch(paths, session.job(job), backbone, words, side=side, report=report)
        return result | {"manifest": ask.manifest}

    return {"job": studio.jobs.submit(session.id, "batch", run)}


@api.post("/generate", status_code=202, responses=FULL)
def generate(ask: GenerateRequest, studio: Here, session: Mine) -> dict[str, str]:
    """Queue images from a prompt."""
    backbone, request, side = studio.models.get(ask.model), ask.model_dump(exclude={"model"}), studio.limits.view_side

    def run(job: str, report: work.Report) -> dict[str, Any]:
        return work.generate(session.job(job), backbone, request, side=side, report=report)

    return {"job": studio.jobs.submit(session.id, "generate", run)}


@api.get("/jobs")
def jobs(studio: Here, session: Mine) -> dict[str, Any]:
    """The session's jobs, oldest first."""
    return {"jobs": studio.ledger.jobs(session.id)}


@api.get("/jobs/{job}", responses=ABSENT)
def job(job: str, studio: Here, session: Mine) -> dict[str, Any]:
    """A job: its state (queued, running, done, failed, cancelled), progress, and result or error."""
    return _job(studio, session, job) | {"progress": studio.jobs.progress(job)}


@api.delete("/jobs/{job}", status_code=202, responses=ABSENT)
def cancel(job: str, studio: Here, session: Mine) -> dict[str, Any]:
    """Cancel a job: at once when it waits, after the network evaluation at hand when it runs."""
    _job(studio, session, job)
    studio.jobs.cancel(job)
    return _job(studio, session, job)


@api.get("/jobs/{job}/files/{name}", response_class=FileResponse, responses=sends(*TYPES.values(), OTHER) | ABSENT)
def job_file(job: str, name: str, studio: Here, session: Mine, download: bool = False) -> FileResponse:
    """A file of a job's result, by the name the result gives it."""
    result = _job(studio, session, job)["result"] or {}
    if name not in {file for item in result.get("items", []) for file in item["files"].values()}:
        raise HTTPException(404, "no such file in this job")
    path = session.job(job) / name
    kind = TYPES.get(path.suffix, OTHER)
    headers = {"Content-Security-Policy": REPORT_POLICY} if path.suffix == ".html" else None
    return FileResponse(path, media_type=kind, headers=headers, filename=name if download else None)


@api.post("/jobs/{job}/items/{item}/image", status_code=201, responses=ABSENT | FULL)
def take(job: str, item: int, studio: Here, session: Mine) -> dict[str, Any]:
    """Make a result an image of the session, to go on from it."""
    items = (_job(studio, session, job)["result"] or {}).get("items", [])
    if not 0 <= item < len(items) or "counterfactual" not in items[item]["files"]:
        raise HTTPException(404, "no such image in this job")
    name = items[item]["files"]["counterfactual"]
    copy = session.folder / "incoming" / secrets.token_hex(16)
    copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.copyfile(session.job(job) / name, copy)
    return studio.add_image(session, copy, name, synthetic=True)


def _original(session: Session, image: str, backbone: Backbone) -> work.Original:
    """What reads an image of the session. Raises ``ImageError`` where it has not the channels that the model takes."""
    from counterscan.editing import to_tensor

    path, facts = session.original(image), session.facts(image)
    if path is None or facts is None:
        raise HTTPException(404, "no such image in this session")
    to_tensor(np.zeros((1, 1, facts.get("channels", backbone.channels)), np.float32), backbone.channels)
    return partial(read, path, slice_index=facts.get("slice"))


def _mask(ask: EditRequest, session: Session) -> dict[str, Any] | None:
    """The drawn region as it came, which is smaller than its pixels. Raises ``WordsError`` where it is none."""
    facts = session.facts(ask.image)
    if ask.mask is None or facts is None:
        return None
    mask = ask.mask.model_dump()
    work.unpack_mask(mask, (facts["height"], facts["width"]))
    return mask


def _selector(ask: EditRequest, backbone: Backbone) -> Outputs | None:
    """The classifier that chooses, if one is asked for. Raises ``WordsError`` where it does not know what changes."""
    from counterscan.language import resolve

    if ask.selector is None:
        return None
    selector = work.classifier(ask.selector)
    words = ask.model_dump(include={"remove", "add", "source", "target", "instruct", "region", "keep"})
    check_selector(selector, None, resolve(**words, card=backbone.card))
    return selector


def _check_size(studio: Studio, session: Session, image: str, kept: int) -> None:
    """Raise ``WordsError`` where a job would hold more pixels at once than it may."""
    facts, most = session.facts(image), studio.limits.kept_pixels
    if facts and kept * facts["width"] * facts["height"] > most:
        size = f"{facts['width']}x{facts['height']}"
        raise WordsError(f"{kept} edits of {size} pixels are more than {most} at once: ask for fewer, or shrink it")


def _job(studio: Studio, session: Session, job: str) -> dict[str, Any]:
    found = studio.ledger.job(job, session.id)
    if found is None:
        raise HTTPException(404, "no such job in this session")
    return found
