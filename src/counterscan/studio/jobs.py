"""The queue: one worker, because one image at a time already takes all cores. Jobs can be watched and cancelled."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from counterscan.errors import CounterscanError
from counterscan.studio.ledger import Ledger
from counterscan.studio.limits import Limits
from counterscan.studio.sessions import Full

Report = Callable[[int, int], None]
Work = Callable[[str, Report], dict[str, Any]]
log = logging.getLogger("counterscan.studio")


class Cancelled(Exception):
    """Raised inside the work when somebody has cancelled it."""


@dataclass
class _Job:
    id: str
    session: str
    work: Work
    done: int = 0
    total: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def report(self, done: int, total: int) -> None:
        """Progress of the work; also where a cancelled job stops."""
        self.done, self.total = done, total
        if self.stop.is_set():
            raise Cancelled


class Jobs:
    """A queue with a limit and one worker thread. What has ended is in the ledger."""

    def __init__(self, ledger: Ledger, limits: Limits) -> None:
        self.ledger, self.limits = ledger, limits
        self._waiting: deque[_Job] = deque()
        self._open: dict[str, _Job] = {}  # waiting or running
        self._change = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._loop, name="counterscan-worker", daemon=True)
        self._thread.start()

    def submit(self, session: str, kind: str, work: Work) -> str:
        """Queue ``work(job, report)``; returns the job's id. Raises ``Full`` beyond the limits."""
        with self._change:
            mine = sum(job.session == session for job in self._open.values())
            if mine >= self.limits.queued_each:
                raise Full(f"{mine} of your jobs are waiting, the most allowed; wait or cancel one")
            if len(self._open) >= self.limits.queued:
                raise Full(f"{len(self._open)} jobs are waiting, the most allowed; try again later")
            job = _Job(secrets.token_hex(16), session, work)
            self.ledger.add(job.id, session, kind)
            self._open[job.id] = job
            self._waiting.append(job)
            self._change.notify()
        return job.id

    def cancel(self, job: str) -> None:
        """Stop a job: at once when it waits, after the network evaluation at hand when it runs."""
        with self._change:
            found = self._open.get(job)
            if found is None:
                return
            found.stop.set()
            if found in self._waiting:
                self._waiting.remove(found)
                self._end(found, "cancelled")

    def drop(self, session: str) -> None:
        """Cancel all jobs of a session."""
        for job in [job for job in list(self._open.values()) if job.session == session]:
            self.cancel(job.id)

    def progress(self, job: str) -> dict[str, int]:
        """Steps done and to do, and how many jobs are before this one. All zero when it has ended."""
        with self._change:
            found = self._open.get(job)
            if found is None:
                return {"done": 0, "total": 0, "ahead": 0}
            order = list(self._open)
            return {"done": found.done, "total": found.total, "ahead": order.index(job)}

    def end(self) -> None:
        """Cancel everything and stop the worker."""
        for job in list(self._open):
            self.cancel(job)
        with self._change:
            self._ending = True
            self._change.notify()
        self._thread.join(timeout=30)

    def _loop(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._ending)
                if not self._waiting:
                    return
                job = self._waiting.popleft()
                self.ledger.start(job.id)
            self._run(job)

    def _run(self, job: _Job) -> None:
        try:
            job.report(0, 0)
            outcome: dict[str, Any] = {"state": "done", "result": job.work(job.id, job.report)}
        except Cancelled:
            outcome = {"state": "cancelled"}
        except CounterscanError as error:
            outcome = {"state": "failed", "error": str(error)}
        except MemoryError:
            outcome = {"state": "failed", "error": "not enough memory for this image; shrink or crop it"}
        except Exception as error:
            log.exception("job %s", job.id)
            outcome = {"state": "failed", "error": f"unexpected {type(error).__name__}; the server's log has more"}
        with self._change:
            self._end(job, **outcome)

    def _end(self, job: _Job, state: str, **outcome: Any) -> None:
        self.ledger.close(job.id, state, **outcome)
        self._open.pop(job.id, None)
