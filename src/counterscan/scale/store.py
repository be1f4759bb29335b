"""Where a run's outputs lie: a folder of this machine, or a URL that fsspec knows (``s3://…``, ``gs://…``, ``sftp://…``).

Both take a whole file of this machine under a name in one step: nobody ever finds a torn one. Names are relative, with ``/``.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from counterscan.errors import CounterscanError, WordsError, WorkError

DRAFTS = ".drafts"


class StoreError(WorkError):
    """The place of the outputs cannot be read or written. It stops a run: no other item would fare better."""


@dataclass(frozen=True)
class Folder:
    """A folder of this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def read(self, name: str) -> bytes:
        """A file's bytes. ``FileNotFoundError`` where there is none."""
        return (self.path / name).read_bytes()

    def put(self, file: Path, name: str) -> None:
        """Move a file in, from :meth:`draft`."""
        goal = self.path / name
        goal.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, goal)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        """The names of all files directly in a folder, sorted; none where there is no such folder."""
        return sorted(f"{folder}/{path.name}" for path in (self.path / folder).glob("*") if path.is_file())

    def sizes(self, folder: str) -> Callable[[str], int]:
        """Tells the bytes of files below ``folder``, 0 of those that are not there."""

        def size(name: str) -> int:
            try:
                return (self.path / name).stat().st_size
            except OSError:
                return 0

        return size

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """A folder to write files in before they are put."""
        (self.path / DRAFTS).mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self.path / DRAFTS, ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def tidy(self) -> None:
        """Remove the drafts of runs that were killed."""
        shutil.rmtree(self.path / DRAFTS, ignore_errors=True)


@dataclass(frozen=True)
class Remote:
    """A folder by its URL. What its package needs to know (keys, endpoints) it takes from its own settings or fsspec's.

    Files go up under a temporary name and are moved: not every store shows a file only once it is whole.
    """

    url: str

    def __str__(self) -> str:
        return re.sub("://[^/]*@", "://", self.url)  # for messages: without a password

    def read(self, name: str) -> bytes:
        """A file's bytes. ``FileNotFoundError`` where there is none."""
        with self._told("read", FileNotFoundError):
            fs, root = self.open()
            return bytes(fs.cat_file(f"{root}/{name}"))

    def put(self, file: Path, name: str) -> None:
        """Upload a file."""
        with self._told("written"):
            fs, root = self.open()
            draft, goal = f"{root}/{DRAFTS}/{uuid4().hex}", f"{root}/{name}"
            for path in (draft, goal):
                _make(self, path.rpartition("/")[0])
            fs.put_file(str(file), draft)
            fs.mv(draft, goal)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files."""
        with self._told("written"):
            fs, root = self.open()
            for name in names:
                with suppress(FileNotFoundError):
                    fs.rm_file(f"{root}/{name}")

    def names(self, folder: str) -> list[str]:
        """The names of all files directly in a folder, sorted; none where there is no such folder."""
        return sorted(name for name in self._below(folder) if name.count("/") == folder.count("/") + 1)

    def sizes(self, folder: str) -> Callable[[str], int]:
        """Tells the bytes of files below ``folder``, 0 of those that are not there. Lists them all, at once."""
        found = self._below(folder)
        return lambda name: found.get(name, 0)

    def _below(self, folder: str) -> dict[str, int]:
        with self._told("read"):
            fs, root = self.open()
            fs.invalidate_cache()
            try:
                found = fs.find(f"{root}/{folder}", detail=True)
            except FileNotFoundError:
                return {}
        start = len(fs._strip_protocol(root)) + 1
        return {path[start:]: int(facts["size"]) for path, facts in found.items()}

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """A folder of this machine to write files in before they are put."""
        with TemporaryDirectory(prefix="counterscan-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def tidy(self) -> None:
        """Remove what runs that were killed had not yet moved."""
        self.remove(self.names(DRAFTS))

    def open(self) -> tuple[Any, str]:
        """The file system, which fsspec keeps, and the folder's path in it."""
        from fsspec.core import url_to_fs

        try:
            fs, root = url_to_fs(self.url)
        except ImportError as error:  # fsspec's text names the package to install
            raise StoreError(f"{self}: {error}") from error
        except ValueError as error:
            raise WordsError(f"{self}: {error}; name a folder or a URL that fsspec knows after -o") from error
        return fs, root.rstrip("/")

    @contextmanager
    def _told(self, what: str, *passing: type[Exception]) -> Iterator[None]:
        """Every package has its own errors: one line for all of them."""
        try:
            yield
        except Exception as error:
            if isinstance(error, (CounterscanError, *passing)):
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            todo = "check the address and your rights there and run the same command again"
            raise StoreError(f"{self}: cannot be {what} ({reason}); {todo}") from error


@lru_cache(2**13)
def _make(place: Remote, folder: str) -> None:
    """Once is enough: every question costs a request."""
    place.open()[0].makedirs(folder, exist_ok=True)


Store = Folder | Remote


def store(place: str | Path) -> Store:
    """A folder, or a URL with ``://`` in it.

    Raises:
        WordsError: fsspec does not know such URLs.
        StoreError: the package that reaches it is not installed.
    """
    if not (isinstance(place, str) and "://" in place):
        return Folder(Path(place).absolute())
    remote = Remote(place)
    remote.open()
    return remote
