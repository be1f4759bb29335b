"""What must not take the server down, or make it forget: bombs, crowds, nonsense, and being killed."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra studio")
pytest.importorskip("httpx2", reason="needs httpx2, the client of fastapi's tests")

from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.models import tiny
from tests.studio.test_api import BASE, bomb, finish, png, send

from counterscan.errors import WordsError
from counterscan.studio.app import create
from counterscan.studio.core import Options
from counterscan.studio.ledger import INTERRUPTED, Ledger
from counterscan.studio.limits import Limits
from counterscan.studio.serve import check_access
from counterscan.studio.sessions import Sessions

SOURCE = str(Path(__file__).parents[2] / "src")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(scope="module")
def client(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hard")
    data = folder / "data"
    data.mkdir()
    (data / "a.png").write_bytes(png())
    (data / "notes.png").write_bytes(b"not an image, but named like one")
    (data / "set.csv").write_text("path,patient,pacemaker\na.png,1,1\nnotes.png,2,1\n")
    options = Options(folder / "state", model=model, data=data, bench=data)
    with TestClient(create(options), base_url=BASE, raise_server_exceptions=False) as client:
        assert client.post("/api/sessions").status_code == 201
        yield client


def test_no_parameter_chooses_a_file_of_the_page(client):
    plain = client.get("/style.css").text
    for name in ("p", "path", "k", "file"):
        assert client.get("/style.css", params={name: "/etc/passwd"}).text == plain


def test_a_bomb_costs_no_memory(client):
    data = bomb()
    assert len(data) < 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert send(client, data).status_code == 422
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of all children, other tests' too
    assert largest < max(children + 1, 1024 * 1024)


def test_the_same_question_of_a_data_set(client):
    asked = {"manifest": "set.csv", "remove": ["pacemaker"], "n": 5}
    job = finish(client, client.post("/api/batch", json=asked).json()["job"])
    (item,), (failure,) = job["result"]["items"], job["result"]["failures"]
    assert item["row"] == 0 and failure["row"] == 1 and "notes.png" in failure["error"]
    for name in (item["files"]["png"], item["files"]["dicom"]):
        assert client.get(f"/api/jobs/{job['id']}/files/{name}").status_code == 200
    assert client.post(f"/api/jobs/{job['id']}/items/0/image").json()["synthetic"]
    for wrong in ({"manifest": "../set.csv"}, {"query": "nobody"}, {"remove": ["unicorn"]}, {"n": 51}):
        assert client.post("/api/batch", json=asked | wrong).status_code in (404, 422)


def test_what_we_made_is_known_to_be_synthetic(client):
    image = send(client).json()
    assert not image["synthetic"]
    job = finish(
        client, client.post("/api/edit", json={"image": image["image"], "remove": ["pacemaker"]}).json()["job"]
    )
    for kind in ("png", "dicom"):
        name = job["result"]["items"][0]["files"][kind]
        made = client.get(f"/api/jobs/{job['id']}/files/{name}").content
        assert send(client, made, name).json()["synthetic"], kind


@pytest.mark.parametrize(
    ("host", "token"), [("0.0.0.0", None), ("192.0.2.1", "short"), ("127.0.0.1", "short"), ("ward", None)]
)
def test_others_need_a_token(host, token):
    with pytest.raises(WordsError, match="token"):
        check_access(host, token)


def test_idle_sessions_and_their_files_go(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    sessions = Sessions(tmp_path / "sessions", ledger, Limits())
    folder = sessions.find(sessions.begin()).folder
    (folder / "images").mkdir(parents=True)
    (tmp_path / "sessions" / "of-nobody").mkdir()
    assert sessions.sweep() == [] and folder.is_dir() and not (tmp_path / "sessions" / "of-nobody").exists()
    assert sessions.sweep(seconds=-1) == [folder.name] and not folder.exists()


def arguments(spec, operation):
    """Values for an operation's parameters and body: some as described, some not."""
    words = st.text(max_size=20) | st.sampled_from(["0" * 32, "..", "set.csv", "\0", "é", "NaN", "1e999", "-1"])
    names = [p["name"] for p in operation.get("parameters", []) if p["in"] in ("path", "query")]
    schema = next(iter(operation.get("requestBody", {}).get("content", {}).values()), {}).get("schema", {})
    fields = spec["components"]["schemas"].get(schema.get("$ref", "").rsplit("/", 1)[-1], {}).get("properties", {})
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | words,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=6,
    )  # fmt: skip
    likely = {
        "remove": st.just(["pacemaker"]),
        "finding": st.just("pacemaker"),
        "n": st.just(1),
        "manifest": st.just("set.csv"),
    }
    body = st.fixed_dictionaries({}, optional={name: likely.get(name, values) | values for name in fields})
    return st.tuples(st.fixed_dictionaries({name: words | st.integers() for name in names}), body | values)


