"""One visitor, one unguessable token, one folder. A session sees what is in its folder and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterscan.studio.ledger import Ledger
from counterscan.studio.limits import Limits

ID = re.compile(r"[0-9a-f]{32}")


class Full(Exception):
    """A limit is reached; the message says which, and what to do."""


@dataclass(frozen=True)
class Session:
    """A visitor's folder. ``id`` is the hash of the token: the token itself is nowhere on disk."""

    id: str
    folder: Path

    def image(self, image: str) -> Path | None:
        """The folder of an image, ``None`` when this session has no such image."""
        folder = self.folder / "images" / image
        return folder if ID.fullmatch(image) and (folder / "facts.json").is_file() else None

    def facts(self, image: str) -> dict[str, Any] | None:
        """What is known of an image: name, size, depth, view."""
        folder = self.image(image)
        if folder is None:
            return None
        known: dict[str, Any] = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        return known

    def original(self, image: str) -> Path | None:
        """The uploaded file, ``None`` when this session has no such image."""
        folder = self.image(image)
        return next((folder / "original").iterdir()) if folder else None

    def series(self, series: str) -> Path | None:
        """The folder of a series, ``None`` when this session has no such series."""
        folder = self.folder / "series" / series
        return folder if ID.fullmatch(series) and (folder / "facts.json").is_file() else None

    def instances(self, series: str) -> dict[str, Any] | None:
        """What is known of a series: name, instances, and the file of each."""
        folder = self.series(series)
        if folder is None:
            return None
        known: dict[str, Any] = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        return known

    def job(self, job: str) -> Path:
        """The folder of a job's results. The id is one of ours."""
        return self.folder / "jobs" / job

    def room(self, limits: Limits) -> None:
        """Raise ``Full`` when one more image is too many."""
        images = self.folder / "images"
        if images.is_dir() and sum(1 for _ in images.iterdir()) >= limits.images:
            raise Full(f"this session holds {limits.images} images, the most allowed; close some")
        if _size(self.folder) >= limits.session_bytes:
            raise Full("this session holds too much; end it and start another")


class Sessions:
    """The sessions below a folder; the ledger knows which exist."""

    def __init__(self, folder: Path, ledger: Ledger, limits: Limits) -> None:
        self.folder, self.ledger, self.limits = folder, ledger, limits
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def begin(self) -> str:
        """A new session's token. Raises ``Full`` when there are too many."""
        known = self.ledger.idle(0)
        if len(known) >= self.limits.sessions:
            empty = (name for name in known if not (self.folder / name).exists())
            oldest = next(empty, None)
            if oldest is None:
                raise Full("too many sessions are open; try again later")
            self.end(oldest)
        token = secrets.token_urlsafe(32)
        self.ledger.see(_hash(token))
        return token

    def find(self, token: str | None) -> Session | None:
        """The session of a token, which counts as used; ``None`` when there is none."""
        if not token or not self.ledger.knows(name := _hash(token)):
            return None
        self.ledger.see(name)
        return Session(name, self.folder / name)

    def end(self, session: str) -> None:
        """Forget a session, by its id, and delete all it had."""
        self.ledger.forget(session)
        shutil.rmtree(self.folder / session, ignore_errors=True)

    def sweep(self, *, seconds: float | None = None) -> list[str]:
        """End the sessions idle for so long, and delete folders that belong to none; returns the ids."""
        idle = self.ledger.idle(self.limits.idle_seconds if seconds is None else seconds)
        for name in idle:
            self.end(name)
        for folder in self.folder.iterdir():
            if not self.ledger.knows(folder.name):
                shutil.rmtree(folder, ignore_errors=True)
        return idle


def _size(folder: Path) -> int:
    """Bytes of all files below a folder, which other threads may be changing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(place, name)).st_size
    return total


def clean(name: str) -> str:
    """A file name that is only a file name: its last part, in plain characters; the ending stays."""
    last = re.sub(r"[^A-Za-z0-9._-]+", "_", re.split(r"[/\\]", name)[-1]).lstrip(".")[-80:].lstrip(".")
    return last or "image"


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()[:32]
