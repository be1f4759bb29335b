"""The answers of a study in one SQLite file: reader codes, answers, seconds. No names, no addresses, no times of day."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from counterscan.errors import DataError
from counterscan.reader.trials import Answer

TABLES = """
create table if not exists study (fingerprint text not null);
create table if not exists readers (number integer primary key, code text not null unique);
create table if not exists answers (
  reader integer not null references readers, trial text not null, answer text not null, primary key (reader, trial)
);
"""


class Store:
    """The file of one study. Every call is one transaction and may come from any thread.

    Raises:
        DataError: the file is no store, or holds the answers of another study.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._lock = threading.Lock()
        try:
            self._base = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._base.execute("pragma journal_mode=wal")
            self._base.execute("pragma synchronous=full")  # an answer that was accepted survives a power cut
            self._base.executescript(TABLES)
            known = self._do("select fingerprint from study")
            if not known:
                self._do("insert into study values (?)", fingerprint)
        except sqlite3.Error as error:
            raise DataError(f"{path}: not a store of answers ({error}); name another with --store") from error
        if known and known[0][0] != fingerprint:
            raise DataError(
                f"{path}: holds answers to another study, or its file or images changed; name another --store"
            )

    def _do(self, words: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._base.execute(words, values).fetchall()

    def reader(self, code: str) -> int | None:
        """The number of a reader, from 0; ``None`` for one who has not begun."""
        rows = self._do("select number from readers where code=?", code)
        return rows[0][0] if rows else None

    def begin(self, code: str) -> int:
        """The number of a reader, who is entered when new."""
        self._do("insert or ignore into readers select count(*), ? from readers", code)
        return self._do("select number from readers where code=?", code)[0][0]

    def answered(self, reader: int) -> set[str]:
        """The trials that a reader has answered."""
        return {row[0] for row in self._do("select trial from answers where reader=?", reader)}

    def add(self, reader: int, trial: str, answer: Answer) -> bool:
        """Keep an answer; false when the trial has one, which then stays."""
        words = "insert or ignore into answers values (?, ?, ?) returning trial"
        return bool(self._do(words, reader, trial, answer.model_dump_json(exclude_none=True)))

    def answers(self) -> Iterator[tuple[int, str, Answer]]:
        """All answers: reader, trial, answer."""
        for reader, trial, text in self._do("select reader, trial, answer from answers order by reader, rowid"):
            yield reader, trial, Answer.model_validate_json(text)

    def codes(self) -> dict[int, str]:
        """The readers' codes by number."""
        return dict(self._do("select number, code from readers order by number"))

    def shut(self) -> None:
        """Close the file."""
        with self._lock:
            self._base.close()
