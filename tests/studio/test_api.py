"""The API: what it does, what it refuses, and that visitors see only their own."""

from __future__ import annotations

import base64
import io
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import nibabel
import numpy as np
import pydicom
import pytest

pytest.importorskip("fastapi", reason="needs the extra studio")
pytest.importorskip("httpx2", reason="needs httpx2, the client of fastapi's tests")

from fastapi.testclient import TestClient
from PIL import Image
from tests.models import tiny

import counterscan
from counterscan.backbones.compact_pixel import build
from counterscan.imaging import read
from counterscan.robustness.opening import Outputs
from counterscan.studio import work
from counterscan.studio.app import create
from counterscan.studio.core import Options
from counterscan.studio.limits import Limits

BASE = "http://127.0.0.1"


def png(shape=(50, 40)) -> bytes:
    y, x = np.indices(shape)
    buffer = io.BytesIO()
    Image.fromarray((y * 900 + x * 400).astype(np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def app(model, tmp_path):
    return create(Options(tmp_path / "state", model=model, limits=Limits(queued=4, queued_each=3, decode_seconds=300)))


@pytest.fixture
def client(app):
    with TestClient(app, base_url=BASE) as client:
        assert client.post("/api/sessions").status_code == 201
        yield client


def other(client) -> TestClient:
    """Another visitor of the same server."""
    visitor = TestClient(client.app, base_url=BASE)
    assert visitor.post("/api/sessions").status_code == 201
    return visitor


def send(client, data=None, name="chest.png"):
    return client.post("/api/images", params={"name": name}, content=data or png())


def finish(client, job, seconds=300):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = client.get(f"/api/jobs/{job}").json()
        if value["state"] not in ("queued", "running"):
            return value
        time.sleep(0.05)
    raise AssertionError(value)


def ask(client, image, **words):
    return client.post("/api/edit", json={"image": image, "remove": ["pacemaker"], **words})


def test_edit_from_upload_to_files(client):
    facts = send(client).json()
    assert (facts["width"], facts["height"], facts["bits"]) == (40, 50, 16)
    view = np.frombuffer(client.get(f"/api/images/{facts['image']}/view").content, "<u2").reshape(50, 40)
    original = np.asarray(Image.open(io.BytesIO(png())))
    assert np.array_equal(view, original)
    job = finish(client, ask(client, facts["image"], seed=3, count=2).json()["job"])
    assert job["state"] == "done"
    first, second = job["result"]["items"]
    assert (first["seed"], second["seed"]) == (3, 4) and first["evaluations"] > 0
    files = {kind: client.get(f"/api/jobs/{job['id']}/files/{name}") for kind, name in first["files"].items()}
    assert all(answer.status_code == 200 for answer in files.values())
    after = np.asarray(Image.open(io.BytesIO(files["counterfactual"].content)))
    mask = np.asarray(Image.open(io.BytesIO(files["mask"].content))) > 0
    assert np.array_equal(after[~mask], original[~mask])
    assert np.array_equal(np.frombuffer(files["view"].content, "<u2").reshape(50, 40), after)
    assert (
        b"Not for diagnosis" in files["report"].content
        and "sandbox" in files["report"].headers["content-security-policy"]
    )
    assert first["asked"] == "remove pacemaker" and files["png"].content == files["counterfactual"].content
    dicom = pydicom.dcmread(io.BytesIO(files["dicom"].content))
    assert dicom.SyntheticData == "YES" and not dicom.PatientName and np.array_equal(dicom.pixel_array, after)
    again = client.post(f"/api/jobs/{job['id']}/items/0/image").json()
    assert again["synthetic"] and ask(client, again["image"]).status_code == 202


def test_a_drawn_region_limits_the_change(client):
    facts = send(client).json()
    drawn = np.zeros((25, 20), bool)
    drawn[:10] = True
    mask = {"width": 20, "height": 25, "bits": base64.b64encode(np.packbits(drawn).tobytes()).decode()}
    job = finish(client, ask(client, facts["image"], remove=[], add=["pacemaker"], mask=mask).json()["job"])
    name = job["result"]["items"][0]["files"]["mask"]
    changed = np.asarray(Image.open(io.BytesIO(client.get(f"/api/jobs/{job['id']}/files/{name}").content))) > 0
    assert not changed[20:].any()


def test_attribute_and_generate(client):
    facts = send(client).json()
    asked = {"image": facts["image"], "finding": "pacemaker", "repeats": 2}
    found = finish(client, client.post("/api/attribute", json=asked).json()["job"])
    assert found["state"] == "done" and found["result"]["items"][0]["finding"] == "pacemaker"
    made = client.post("/api/generate", json={"prompt": "world chest radiograph", "n": 2, "steps": 2})
    job = finish(client, made.json()["job"])
    assert len(job["result"]["items"]) == 2
    name = job["result"]["items"][1]["files"]["counterfactual"]
    assert Image.open(io.BytesIO(client.get(f"/api/jobs/{job['id']}/files/{name}").content)).size == (32, 32)


def test_several_contrasts_stay_an_array(tmp_path):
    classes, small = ("no lesion", "lesion", ""), {"resolution": 16, "blocks": (8, 16), "layers": 1, "head_width": 8}
    model = str(build(tmp_path / "pixel", classes=classes, findings=["lesion"], template="brain mri", **small))
    with TestClient(create(Options(tmp_path / "state", model=model)), base_url=BASE) as client:
        client.post("/api/sessions")
        made = client.post("/api/generate", json={"prompt": "brain mri: lesion.", "steps": 2}).json()
        job = finish(client, made["job"])
        assert job["state"] == "done", job
        (item,) = job["result"]["items"]
        fetched = [client.get(f"/api/jobs/{job['id']}/files/{item['files'][key]}").content for key in ("array", "view")]
        drawn = np.load(io.BytesIO(fetched[0]))
        assert drawn.shape == (16, 16, 4) and item["view"]["channels"] == 3
        assert np.array_equal(np.frombuffer(fetched[1], "<u2").reshape(16, 16, 3) // 257, drawn[..., 1:])
        image = client.post(f"/api/jobs/{job['id']}/items/0/image").json()["image"]
        job = finish(client, ask(client, image, remove=["lesion"]).json()["job"])
        assert job["state"] == "done" and job["result"]["items"][0]["files"]["array"].endswith(".npy"), job


def test_a_slice_of_a_volume(client, tmp_path):
    data = np.random.default_rng(0).integers(0, 900, (40, 50, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "scan.nii")
    content = (tmp_path / "scan.nii").read_bytes()

    def sent(**asked):
        return client.post("/api/images", params={"name": "scan.nii"} | asked, content=content)

    for asked, says in (({}, "slice index from 0 to 2"), ({"slice": 3}, "no slice 3"), ({"slice": -1}, "greater")):
        answer = sent(**asked)
        assert answer.status_code == 422 and says in answer.text
    facts = sent(slice=2).json()
    assert (facts["width"], facts["height"], facts["slice"]) == (40, 50, 2)
    job = finish(client, ask(client, facts["image"], method="ddim:steps=2").json()["job"])
    assert job["state"] == "done", job
    files = job["result"]["items"][0]["files"]
    got = {
        kind: client.get(f"/api/jobs/{job['id']}/files/{files[kind]}").content for kind in ("counterfactual", "mask")
    }
    (tmp_path / files["counterfactual"]).write_bytes(got["counterfactual"])
    after, before = read(tmp_path / files["counterfactual"]).pixels, read(tmp_path / "scan.nii", slice_index=2).pixels
    kept = np.asarray(Image.open(io.BytesIO(got["mask"]))) == 0
    assert np.array_equal(after[kept], before[kept])


def seek(client, image, **words):
    return client.post("/api/attribute", json={"image": image, "finding": "pacemaker", "method": "noise-free", **words})


def test_attribute_at_a_promised_rate_with_a_second_opinion(client, model):
    image = send(client).json()["image"]
    known = {"finding": "pacemaker", "peaks": [k / 100 for k in range(19)], "methods": ["noise-free"], "repeats": 1}
    known["fingerprint"] = counterscan.load(model).fingerprint
    job = finish(client, seek(client, image, calibration=known, rate=0.1, attention=True).json()["job"])
    (item,) = job["result"]["items"]
    assert item["rate"] == 0.1 and item["threshold"] >= 0.17 and "agreement" in item
    drawn = client.get(f"/api/jobs/{job['id']}/files/{item['files']['attention']}")
    assert Image.open(io.BytesIO(drawn.content)).size == (40, 50)
    (item,) = finish(client, seek(client, image).json()["job"])["result"]["items"]
    assert item["rate"] is None and "attention" not in item["files"]
    many = len(client.get("/api/jobs").json()["jobs"])
    for words in (
        {"rate": 0.1},
        {"rate": 1, "calibration": known},
        {"rate": 0.01, "calibration": known},
        {"repeats": 2, "calibration": known},
        {"method": "ddim", "calibration": known},
        {"calibration": known | {"peaks": []}},
        {"calibration": known | {"peaks": [0.1] * 10_001}},
        {"calibration": known | {"peaks": [-1]}},
        {"calibration": "/etc/passwd"},
    ):
        assert seek(client, image, **words).status_code == 422, words
    assert len(client.get("/api/jobs").json()["jobs"]) == many


def test_a_search_keeps_one_answer(client, monkeypatch):
    def never(images):
        return 0.9 + 0.1 * images.mean((1, 2, 3))[:, None]

    image = send(client).json()["image"]
    about = client.get("/api/about").json()
    assert "chest-nih-judge" in about["classifiers"]
    too_much = ask(client, image, strength=about["limits"]["strength"] + 0.1)
    assert too_much.status_code == 422
    words = {"method": "noise-free", "until": 0.95, "selector": "chest-nih-judge"}
    monkeypatch.setattr(work, "classifier", lambda name: Outputs(name, ("pacemaker",), 32, 1, never))
    job = finish(client, ask(client, image, **words).json()["job"])
    (item,) = job["result"]["items"]
    assert item["reached"] is False and len(item["trials"]) == 7 and item["selector"] == "chest-nih-judge"
    assert item["strength"] in {trial["strength"] for trial in item["trials"]}
    assert client.get(f"/api/jobs/{job['id']}/files/{item['files']['counterfactual']}").status_code == 200
    job = finish(client, ask(client, image, method="noise-free", best_of=3, seed=5, strength=2).json()["job"])
    (item,) = job["result"]["items"]
    assert item["strength"] == 2
    assert item["reached"] is None and item["seed"] >= 5 and item["trials"][0]["seed"] == 5


def test_alternatives_of_another_strength_and_a_judge(client, monkeypatch):
    monkeypatch.setattr(
        work, "classifier", lambda name: Outputs(name, ("pacemaker",), 32, 1, lambda x: x.mean((1, 2, 3))[:, None])
    )
    image, items = send(client).json()["image"], {}
    for strength in (0.5, 1):
        words = {"method": "ddim:guidance=4", "strength": strength, "judge": "chest-nih-judge"}
        job = finish(client, ask(client, image, **words).json()["job"])
        (items[strength],) = job["result"]["items"]
        record = client.get(f"/api/jobs/{job['id']}/files/{items[strength]['files']['record']}").json()
        assert items[strength]["strength"] == strength and record["settings"]["guidance"] == 4 * strength
    assert items[1]["judge"]["name"] == "chest-nih-judge"
    assert list(items[1]["judge"]["scores"]) == ["pacemaker"]


@pytest.mark.parametrize(
    "words",
    [{"until": 0.9}, {"until": 1, "selector": "chest-nih-judge"}, {"best_of": 7}, {"best_of": 2, "count": 2},
     {"selector": "chest-nih-judge"}, {"best_of": 2, "selector": "os:system"}, {"best_of": 2, "selector": "../judge"},
     {"best_of": 2, "selector": "chest-nih-judge", "judge": "chest-nih-judge"}, {"strength": 0}, {"strength": 5},
     {"until": 0.9, "selector": "chest-nih-judge", "strength": 2}, {"judge": "os:system"}],
    ids=str,
)  # fmt: skip
def test_a_search_has_bounds(client, words):
    assert ask(client, send(client).json()["image"], **words).status_code == 422


def test_what_one_job_holds_at_once_is_bounded(model, tmp_path):
    limits = Limits(kept_pixels=4 * 50 * 40)
    with TestClient(create(Options(tmp_path, model=model, limits=limits)), base_url=BASE) as client:
        client.post("/api/sessions")
        image = send(client).json()["image"]
        assert [seek(client, image, repeats=n).status_code for n in (3, 4)] == [202, 422]
        assert [ask(client, image, method="noise-free", best_of=n).status_code for n in (4, 5)] == [202, 422]


def test_wrong_words_are_refused_before_they_are_queued(client):
    image = send(client).json()["image"]
    for words in ({"remove": ["unicorn"]}, {"method": "magic"}, {"model": "/etc"}, {"count": 99}, {"seed": -1}):
        assert ask(client, image, **words).status_code == 422
    assert client.get("/api/jobs").json()["jobs"] == []


def slow(client, monkeypatch):
    """An edit that takes long, and reports progress all the while."""
    from counterscan.studio import work

    def edit(path, folder, backbone, request, *, count, strength, judge, side, report):
        for k in range(2000):
            report(k, 2000)
            time.sleep(0.02)
        return {"items": []}

    monkeypatch.setattr(work, "edit", edit)
    return send(client).json()["image"]


def test_cancel_running_and_waiting(client, monkeypatch):
    image = slow(client, monkeypatch)
    running, waiting = (ask(client, image).json()["job"] for _ in range(2))
    while (job := client.get(f"/api/jobs/{running}").json())["progress"]["done"] == 0:
        assert job["state"] in ("queued", "running"), job
        time.sleep(0.02)
    assert client.get(f"/api/jobs/{waiting}").json()["progress"]["ahead"] == 1
    assert client.delete(f"/api/jobs/{waiting}").json()["state"] == "cancelled"
    client.delete(f"/api/jobs/{running}")
    assert finish(client, running, 2)["state"] == "cancelled"


def test_a_full_queue_answers_429(client, monkeypatch):
    image = slow(client, monkeypatch)
    codes = [ask(client, image).status_code for _ in range(4)]
    assert codes == [202, 202, 202, 429]
    visitor = other(client)
    theirs = send(visitor).json()["image"]
    answers = [ask(visitor, theirs) for _ in range(2)]
    assert [a.status_code for a in answers] == [202, 429] and answers[1].headers["retry-after"]


def test_sessions_see_only_their_own(client):
    facts = send(client).json()
    job = finish(client, ask(client, facts["image"]).json()["job"])
    name = job["result"]["items"][0]["files"]["counterfactual"]
    visitor = other(client)
    assert visitor.get("/api/images").json()["images"] == [] and visitor.get("/api/jobs").json()["jobs"] == []
    for path in (f"images/{facts['image']}/view", f"jobs/{job['id']}", f"jobs/{job['id']}/files/{name}"):
        assert visitor.get(f"/api/{path}").status_code == 404
        assert client.get(f"/api/{path}").status_code == 200
    assert ask(visitor, facts["image"]).status_code == 404
    assert visitor.delete(f"/api/jobs/{job['id']}").status_code == 404
    stranger = TestClient(client.app, base_url=BASE)
    assert stranger.get("/api/images", headers={"X-Counterscan-Session": "guess"}).status_code == 401


def test_ending_a_session_deletes_its_files(client, tmp_path):
    send(client)
    (folder,) = (tmp_path / "state" / "sessions").iterdir()
    assert list(folder.rglob("chest.png"))
    assert client.delete("/api/session").status_code == 204
    assert not folder.exists() and client.get("/api/images").status_code == 401


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd.png", "..\\..\\x.png", "/etc/x.png", "a\0b.png", ".", "", "é" * 400]
)
def test_names_from_the_browser_are_only_names(client, tmp_path, name):
    facts = send(client, name=name).json()
    assert "/" not in facts["name"] and "\\" not in facts["name"] and not facts["name"].startswith(".")
    inside = {p for p in tmp_path.rglob("*") if p.is_file() and p.read_bytes() == png()}
    assert len(inside) == 1 and all(p.is_relative_to(tmp_path / "state" / "sessions") for p in inside)


@pytest.mark.parametrize("path", ["..%2f..%2fledger.sqlite", "%2e%2e%2fchest.png", "chest.0.view%00", "run.json"])
def test_no_path_leads_out_of_a_job(client, path):
    job = finish(client, ask(client, send(client).json()["image"]).json()["job"])
    assert client.get(f"/api/jobs/{job['id']}/files/{path}").status_code == 404


def bomb(side=20_000) -> bytes:
    """A PNG of 400 megapixels in a few kilobytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(side + 1)) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_bombs_polyglots_and_rubbish_are_refused_and_cost_nothing(client, tmp_path):
    answer = send(client, bomb())
    assert answer.status_code == 422 and "megapixel" in answer.json()["detail"]
    for data in (
        b"GIF89a/*<script>alert(1)</script>*/",
        b"\x00" * 128 + b"DICM" + b"\xff" * 999,
        png()[:60],
        b"%PDF-1.7",
    ):
        answer = send(client, data)
        assert answer.status_code == 422 and str(tmp_path) not in answer.text
    polyglot = send(client, png() + b"<script>alert(1)</script>", "page.html")
    assert polyglot.status_code in (201, 422)
    if polyglot.status_code == 201:  # a PNG with a tail: only ever sent back as numbers
        view = client.get(f"/api/images/{polyglot.json()['image']}/view")
        assert b"script" not in view.content and view.headers["content-type"] == "application/octet-stream"
        assert view.headers["x-content-type-options"] == "nosniff"
    assert send(client).status_code == 201


def test_too_many_bytes(model, tmp_path):
    with TestClient(create(Options(tmp_path, model=model, limits=Limits(upload_bytes=1000))), base_url=BASE) as client:
        client.post("/api/sessions")
        assert send(client, png((200, 200))).status_code == 413
        chunks = client.post("/api/images", content=(b"x" * 400 for _ in range(9)))
        assert chunks.status_code == 413
        assert not [p for p in (tmp_path / "sessions").rglob("*") if p.is_file()]


def test_a_crash_while_decoding_costs_only_that_upload(client, monkeypatch):
    import sys

    from counterscan.studio import decode

    crash = lambda command, **rest: run([sys.executable, "-c", "import os; os.abort()"], **rest)  # noqa: E731
    run = decode.subprocess.run
    monkeypatch.setattr(decode.subprocess, "run", crash)
    assert send(client).status_code == 422
    monkeypatch.setattr(decode.subprocess, "run", run)
    assert send(client).status_code == 201


def test_fifty_uploads_at_once(client):
    with ThreadPoolExecutor(50) as pool:
        codes = list(pool.map(lambda k: send(client, png((20 + k, 30))).status_code, range(50)))
    assert codes == [201] * 50
    assert len({i["image"] for i in client.get("/api/images").json()["images"]}) == 50


def test_a_token_opens_the_door(model, tmp_path):
    token = "a-long-enough-token"
    with TestClient(create(Options(tmp_path, model=model, token=token, hosts=())), base_url="http://pacs") as client:
        for path in ("/", "/api/about", "/openapi.json", "/?token=wrong"):
            assert client.get(path).status_code == 401
        assert client.get("/api/about", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        assert client.get("/", params={"token": token}).status_code == 200  # by a cookie from now on
        assert client.get("/api/about").status_code == 200


def test_other_hosts_and_other_sites_are_refused(client):
    assert client.get("/api/about", headers={"Host": "evil.example"}).status_code == 421
    assert client.post("/api/sessions", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    page = client.get("/")
    assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]


def test_the_examples_can_be_opened(client):
    known = client.get("/api/examples").json()
    assert known["credit"] and len(known["examples"]) >= 3
    small = client.get("/api/examples/0/thumbnail")
    assert max(Image.open(io.BytesIO(small.content)).size) <= 128
    assert client.post("/api/examples/1/image").json()["name"] == known["examples"][1]["file"]
    assert client.post("/api/examples/99/image").status_code == 404


def test_data_sets_and_benchmarks_below_their_folders_only(model, tmp_path):
    data, bench = tmp_path / "data", tmp_path / "bench" / "one"
    for folder in (data, bench / "cells"):
        folder.mkdir(parents=True)
    for path in (data / "a.png", tmp_path / "secret.png", bench / "speed.png", bench / "cells" / "x.png"):
        path.write_bytes(png())
    (data / "set.csv").write_text("path,patient,pacemaker\na.png,1,1\n../secret.png,2,0\n")
    (bench / "run.json").write_text('{"command": "bench", "result": {"rows": [], "model": "m", "n": 2}}')
    options = Options(tmp_path / "state", model=model, data=data, bench=tmp_path / "bench")
    with TestClient(create(options), base_url=BASE) as client:
        client.post("/api/sessions")
        assert client.get("/api/datasets").json() == {"manifests": ["set.csv"]}
        rows = client.get("/api/datasets/rows", params={"manifest": "set.csv", "query": "a.png"}).json()
        assert rows["total"] == 1 and rows["rows"][0]["findings"] == ["pacemaker"]
        here, there = ({"manifest": "set.csv", "row": k} for k in range(2))
        assert client.get("/api/datasets/thumbnail", params=here).headers["content-type"] == "image/png"
        assert client.post("/api/datasets/open", json=here).json()["name"] == "a.png"
        assert client.get("/api/datasets/thumbnail", params=there).status_code == 404
        assert client.post("/api/datasets/open", json=there).status_code == 404
        assert client.get("/api/benches").json()["benches"][0]["pictures"] == ["speed.png", "cells/x.png"]
        assert client.get("/api/benches/0/cells/x.png").content == png()
        assert client.get("/api/benches/0/..%2f..%2f..%2fsecret.png").status_code == 404
