"""Many visitors at once: ``python benchmarks/studio_load.py --clients 50 --seconds 120``.

Starts a studio on loopback with a tiny untrained model and lets every client upload an image, ask for edits as fast as
the queue takes them, and fetch the answers. Counts answers by status code, and looks for every accepted job at the end: one
that is not known, not ended or without its file is lost. Writes ``results.json`` and ``results.md``.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.models import tiny

ENDED = ("done", "failed", "cancelled")
POLL = 0.5  # seconds between two looks at a job


class Client:
    """One visitor on one connection; every answer is counted by what was asked and by its code."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.codes: Counter[tuple[str, int]] = Counter()
        self.seconds: dict[str, list[float]] = {}
        self.headers: dict[str, str] = {}
        self.jobs: list[str] = []

    def ask(self, what: str, method: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, bytes]:
        began = time.perf_counter()
        for _ in range(2):  # a kept connection may just have been closed by the server: then once more, on a new one
            try:
                self.connection.request(method, path, body, self.headers | ({"Content-Type": kind} if kind else {}))
                answer = self.connection.getresponse()
                break
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                self.connection.close()
                self.codes["reconnected", 0] += 1
        data = answer.read()
        self.seconds.setdefault(what, []).append(time.perf_counter() - began)
        self.codes[what, answer.status] += 1
        return answer.status, data

    def begin(self, until: float) -> bytes | None:
        """Open a session and upload an image; the edit to ask of it, ``None`` when it was not taken in time."""
        self.headers["X-Counterscan-Session"] = json.loads(self.ask("session", "POST", "/api/sessions")[1])["session"]
        code, data = self.ask("upload", "POST", "/api/images?name=a.png", picture())
        while code == 429 and time.monotonic() < until:
            time.sleep(2)
            code, data = self.ask("upload", "POST", "/api/images?name=a.png", picture())
        return (
            json.dumps({"image": json.loads(data)["image"], "remove": ["pacemaker"]}).encode() if code == 201 else None
        )

    def edit(self, asked: bytes) -> bool:
        """Ask for an edit; whether it was accepted."""
        code, data = self.ask("edit", "POST", "/api/edit", asked, "application/json")
        if code == 202:
            self.jobs.append(json.loads(data)["job"])
        return code == 202

    def visit(self, until: float) -> None:
        """Ask until the time is over; what was accepted last may still wait."""
        try:
            asked = self.begin(until)
            while asked and time.monotonic() < until:
                if self.edit(asked):
                    self.follow(self.jobs[-1], until)
                else:
                    time.sleep(1)
        except OSError:
            self.codes["no answer", 0] += 1

    def follow(self, job: str, until: float) -> None:
        while time.monotonic() < until:
            _, data = self.ask("job", "GET", f"/api/jobs/{job}")
            if json.loads(data).get("state") in ENDED:
                return
            time.sleep(POLL)

    def lost(self, patience: float) -> list[str]:
        """The accepted jobs of which no end can be seen, or no file fetched."""
        end, missing = time.monotonic() + patience, []
        for job in self.jobs:
            found: dict[str, Any] = {}
            while found.get("state") not in ENDED and time.monotonic() < end:
                code, data = self.ask("job", "GET", f"/api/jobs/{job}")
                found = json.loads(data) if code == 200 else {}
                if found.get("state") not in ENDED:
                    time.sleep(POLL)
            if found.get("state") != "done":
                missing.append(f"{job}: {found.get('state')}")
                continue
            name = found["result"]["items"][0]["files"]["png"]
            if self.ask("file", "GET", f"/api/jobs/{job}/files/{name}")[0] != 200:
                missing.append(f"{job}: no file")
        return missing


