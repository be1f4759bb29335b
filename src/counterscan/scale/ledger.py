"""The ledger: a Parquet row an item, in parts that are only ever added, so that killing the run loses nothing.

Every finished item is one small part at once; ``FAN`` parts of a level are merged into one of the next, so there are
never many and no row is rewritten often. A merge is written before what it replaces is removed: after a kill between
the two a row exists twice, which reading undoes.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from counterscan.errors import DataError
from counterscan.scale.store import Store, StoreError

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "ledger"
FAN = 32
PART = re.compile(rf"{FOLDER}/part-\d+-[0-9a-f]+\.parquet")
DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class Row:
    """What became of one item.

    ``seconds`` is the sum of ``reading`` (decode and fit), ``model`` (its share of the batch) and ``writing`` (composite,
    encode, hash). Scores: ``changed`` is the share of pixels that may differ, ``mean_change`` the mean absolute difference
    there and ``largest_change`` the largest, intensities in [0, 1]; ``before`` and ``after`` are what the judge, if there is one,
    thinks of the edited findings ``judged``, in their order. ``files`` are relative to the job's store,
    ``sha256`` theirs in the same order, ``bytes`` their sum; ``finished`` in seconds since 1970. ``inputs`` are bytes and time
    of change (nanoseconds since 1970) of each of the image's own files in turn, as they were before they were read.
    """

    item: str
    path: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    reading: float = 0.0
    model: float = 0.0
    writing: float = 0.0
    seed: int = 0
    evaluations: int = 0
    changed: float | None = None
    mean_change: float | None = None
    largest_change: float | None = None
    judged: list[str] = field(default_factory=list)
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)
    bytes: int = 0
    finished: float = field(default_factory=time.time)
    inputs: list[int] = field(default_factory=list)


class Ledger:
    """The ledger in a job's store. ``add`` may be called from any thread; only one process may write."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._parts: dict[int, list[str]] = {}
        for name in self._all():
            self._parts.setdefault(int(name.split("-")[1]), []).append(name)

    def add(self, row: Row) -> None:
        """Write down what became of an item; it is in the store when this returns."""
        import pyarrow as pa

        with self._lock:
            self._write(pa.Table.from_pylist([asdict(row)], _schema()), 0)

    def rows(self) -> pa.Table:
        """The newest row of every item."""
        return _newest(self._read(self._all()))

    def settle(self) -> pa.Table:
        """Merge everything into one part with one row an item; returns it."""
        with self._lock:
            old, level = self._all(), max(self._parts, default=0)
            whole = self._read(old)
            table = _newest(whole)
            if len(old) > 1 or table.num_rows < whole.num_rows:
                self._parts = {}
                self._write(table, level)
                self.store.remove(old)
        return table

    def _write(self, table: pa.Table, level: int) -> None:
        import pyarrow.parquet as pq

        name = f"{FOLDER}/part-{level}-{uuid4().hex}.parquet"
        try:
            with self.store.draft() as draft:
                pq.write_table(table, draft / "part", compression="zstd")
                self.store.put(draft / "part", name)
        except OSError as error:
            todo = "make room and run the same command again"
            raise StoreError(f"{self.store}/{FOLDER}: cannot be written ({error.strerror or error}); {todo}") from error
        parts = self._parts.setdefault(level, [])
        parts.append(name)
        if len(parts) >= FAN:
            del self._parts[level]
            self._write(self._read(parts), level + 1)
            self.store.remove(parts)

    def _all(self) -> list[str]:
        return [name for name in self.store.names(FOLDER) if PART.fullmatch(name)]

    def _read(self, names: list[str]) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables = []
        for name in names:
            try:
                tables.append(pq.read_table(pa.BufferReader(self.store.read(name)), schema=_schema()))
            except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
                todo = "delete it, its items will be done again"
                raise DataError(f"{self.store}/{name}: damaged ({error}); {todo}") from error
        return pa.concat_tables(tables) if tables else _schema().empty_table()


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which dies with its process. ``DataError`` when another run holds it."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{folder}: another run is writing here; wait for it or name another folder") from None
        except OSError:  # nor on this file system
            pass
        yield


def _newest(table: pa.Table) -> pa.Table:
    """One row an item: the one that was finished last, in the order of the items."""
    import numpy as np

    table = table.sort_by([("item", "ascending"), ("finished", "ascending")])
    names: Any = table["item"].to_numpy()
    last = np.ones(len(names), bool)
    last[:-1] = names[1:] != names[:-1]
    return table.filter(last)


def _schema() -> pa.Schema:
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    return pa.schema(
        [("item", text), ("path", text), ("status", text), ("reason", text)]
        + [(name, number) for name in ("seconds", "reading", "model", "writing")]
        + [("seed", pa.int64()), ("evaluations", pa.int64())]
        + [(name, number) for name in ("changed", "mean_change", "largest_change")]
        + [("judged", pa.list_(text)), ("before", pa.list_(number)), ("after", pa.list_(number))]
        + [("files", pa.list_(text)), ("sha256", pa.list_(text)), ("bytes", pa.int64()), ("finished", number)]
        + [("inputs", pa.list_(pa.int64()))]
    )
