"""The server of a study: the next trial, its pictures as bare numbers, and the answer to it. Behind the studio's door."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Response
from fastapi.responses import FileResponse
from numpy.typing import NDArray
from pydantic import BaseModel

from counterscan import __version__
from counterscan.reader.store import Store
from counterscan.reader.study import LIKERT, RATINGS, Case, Code, Study
from counterscan.reader.trials import Answer, Trial, check, public, trials
from counterscan.studio.door import LOOPBACK, guard
from counterscan.studio.pages import add_errors, add_files, folder_of

SHARED = ("viewer.js", "pointer.js", "maps.js", "dom.js", "style.css")  # of the studio's page


class Begin(BaseModel):
    """Who reads: a code that the study's owner gave out."""

    code: Code


def create(study: Study, store: Path, *, token: str | None = None, hosts: tuple[str, ...] = LOOPBACK) -> FastAPI:
    """The application of one study; answers go to the file ``store`` and are never lost once accepted."""
    kept = Store(store, study.fingerprint)

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        kept.shut()

    app = FastAPI(title="Counterscan reader study", version=__version__, lifespan=life, docs_url=None, redoc_url=None)
    _add_api(app, study, kept)
    own, shared = folder_of("reader"), folder_of("studio")
    add_files(app, [*own.glob("*.*"), *(shared / name for name in SHARED)])
    add_errors(app)
    app.middleware("http")(guard(token, hosts))

    @app.get("/", include_in_schema=False)
    def index() -> FileResponse:
        return FileResponse(own / "reader.html", media_type="text/html")

    return app


def _add_api(app: FastAPI, study: Study, store: Store) -> None:
    plan = study.plan

    def number_of(code: str) -> int:
        number = store.reader(code)
        if number is None:
            raise HTTPException(404, "no such reader: begin with a code first")
        return number

    def trial_of(code: str, place: int) -> tuple[int, Trial]:
        number = number_of(code)
        order = trials(study, number)
        if not 0 <= place < len(order):
            raise HTTPException(404, f"no such trial: there are {len(order)}, from 0")
        return number, order[place]

    def state(code: str) -> dict[str, Any]:
        number = number_of(code)
        order, done = trials(study, number), store.answered(number)
        here = {"reader": code, "done": len(done), "total": len(order), "trial": None}
        place = next((k for k, trial in enumerate(order) if trial.id not in done), None)
        if place is None:
            return here
        task = study.tasks[order[place].task]
        views = [{"width": p.shape[1], "height": p.shape[0], "channels": 3 if p.ndim == 3 else 1}
                 for p in _shown(order[place], plan.side)]  # fmt: skip
        return here | {"trial": public(task, order[place]) | {"place": place, "views": views}}

    @app.get("/api/study")
    def about() -> dict[str, Any]:
        """What the study asks, and in what words answers are given."""
        tasks = [{"kind": task.kind, "cases": len(task.cases)} for task in study.tasks]
        return {"title": plan.title, "tasks": tasks, "ratings": list(RATINGS), "likert": LIKERT}

    @app.post("/api/readers", status_code=201)
    def begin(who: Begin) -> dict[str, Any]:
        """Begin, or go on where one stopped."""
        if plan.readers and who.code not in plan.readers:
            raise HTTPException(403, "this code is not on the study's list; ask its owner for yours")
        store.begin(who.code)
        return state(who.code)

    @app.get("/api/readers/{code}")
    def where(code: str) -> dict[str, Any]:
        """How far a reader is, and the next trial."""
        return state(code)

    @app.get("/api/readers/{code}/trials/{place}/pictures/{number}")
    def picture(code: str, place: int, number: int) -> Response:
        """A picture of a trial: uint16 little-endian, row by row. It says nothing of where it comes from."""
        shown = _shown(trial_of(code, place)[1], plan.side)
        if not 0 <= number < len(shown):
            raise HTTPException(404, "no such picture")
        pixels = np.round(shown[number] * 65535).astype("<u2")
        return Response(pixels.tobytes(), media_type="application/octet-stream")

    @app.post("/api/readers/{code}/trials/{place}", status_code=201)
    def answer(code: str, place: int, said: Answer) -> dict[str, Any]:
        """Keep an answer and give the next trial. The first answer to a trial counts."""
        number, trial = trial_of(code, place)
        check(study.tasks[trial.task], said)
        if not store.add(number, trial.id, said):
            raise HTTPException(409, "this trial has its answer")
        return state(code)


def _shown(trial: Trial, side: int) -> list[NDArray[np.float32]]:
    """The pictures of a trial from left to right, in [0, 1], all with the same longest side: size tells nothing."""
    pictures = _pictures(trial.case, side)
    return list(pictures[::-1] if trial.swapped else pictures)


@lru_cache(maxsize=16)
def _pictures(case: Case, side: int) -> tuple[NDArray[np.float32], ...]:
    from counterscan.imaging import read
    from counterscan.result import Counterfactual

    if case.files[0].suffix == ".json":
        edited = Counterfactual.load(case.files[0])
        images = [edited.factual.unit(), edited.counterfactual.unit()]
    else:
        images = [read(file).unit() for file in case.files]
    return tuple(_resized(image, side) for image in images)


def _resized(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    from counterscan.imaging import fit

    square, place = fit(image, side)
    return square[place.top : place.top + place.inner[0], place.left : place.left + place.inner[1]]