def picture() -> bytes:
    """A PNG file of 64 x 64 pixels, 16 bits."""
    y, x = np.indices((64, 64))
    buffer = io.BytesIO()
    Image.fromarray((y * 700 + x * 300).astype(np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def studio(folder: Path) -> Iterator[tuple[int, int, float]]:
    """Port and process of a studio that lasts as long as the block, and the seconds its first page took once it was up."""
    model = tiny(folder / "tiny")
    words = ["--port", "0", "--model", str(model), "--state", str(folder / "state"), "--offline"]
    command = [sys.executable, "-m", "counterscan", "studio", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            port = next(
                int(found[1]) for line in server.stderr or [] if (found := re.search(r"http://\S+:(\d+)", line))
            )
            client = Client(port)
            client.ask("page", "GET", "/")
            yield port, server.pid, client.seconds["page"][0]
        finally:
            server.terminate()


def memory(process: int) -> float:
    """The most MiB that a process has held."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def measure(clients: int, seconds: float) -> dict[str, Any]:
    """Run the crowd and count."""
    with tempfile.TemporaryDirectory() as folder, studio(Path(folder)) as (port, process, first_page):
        warm = Client(port)
        asked = warm.begin(time.monotonic() + 300) or b""
        warm.edit(asked)
        unfinished = warm.lost(600)  # the model is open from here on
        warm.seconds.clear()
        for _ in range(3):
            warm.edit(asked)
            unfinished += warm.lost(60)
        before, until = memory(process), time.monotonic() + seconds
        crowd = [Client(port) for _ in range(clients)]
        threads = [threading.Thread(target=client.visit, args=(until,)) for client in crowd]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        unfinished += [line for client in crowd for line in client.lost(600)]
        codes = sum((client.codes for client in crowd), Counter())
        jobs = sum(len(client.jobs) for client in crowd)
        took = {
            what: np.quantile([s for c in crowd for s in c.seconds.get(what, [])], [0.5, 0.95, 1]).round(3).tolist()
            for what in ("session", "upload", "edit", "job", "file")
            if any(client.seconds.get(what) for client in crowd)
        }
        return {
            "clients": clients, "seconds": seconds, "cores": os.cpu_count(), "load_average": round(os.getloadavg()[0], 1),
            "requests": sum(codes.values()), "codes": {f"{what} {code}": n for (what, code), n in sorted(codes.items())},
            "server_errors": sum(n for (_, code), n in codes.items() if code >= 500), "jobs": jobs, "lost": unfinished,
            "seconds_median_95_most": took, "first_page_seconds": round(first_page, 3),
            "edit_accepted_seconds_alone": round(float(np.median(warm.seconds["edit"])), 3),
            "memory_mib_before_and_most": [round(before), round(memory(process))],
        }  # fmt: skip


def markdown(found: dict[str, Any]) -> str:
    """The results as a page."""
    rows = "\n".join(f"| {what} | {a} | {b} | {c} |" for what, (a, b, c) in found["seconds_median_95_most"].items())
    codes = "\n".join(f"| {name} | {n} |" for name, n in found["codes"].items())
    before, most = found["memory_mib_before_and_most"]
    return f"""# {found["clients"]} clients at once for {found["seconds"]:g} s

`python benchmarks/studio_load.py --clients {found["clients"]} --seconds {found["seconds"]:g}`: a studio with a tiny
untrained model, on loopback, on a machine with {found["cores"]} cores and a load average of {found["load_average"]} at the end,
other work on it included.

- {found["requests"]} requests, of these {found["server_errors"]} answered with an error of the server (5xx).
- {found["jobs"]} edits accepted, {len(found["lost"])} lost.
- Memory of the server: {before} MiB before, {most} MiB at most.
- First page {found["first_page_seconds"]} s after the server was up; an edit accepted in {found["edit_accepted_seconds_alone"]} s
  (median of three) when nobody else asks.

| seconds | median | 95 % | most |
| --- | --- | --- | --- |
{rows}

| request and code | number |
| --- | --- |
{codes}

202 is an edit accepted, 429 one refused because the queue was full. "reconnected" counts kept connections that the server had
closed after 15 idle seconds; the request was then sent on a new one.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/studio_load"))
    given = parser.parse_args()
    found = measure(given.clients, given.seconds)
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "results.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    (given.output / "results.md").write_text(markdown(found), encoding="utf-8")
    print(json.dumps(found, indent=2))
    sys.exit(bool(found["server_errors"] or found["lost"]))


if __name__ == "__main__":
    main()