def try_out(client, spec, path, method, operation):
    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(arguments(spec, operation))
    def ask(values):
        parameters, body = values
        inside = {name: value for name, value in parameters.items() if f"{{{name}" in path}
        place = re.sub(r"{(\w+)(:path)?}", lambda m: urllib.parse.quote(str(inside[m[1]]), safe=""), path)
        query = {name: value for name, value in parameters.items() if name not in inside}
        content, kind = json.dumps(body).encode() if method == "post" else None, {"Content-Type": "application/json"}
        answer = client.request(method, place, params=query, content=content, headers=kind)
        assert answer.status_code < 500, (method, place, query, body, answer.text)

    ask()


def test_no_description_is_answered_with_an_error_of_ours(client):
    """Every operation of the OpenAPI description, with what fits it and what does not."""
    spec = client.get("/openapi.json").json()
    operations = [
        (path, method, operation) for path, methods in spec["paths"].items() for method, operation in methods.items()
    ]
    assert len(operations) >= 20
    for path, method, operation in operations:
        if path != "/api/session":  # it would end ours; the API's own tests end sessions
            try_out(client, spec, path, method, operation)


def start(model, state):
    words = ["--port", "0", "--model", model, "--state", str(state), "--offline"]
    command = [sys.executable, "-m", "counterscan", "studio", *words]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": SOURCE})
    return server, next(found[0] for line in server.stderr if (found := re.search(r"http://\S+", line)))


def test_a_killed_server_says_what_became_of_its_jobs(model, tmp_path):
    server, address = start(model, tmp_path)
    headers = {}

    def ask(path, data=None):
        words = headers | ({"Content-Type": "application/json"} if data and data[:1] == b"{" else {})
        request = urllib.request.Request(f"{address}api/{path}", data, words)
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.loads(answer.read())

    headers["X-Counterscan-Session"] = ask("sessions", b"")["session"]
    image = ask("images?name=a.png", png((300, 300)))["image"]
    asked = json.dumps({"image": image, "remove": ["pacemaker"], "count": 6}).encode()
    jobs = [ask("edit", asked)["job"] for _ in range(6)]
    while ask(f"jobs/{jobs[0]}")["state"] == "queued":
        time.sleep(0.01)
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    server.stderr.close()
    server, address = start(model, tmp_path)
    try:
        known = {job["id"]: job for job in ask("jobs")["jobs"]}
        assert set(known) == set(jobs)  # none is gone
        assert {job["state"] for job in known.values()} <= {"done", "failed"} and known[jobs[-1]]["state"] == "failed"
        assert all(job["error"] == INTERRUPTED for job in known.values() if job["state"] == "failed")
        assert [facts["image"] for facts in ask("images")["images"]] == [image]  # and the session goes on
        again = ask("edit", asked)["job"]
        while (state := ask(f"jobs/{again}")["state"]) in ("queued", "running"):
            time.sleep(0.1)
        assert state == "done"
    finally:
        server.terminate()
        server.wait()
        server.stderr.close()


@pytest.mark.skipif(find_spec("schemathesis") is None, reason="needs schemathesis")
def test_schemathesis_finds_no_server_error(model, tmp_path):
    server, address = start(model, tmp_path)
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{address}api/sessions", b"")) as answer:
            token = json.loads(answer.read())["session"]
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}openapi.json", "--checks", "not_a_server_error",
                   "-H", f"X-Counterscan-Session: {token}", "-n", "10", "--phases", "examples,coverage,fuzzing",
                   "--exclude-path", "/api/session", "--seed", "1", "--generation-deterministic"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-3000:]
    finally:
        server.terminate()
        server.wait()
        server.stderr.close()
