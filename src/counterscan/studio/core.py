"""What a running studio holds: the ledger, the sessions, the models and the queue."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from counterscan.errors import CounterscanError
from counterscan.studio import work
from counterscan.studio.decode import decode
from counterscan.studio.door import LOOPBACK
from counterscan.studio.jobs import Jobs
from counterscan.studio.ledger import Ledger
from counterscan.studio.limits import Limits
from counterscan.studio.sessions import Session, Sessions, clean


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

    def add_image(self, session: Session, source: Path, name: str, **facts: Any) -> dict[str, Any]:
        """Take a file into a session: decoded apart from the server, or refused. ``source`` is moved."""
        session.room(self.limits)
        image = secrets.token_hex(16)
        folder = session.folder / "images" / image
        (folder / "original").mkdir(parents=True)
        path = folder / "original" / clean(name)
        try:
            shutil.move(source, path)
            with self.decoders:
                known = decode(path, folder / "view", self.limits)
            record = {"image": image, "name": path.name, "taken": time.time(), **known, **facts}
            (folder / "facts.json").write_text(json.dumps(record), encoding="utf-8")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return record
