"""The server of a study: blind, resumable, and behind the studio's door."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra studio")
pytest.importorskip("httpx2", reason="needs httpx2, the client of fastapi's tests")

from fastapi.testclient import TestClient
from tests.reader.studies import edits, images, study

from counterscan.reader.app import create
from counterscan.reader.trials import trials

TASKS = (
    "  - {kind: rating, real: real, synthetic: made, count: 3}\n  - {kind: forced-choice, real: real, synthetic: made}\n"
    "  - {kind: change, edits: edits}\n  - {kind: quality, edits: edits}\n"
)
ANSWERS = {
    "rating": {"rating": 2}, "forced-choice": {"choice": 1}, "change": {"finding": "effusion", "mark": [0.1, 0.1, 0.2, 0.2]},
    "quality": {"scales": {"realism": 3, "obeyed": 3, "kept": 3}},
}  # fmt: skip


@pytest.fixture
def known(tmp_path):
    images(tmp_path / "real", 4)
    images(tmp_path / "made", 4, 100)
    edits(tmp_path / "edits", 2)
    return study(tmp_path, TASKS, "readers: [R1, R2]\n")


@pytest.fixture
def client(known, tmp_path):
    with TestClient(create(known, tmp_path / "answers.sqlite"), base_url="http://127.0.0.1") as client:
        yield client


def test_a_reader_answers_everything_and_stops_in_between(client, known, tmp_path):
    here = client.post("/api/readers", json={"code": "R1"}).json()
    total, order = here["total"], trials(known, 0)
    assert (here["done"], total) == (0, 6 + 4 + 2 + 2)
    for k in range(total):
        if k == 5:  # another server on the same file
            with TestClient(create(known, tmp_path / "answers.sqlite"), base_url="http://127.0.0.1") as again:
                assert again.post("/api/readers", json={"code": "R1"}).json() == here
        trial = here["trial"]
        assert (
            trial["place"] == k
            and "truth" not in str(trial)
            and "made" not in str(trial)
            and order[k].id not in str(trial)
        )
        for number, view in enumerate(trial["views"]):
            data = client.get(f"/api/readers/R1/trials/{k}/pictures/{number}")
            assert len(data.content) == 2 * view["width"] * view["height"] and max(view["width"], view["height"]) == 64
            assert "disposition" not in str(data.headers)
        here = client.post(f"/api/readers/R1/trials/{k}", json=ANSWERS[trial["kind"]] | {"seconds": 1.5}).json()
    assert here == {"reader": "R1", "done": total, "total": total, "trial": None}
    assert client.post("/api/readers/R1/trials/0", json={"rating": 6}).status_code == 409


def test_pairs_are_shown_as_they_were_dealt(client, known):
    client.post("/api/readers", json={"code": "R1"})
    for k, trial in enumerate(trials(known, 0)):
        if known.tasks[trial.task].kind != "change":
            continue
        left, right = (
            np.frombuffer(client.get(f"/api/readers/R1/trials/{k}/pictures/{n}").content, "<u2").reshape(64, 64)
            for n in (0, 1)
        )
        changed = np.abs(left.astype(int) - right) > 3000
        assert changed[8:18, 34:43].any() and not changed[30:].any()


def test_strangers_and_wrong_answers_are_refused(client):
    assert client.post("/api/readers", json={"code": "R9"}).status_code == 403
    assert client.post("/api/readers", json={"code": "Dr. A. Name"}).status_code == 422
    assert client.get("/api/readers/R1").status_code == 404
    client.post("/api/readers", json={"code": "R1"})
    for answer in ({}, {"rating": 9}, {"choice": 0}, {"rating": 2, "seconds": -1}, {"rating": 2, "name": "x"}):
        assert client.post("/api/readers/R1/trials/0", json=answer).status_code == 422
    assert client.post("/api/readers/R1/trials/99", json={"rating": 1}).status_code == 404
    for number in (-1, 1, 10**30):
        assert client.get(f"/api/readers/R1/trials/0/pictures/{number}").status_code == 404
    assert client.get("/api/readers/R1", headers={"Host": "evil.example"}).status_code == 421


def test_the_page_is_there(client):
    page = client.get("/")
    assert "reader.js" in page.text and "default-src 'none'" in page.headers["content-security-policy"]
    for name in ("reader.js", "reader.css", "viewer.js", "pointer.js", "maps.js", "dom.js", "style.css"):
        assert client.get(f"/{name}").status_code == 200
    assert client.get("/reader.js", params={"path": "/etc/passwd"}).text == client.get("/reader.js").text


def test_a_token_opens_the_door(known, tmp_path):
    app = create(known, tmp_path / "answers.sqlite", token="a-long-enough-token", hosts=())
    with TestClient(app, base_url="http://ward") as client:
        assert client.get("/api/study").status_code == 401
        assert client.get("/api/study", headers={"Authorization": "Bearer a-long-enough-token"}).status_code == 200
