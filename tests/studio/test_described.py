"""What is wrong is said at once, and what can happen stands in the API's description."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra studio")
pytest.importorskip("httpx2", reason="needs httpx2, the client of fastapi's tests")

from fastapi.testclient import TestClient
from tests.models import tiny
from tests.studio.test_api import BASE, ask, send
from typer.testing import CliRunner

from counterscan.backbones.compact_pixel import build
from counterscan.cli import app as cli
from counterscan.errors import WordsError
from counterscan.robustness.opening import Outputs
from counterscan.studio import work
from counterscan.studio.app import create
from counterscan.studio.core import Options

SELECTOR = {"until": 0.9, "selector": "chest-nih-judge"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(scope="module")
def client(model, tmp_path_factory):
    with TestClient(create(Options(tmp_path_factory.mktemp("state"), model=model)), base_url=BASE) as client:
        assert client.post("/api/sessions").status_code == 201
        yield client


@pytest.fixture(scope="module")
def image(client) -> str:
    return send(client).json()["image"]


def drawn(*pixels: int, height: int = 200, width: int = 200) -> dict[str, object]:
    area = np.zeros(height * width, bool)
    area[list(pixels)] = True
    return {"width": width, "height": height, "bits": base64.b64encode(np.packbits(area).tobytes()).decode()}


@pytest.mark.parametrize(
    ("mask", "says"),
    [(drawn() | {"bits": "not base64!"}, "base64"), (drawn() | {"width": 100}, "bytes for 100x200"), (drawn(), "empty"),
     (drawn(1), "empty")],  # the last is a dot that is lost at the size of the image
    ids=["not base64", "wrong length", "empty", "too fine"],
)  # fmt: skip
def test_a_wrong_region_is_refused_at_once(client, image, mask, says):
    answer = ask(client, image, mask=mask)
    assert answer.status_code == 422 and says in answer.json()["detail"]
    assert client.get("/api/jobs").json()["jobs"] == []


def test_a_search_without_findings_that_its_selector_knows_is_refused_at_once(client, image, monkeypatch):
    monkeypatch.setattr(work, "classifier", lambda name: Outputs(name, ("gout",), 32, 1, lambda x: x.mean((1, 2, 3))))
    prompts = {"remove": [], "source": "world chest radiograph", "target": "world chest radiograph: pacemaker."}
    for words, says in ((prompts, "looks at findings"), ({"remove": ["pacemaker"]}, "no output for 'pacemaker'")):
        answer = ask(client, image, **words, **SELECTOR)
        assert answer.status_code == 422 and says in answer.json()["detail"]
    assert client.get("/api/jobs").json()["jobs"] == []


def test_an_image_without_the_models_contrasts_is_refused_at_once(tmp_path):
    classes, small = ("no lesion", "lesion", ""), {"resolution": 16, "blocks": (8, 16), "layers": 1, "head_width": 8}
    model = str(build(tmp_path / "pixel", classes=classes, findings=["lesion"], template="brain mri", **small))
    with TestClient(create(Options(tmp_path / "state", model=model)), base_url=BASE) as client:
        client.post("/api/sessions")
        image = send(client).json()["image"]
        for path, words in (("edit", {"remove": ["lesion"]}), ("attribute", {"finding": "lesion"})):
            answer = client.post(f"/api/{path}", json={"image": image, **words})
            assert answer.status_code == 422 and "the model takes 4" in answer.json()["detail"]
        content = io.BytesIO()
        np.save(content, np.arange(1024, dtype=np.uint16).reshape(16, 16, 4))
        image = send(client, content.getvalue(), "scan.npy").json()
        assert image["channels"] == 4 and ask(client, image["image"], remove=["lesion"]).status_code == 202


def test_the_description_knows_files_and_refusals(client):
    paths = client.get("/openapi.json").json()["paths"]
    for path in ("/api/images", "/api/series"):
        posted = paths[path]["post"]
        assert list(posted["requestBody"]["content"]) == ["application/octet-stream"]
        assert {"401", "403", "413", "421", "429"} <= posted["responses"].keys()
    view = paths["/api/images/{image}/view"]["get"]
    assert list(view["responses"]["200"]["content"]) == ["application/octet-stream"] and "404" in view["responses"]
    assert view["security"] == [{"session cookie": []}, {"session": []}]
    assert "429" in paths["/api/edit"]["post"]["responses"] and "404" in paths["/api/jobs/{job}"]["get"]["responses"]


def test_the_description_asks_for_the_token_where_there_is_one(model, tmp_path):
    spec = create(Options(tmp_path, model=model, token="a-long-enough-token")).openapi()
    assert spec["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}
    assert spec["paths"]["/api/about"]["get"]["security"] == [{"token": []}]
    assert {"session": [], "token": []} in spec["paths"]["/api/edit"]["post"]["security"]


def test_a_state_that_is_no_folder_is_refused_before_anything(model, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for state in (tmp_path / "file", tmp_path / "file" / "below"):
        done = CliRunner().invoke(cli, ["studio", "--port", "0", "--model", model, "--state", str(state)])
        assert isinstance(done.exception, WordsError) and "name a folder after --state" in str(done.exception)
        assert "http" not in done.output
