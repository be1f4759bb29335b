"""A series of DICOM files: unpacked safely, put in order, looked through, and one instance edited."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

pytest.importorskip("fastapi", reason="needs the extra studio")
pytest.importorskip("httpx2", reason="needs httpx2, the client of fastapi's tests")

from fastapi.testclient import TestClient
from PIL import Image
from tests.models import tiny
from tests.studio.test_api import BASE, finish, other, png

from counterscan.errors import ImageError
from counterscan.studio.app import create
from counterscan.studio.core import Options
from counterscan.studio.limits import Limits
from counterscan.studio.unpack import series_of

ROOM = {"files": 20, "each": 2**20, "total": 2**22, "pixels": 10_000}


def slice_of(number: int, z: float | None = None, shade: int = 0, **more) -> bytes:
    """A DICOM slice of 40 x 30 pixels at ``z`` mm, its upper ``5 * shade`` rows dark."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", generate_uid()
    data.SeriesInstanceUID, data.StudyInstanceUID = "1.2.3", "1.2"
    data.SeriesNumber, data.Modality, data.SeriesDescription, data.InstanceNumber = 4, "CT", "thorax", number
    data.Rows, data.Columns, data.SamplesPerPixel = 40, 30, 1
    data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    if z is not None:
        data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, z]
    for key, value in more.items():
        setattr(data, key, value)
    y, x = np.indices((data.Rows, data.Columns))
    pixels = np.where(y < 5 * shade, 0, y * 60 + x * 20)
    data.PixelData = pixels.astype("<u2").tobytes() * int(more.get("NumberOfFrames", 1))
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def unpacked(tmp_path: Path, data: bytes, **room: int) -> dict:
    (tmp_path / "a.zip").write_bytes(data)
    (tmp_path / "files").mkdir()
    return series_of(tmp_path / "a.zip", tmp_path / "files", "a.zip", **(ROOM | room))


def test_order_is_that_of_the_slices(tmp_path):
    files = {
        "x/c": slice_of(1, z=5.0), "x/a": slice_of(2, z=-5.0), "x/b": slice_of(3, z=0.0),
        "other": slice_of(9, z=0.0, SeriesInstanceUID="1.2.4", SeriesNumber=2, SeriesDescription="scout\x07"),
    }  # fmt: skip
    told = unpacked(tmp_path, packed(files))
    assert [one["name"] for one in told["instances"]] == ["other", "a", "b", "c"]
    assert told["instances"][0]["series"].startswith("2 CT scout") and told["instances"][1]["series"] == "4 CT thorax"
    assert told["instances"][0]["series"].isprintable() and told["passed_over"] == []


def test_without_places_the_numbers_order(tmp_path):
    told = unpacked(tmp_path, packed({"a": slice_of(3), "b": slice_of(1), "c": slice_of(2, z=9.0)}))
    assert [one["number"] for one in told["instances"]] == [1, 2, 3]


def test_what_is_no_single_image_is_passed_over_by_name(tmp_path):
    files = {
        "../../evil.dcm": slice_of(1), "/etc/passwd": slice_of(2), "..\\..\\win.dcm": slice_of(3),
        "readme.txt": b"not DICOM", "cine": slice_of(4, NumberOfFrames=2), "cut": slice_of(5)[:200],
        "wide": slice_of(6, Rows=400, Columns=300), "big": slice_of(7) + bytes(2**21), "inner.zip": packed({"a": slice_of(8)}),
    }  # fmt: skip
    told = unpacked(tmp_path, packed(files))
    assert [one["name"] for one in told["instances"]] == ["evil.dcm", "passwd", "win.dcm"]
    why = {one["name"]: one["why"] for one in told["passed_over"]}
    assert set(why) == {"readme.txt", "cine", "cut", "wide", "big", "inner.zip"}
    assert "2 frames" in why["cine"] and "too large" in why["big"] and "pixels" in why["wide"]
    inside = sorted(path.name for path in (tmp_path / "files").iterdir())
    assert inside == ["00000", "00001", "00002"] and {p.name for p in tmp_path.iterdir()} == {"a.zip", "files"}


