"""Sessions and jobs on disk, so that a server that was killed still knows what it had promised.

Holds hashes of session tokens, ids, states and results by name; neither file names of uploads nor anything of an image.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

TABLES = """
create table if not exists sessions (id text primary key, seen real not null);
create table if not exists jobs (
  id text primary key, session text not null, kind text not null, state text not null, created real not null,
  finished real, error text, result text
);
create index if not exists jobs_of_session on jobs (session, created);
"""
OPEN = ("queued", "running")
INTERRUPTED = "the server stopped while this job was waiting or running; ask again"
FIELDS = "id, kind, state, created, finished, error, result"


class Ledger:
    """An SQLite file. Every call is one transaction and may come from any thread."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._base = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._base.execute("pragma journal_mode=wal")
        self._base.execute("pragma synchronous=normal")  # safe against a killed process
        self._base.executescript(TABLES)

    def _do(self, words: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._base.execute(words, values).fetchall()

    def recover(self) -> int:
        """Report every job that a former server left open as failed; returns how many there were."""
        words = "update jobs set state='failed', error=?, finished=? where state in (?, ?) returning id"
        return len(self._do(words, INTERRUPTED, time.time(), *OPEN))

    def see(self, session: str) -> None:
        """Note that a session was used now; a new one is entered."""
        self._do(
            "insert into sessions values (?, ?) on conflict do update set seen=excluded.seen", session, time.time()
        )

    def knows(self, session: str) -> bool:
        """Whether the session exists."""
        return bool(self._do("select 1 from sessions where id=?", session))

    def idle(self, seconds: float) -> list[str]:
        """Sessions that nobody has used for so long, the longest idle first."""
        rows = self._do("select id from sessions where seen<=? order by seen", time.time() - seconds)
        return [row[0] for row in rows]

    def forget(self, session: str) -> None:
        """Drop a session and its jobs."""
        self._do("delete from jobs where session=?", session)
        self._do("delete from sessions where id=?", session)

    def add(self, job: str, session: str, kind: str) -> None:
        """Enter a job, queued."""
        words = "insert into jobs (id, session, kind, state, created) values (?, ?, ?, 'queued', ?)"
        self._do(words, job, session, kind, time.time())

    def start(self, job: str) -> None:
        """The job runs now."""
        self._do("update jobs set state='running' where id=?", job)

    def close(self, job: str, state: str, *, error: str | None = None, result: dict[str, Any] | None = None) -> None:
        """The job has ended: ``done``, ``failed`` or ``cancelled``. The first end counts."""
        words = "update jobs set state=?, error=?, result=?, finished=? where id=? and state in (?, ?)"
        self._do(words, state, error, json.dumps(result) if result else None, time.time(), job, *OPEN)

    def job(self, job: str, session: str) -> dict[str, Any] | None:
        """One job of a session, ``None`` when it is not that session's."""
        rows = self._do(f"select {FIELDS} from jobs where id=? and session=?", job, session)
        return _record(rows[0]) if rows else None

    def jobs(self, session: str) -> list[dict[str, Any]]:
        """The session's jobs, oldest first."""
        rows = self._do(f"select {FIELDS} from jobs where session=? order by created, id", session)
        return [_record(row) for row in rows]

    def shut(self) -> None:
        """Close the file."""
        with self._lock:
            self._base.close()


def _record(row: tuple[Any, ...]) -> dict[str, Any]:
    values = dict(zip(FIELDS.split(", "), row, strict=True))
    return values | {"result": json.loads(values["result"]) if values["result"] else None}
