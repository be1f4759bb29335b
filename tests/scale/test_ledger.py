"""The ledger keeps every row once, whatever happens between two writes."""

from __future__ import annotations

import shutil
import threading

import pandas as pd
import pytest

from counterscan.errors import DataError
from counterscan.scale.ledger import DONE, FAILED, FAN, Ledger, Row
from counterscan.scale.store import Folder


def row(i, status=DONE, finished=0.0):
    return Row(f"item {i:04d}", f"/data/{i}", status, finished=finished or 1000.0 + i, files=["a"], sha256=["b"])


def parts(folder):
    return sorted((folder / "ledger").glob("*.parquet"))


def test_rows_are_on_disk_at_once_and_parts_stay_few(tmp_path, monkeypatch):
    monkeypatch.setattr("counterscan.scale.ledger.FAN", 6)
    ledger = Ledger(Folder(tmp_path))
    for i in range(6 * 6 + 5):
        ledger.add(row(i))
        if i % 10 == 7:
            assert Ledger(Folder(tmp_path)).rows().num_rows == i + 1
    levels = [path.name.split("-")[1] for path in parts(tmp_path)]
    assert levels == ["0"] * 5 + ["2"]
    assert ledger.settle().num_rows == 6 * 6 + 5
    assert len(parts(tmp_path)) == 1
    assert pd.read_parquet(tmp_path / "ledger")["item"].is_unique


def test_the_newest_row_counts(tmp_path):
    ledger = Ledger(Folder(tmp_path))
    for finished, status in ((5.0, FAILED), (9.0, DONE), (7.0, FAILED)):
        ledger.add(row(1, status, finished))
    ledger.add(row(2))
    assert ledger.rows()["status"].to_pylist() == [DONE, DONE]
    assert Ledger(Folder(tmp_path)).settle().num_rows == 2 and len(parts(tmp_path)) == 1


def test_a_kill_in_the_middle_of_a_merge_doubles_nothing(tmp_path):
    ledger = Ledger(Folder(tmp_path))
    for i in range(FAN - 1):
        ledger.add(row(i))
    shutil.copytree(tmp_path / "ledger", tmp_path / "before")
    ledger.add(row(FAN - 1))
    assert len(parts(tmp_path)) == 1
    for path in (tmp_path / "before").iterdir():  # as if they had not been removed any more
        shutil.copy(path, tmp_path / "ledger")
    again = Ledger(Folder(tmp_path))
    assert again.rows().num_rows == again.settle().num_rows == FAN
    assert len(parts(tmp_path)) == 1


def test_many_threads_write(tmp_path):
    ledger = Ledger(Folder(tmp_path))
    threads = [threading.Thread(target=lambda k=k: [ledger.add(row(10 * k + i)) for i in range(10)]) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.rows().num_rows == 40


def test_a_damaged_part_is_named(tmp_path):
    ledger = Ledger(Folder(tmp_path))
    ledger.add(row(1))
    (path,) = parts(tmp_path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=rf"{path.name}: damaged .*delete it"):
        ledger.rows()


def test_empty(tmp_path):
    assert Ledger(Folder(tmp_path)).settle().num_rows == 0
