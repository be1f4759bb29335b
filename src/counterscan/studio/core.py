"""What a running studio holds: the ledger, the sessions, the models and the queue."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from counterscan.errors import CounterscanError
from counterscan.studio import work
from counterscan.studio.decode import decode
from counterscan.studio.door import LOOPBACK
from counterscan.studio.jobs import Jobs
from counterscan.studio.ledger import Ledger
from counterscan.studio.limits import Limits
from counterscan.studio.sessions import Full, Session, Sessions, clean
from counterscan.studio.unpack import unpack
from counterscan.studio.views import THUMBNAIL, write_thumbnail


@dataclass(frozen=True)
class Options:
    """How a studio runs. ``hosts`` are the names it answers to (none = any), against DNS rebinding."""

    state: Path
    model: str = "chest-nih"
    token: str | None = None
    data: Path | None = None
    bench: Path | None = None
    offline: bool = False
    hosts: tuple[str, ...] = LOOPBACK
    limits: Limits = field(default_factory=Limits)


class Studio:
    """What the application holds while it runs."""

    def __init__(self, options: Options) -> None:
        options.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.options, self.limits = options, options.limits
        self.ledger = Ledger(options.state / "ledger.sqlite")
        self.ledger.recover()
        self.sessions = Sessions(options.state / "sessions", self.ledger, self.limits)
        self.sessions.sweep()
        self.models = work.Models(options.model, offline=options.offline)
        self.jobs = Jobs(self.ledger, self.limits)
        self.decoders = threading.BoundedSemaphore(self.limits.decoders)

    def warm(self) -> None:
        """Open the model before anybody asks; what is wrong with it is said to who asks."""
        with contextlib.suppress(CounterscanError):
            self.models.get(None)

    def end(self) -> None:
        """Stop the work and delete every session's files."""
        self.jobs.end()
        self.sessions.sweep(seconds=-1)
        self.ledger.shut()

    def add_image(
        self, session: Session, source: Path, name: str, *, slice_index: int | None = None, **facts: Any
    ) -> dict[str, Any]:
        """Take a file, or a slice of it, into a session: decoded apart from the server, or refused. ``source`` is moved."""
        session.room(self.limits)
        image = secrets.token_hex(16)
        folder = session.folder / "images" / image
        (folder / "original").mkdir(parents=True)
        path = folder / "original" / clean(name)
        try:
            shutil.move(source, path)
            with self.decoders:
                known = decode(path, folder / "view", self.limits, slice_index)
            record = {"image": image, "name": path.name, "taken": time.time(), **known, **facts}
            (folder / "facts.json").write_text(json.dumps(record), encoding="utf-8")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return record

    def add_series(self, session: Session, source: Path, name: str) -> dict[str, Any]:
        """Take a zip of DICOM files into a session: unpacked apart from the server, or refused."""
        session.room(self.limits)
        above = session.folder / "series"
        if above.is_dir() and sum(1 for _ in above.iterdir()) >= self.limits.series:
            raise Full(f"this session holds {self.limits.series} series, the most allowed; close one")
        series = secrets.token_hex(16)
        folder, name = above / series, clean(name)
        (folder / "files").mkdir(parents=True)
        try:
            with self.decoders:
                known = unpack(source, folder / "files", name, self.limits)
            record = {"series": series, "name": name, "taken": time.time(), **known}
            (folder / "facts.json").write_text(json.dumps(record), encoding="utf-8")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return record

    def thumbnail(self, folder: Path, instance: dict[str, Any]) -> bytes:
        """A small PNG of an instance of a series, decoded apart from the server and kept."""
        kept = folder / f"{instance['file']}.png"
        if not kept.is_file():
            view = folder / f"{instance['file']}.{secrets.token_hex(4)}.view"
            try:
                with self.decoders:
                    known = decode(folder / "files" / instance["file"], view, replace(self.limits, view_side=THUMBNAIL))
                write_thumbnail(view, known["view"], kept)
            finally:
                view.unlink(missing_ok=True)
        return kept.read_bytes()