def locked(data: bytes) -> bytes:
    """The zip with every file marked as encrypted."""
    made = bytearray(data)
    for start, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        made[made.find(start) + flags] |= 1
    return bytes(made)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no zip at all", "no readable zip"),
        (packed({"a": slice_of(1)})[:-30], "no readable zip"),
        (packed({"a.txt": b"x"}), "a.txt is no DICOM file"),
        (packed({}), "holds no DICOM image"),
        (locked(packed({"a": slice_of(1)})), "encrypted"),
        (packed({f"{k}": b"x" for k in range(21)}), "more than 20"),
        (packed({f"{k}": slice_of(k) + bytes(2**20 - 4000) for k in range(6)}), "too much comes out"),
    ],
)
def test_bad_zips_are_refused_in_one_line(tmp_path, data, words):
    with pytest.raises(ImageError, match=words) as told:
        unpacked(tmp_path, data)
    assert "\n" not in str(told.value) and str(tmp_path) not in str(told.value)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    limits = Limits(series=2, series_bytes=2**20, unpacked_bytes=2**22, instances=9, decode_seconds=300)
    options = Options(folder / "state", model=str(tiny(folder / "tiny")), limits=limits)
    with TestClient(create(options), base_url=BASE) as client:
        assert client.post("/api/sessions").status_code == 201
        yield client


def send(client, data, name="ct.zip"):
    return client.post("/api/series", params={"name": name}, content=data)


def test_an_instance_of_a_series_is_edited(client):
    slices = [slice_of(k, z=float(k), shade=k) for k in range(3)]
    answer = send(client, packed({"b": slices[1], "a/c": slices[2], "a": slices[0], "notes": b"x"}), "../ct.zip")
    assert answer.status_code == 201
    known = answer.json()
    series = f"/api/series/{known['series']}"
    assert known["name"] == "ct.zip" and [one["name"] for one in known["instances"]] == ["a", "b", "c"]
    assert known["passed_over"] == [{"name": "notes", "why": "is no DICOM file"}]
    assert client.get("/api/series").json()["series"] == [known]
    small = [client.get(f"{series}/{k}/thumbnail") for k in (0, 1, 0)]
    with Image.open(io.BytesIO(small[0].content)) as picture:
        assert picture.size == (30, 40)
    assert small[0].content == small[2].content != small[1].content
    image = client.post(f"{series}/1/image").json()
    assert (image["name"], image["series"], image["instance"], image["bits"]) == ("b", known["series"], 1, 12)
    job = client.post("/api/edit", json={"image": image["image"], "remove": ["pacemaker"]}).json()["job"]
    files = finish(client, job)["result"]["items"][0]["files"]
    made = pydicom.dcmread(io.BytesIO(client.get(f"/api/jobs/{job}/files/{files['dicom']}").content))
    factual = pydicom.dcmread(io.BytesIO(slices[1]))
    assert made.SyntheticData == "YES"
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == factual.SOPInstanceUID
    visitor = other(client)
    assert visitor.get("/api/series").json()["series"] == []
    for way in (visitor.get(f"{series}/0/thumbnail"), visitor.post(f"{series}/0/image"), visitor.delete(series)):
        assert way.status_code == 404
    assert client.post(f"{series}/3/image").status_code == client.get(f"{series}/-1/thumbnail").status_code == 404
    assert client.delete(series).status_code == 204 and client.get(f"{series}/0/thumbnail").status_code == 404
    assert client.get(f"/api/images/{image['image']}/view").status_code == 200  # what was taken stays


def test_refused_series_leave_nothing_behind(client):
    folder = client.app.state.studio.options.state / "sessions"
    before = {path for path in folder.rglob("*") if path.is_file()}
    assert send(client, b"x" * (2**20 + 1)).status_code == 413
    for data in (png(), packed({str(k): slice_of(k) + bytes(2**20) for k in range(6)})):
        answer = send(client, data)
        assert answer.status_code == 422 and str(folder) not in answer.text
    assert {path for path in folder.rglob("*") if path.is_file()} == before


def test_a_crash_while_unpacking_costs_only_that_series_and_their_number_is_limited(client, monkeypatch):
    import sys

    from counterscan.studio import decode

    run = decode.subprocess.run
    crash = lambda command, **rest: run([sys.executable, "-c", "import os; os.abort()"], **rest)  # noqa: E731
    monkeypatch.setattr(decode.subprocess, "run", crash)
    assert send(client, packed({"a": slice_of(1)})).status_code == 422
    monkeypatch.setattr(decode.subprocess, "run", run)
    visitor = other(client)
    assert [send(visitor, packed({"a": slice_of(1)})).status_code for _ in range(3)] == [201, 201, 429]
