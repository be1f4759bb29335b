"""Outputs anywhere: a folder, or whatever fsspec reaches, with the same files and the same resuming."""

from __future__ import annotations

import hashlib
import json

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations
from tests.scale.conftest import write_images
from tests.scale.test_batch import outputs, quick
from typer.testing import CliRunner

from counterscan.cli import app
from counterscan.errors import WordsError
from counterscan.scale import batch
from counterscan.scale.ledger import Ledger
from counterscan.scale.store import DRAFTS, Folder, Remote, StoreError, store

WORDS = {"remove": "pacemaker"}


class Flaky(MemoryFileSystem):
    """A store whose line goes dead after so many uploads."""

    protocol = "flaky"
    store = {}  # noqa: RUF012  as in its parent: one for all instances
    left = 10**6

    def put_file(self, *arguments, **options):
        if Flaky.left == 0:
            raise ConnectionResetError(104, "Connection reset by peer")
        Flaky.left -= 1
        super().put_file(*arguments, **options)


@pytest.fixture(params=["folder", "file", "memory"])
def place(request, tmp_path):
    urls = {"folder": str(tmp_path / "out"), "file": f"file://{tmp_path}/out", "memory": f"memory://{tmp_path.name}"}
    yield store(urls[request.param])
    MemoryFileSystem.store.clear()


def remote_outputs(place) -> dict[str, str]:
    """Every file under items → its hash."""
    names = [name for name in place._below("items") if place.sizes("items")(name)]
    return {name.removeprefix("items/"): hashlib.sha256(place.read(name)).hexdigest() for name in names}


def put(place, name, data):
    with place.draft() as draft:
        (draft / "x").write_bytes(data)
        place.put(draft / "x", name)


def test_what_a_place_promises(place):
    assert place.names("ledger") == [] and place.sizes("items")("items/a") == 0
    with pytest.raises(FileNotFoundError):
        place.read("job.json")
    put(place, "job.json", b"one")
    put(place, "job.json", b"three")  # takes the place of the first
    put(place, "items/0f3/odd [1] *.png", b"12")
    put(place, "ledger/part", b"1")
    assert place.read("job.json") == b"three" and place.read("items/0f3/odd [1] *.png") == b"12"
    assert place.names("ledger") == ["ledger/part"] and place.names("items") == []
    assert place.sizes("items")("items/0f3/odd [1] *.png") == 2
    place.remove(["ledger/part", "ledger/absent"])
    assert place.names("ledger") == []
    place.tidy()
    assert place.names(DRAFTS) == []


def test_a_url_is_no_folder(tmp_path):
    assert isinstance(store("memory://bucket/out"), Remote) and isinstance(store("out"), Folder)
    assert str(Remote("sftp://someone:secret@host/out")) == "sftp://host/out"
    assert isinstance(store(tmp_path), Folder) and str(store(tmp_path)) == str(tmp_path)


def test_a_run_to_a_url_equals_a_local_one_and_goes_on(place, model, tmp_path):
    manifest = write_images(tmp_path, 6)
    (tmp_path / "images/2/scan 002.png").write_bytes(b"broken")
    arguments = {"manifest": manifest, "model": model, "method": quick(), **WORDS}
    batch(folder=tmp_path / "local", **arguments)
    first = batch(folder=str(place), **arguments)
    assert (first["done"], first["failed"], first["skipped"]) == (5, 1, 0)
    expected = outputs(tmp_path / "local")
    if isinstance(place, Remote):
        assert remote_outputs(place) == expected
    assert len(place.names("ledger")) == 1 and place.names(DRAFTS) == []
    assert batch(folder=str(place), **arguments)["skipped"] == 5
    victim = next(f"items/{name}" for name in expected if name.endswith(".mask.png"))
    put(place, victim, b"")  # as a store would leave it that lost power
    assert batch(folder=str(place), **arguments)["skipped"] == 4
    assert hashlib.sha256(place.read(victim)).hexdigest() == expected[victim.removeprefix("items/")]
    assert Ledger(place).rows().num_rows == 6
    with pytest.raises(WordsError, match=r"another job \(its seed differ\)"):
        batch(folder=str(place), seed=1, **arguments)


def test_a_dead_line_stops_the_run_which_then_goes_on(model, tmp_path):
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    manifest = write_images(tmp_path, 6)
    arguments = {"manifest": manifest, "model": model, "method": quick(), "batch_size": 1, **WORDS}
    batch(folder=tmp_path / "local", **arguments)
    Flaky.left = 17  # the job, two items and a part of the third
    with pytest.raises(
        StoreError, match=r"flaky://out: cannot be written \(ConnectionResetError.*run the same command again"
    ):
        batch(folder="flaky://out", workers=1, **arguments)
    Flaky.left = 10**6
    again = batch(folder="flaky://out", **arguments)
    assert again["done"] == 6 and again["skipped"] == 2
    assert remote_outputs(store("flaky://out")) == outputs(tmp_path / "local")


def test_what_is_no_store_is_said_before_any_work(tmp_path, monkeypatch):
    manifest, model = write_images(tmp_path, 1), "no-such-model"
    with pytest.raises(WordsError, match="nonsense://a: Protocol not known: nonsense; name a folder or a URL"):
        batch(manifest, "nonsense://a", model=model, **WORDS)
    absent = {"class": "no_such_package.Files", "err": "Install no_such_package to reach elsewhere"}
    monkeypatch.setitem(known_implementations, "elsewhere", absent)
    with pytest.raises(StoreError, match="elsewhere://a: Install no_such_package"):
        batch(manifest, "elsewhere://a", model=model, **WORDS)


def test_the_command_line_takes_a_url(model, tmp_path):
    manifest, place = write_images(tmp_path, 2), store("memory://by-command")
    words = ["batch", manifest, "--remove", "pacemaker", "--method", "ddim", "--model", model, "-o", place, "--json"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["done"] == 2
    record = json.loads(place.read("run.json"))
    assert record["command"] == "batch" and record["result"]["done"] == 2
