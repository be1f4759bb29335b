"""One line of JSON an image, written group by group: what a killed evaluation goes on from."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Row = dict[str, Any]
Progress = Callable[[int, int], None]
GROUP = (
    16  # things done and written down at a time; always the same ones together, so that a resumed run has their numbers
)


def fill(
    path: Path,
    things: Iterable[T],
    work: Callable[[Sequence[T]], Sequence[Row]],
    *,
    total: int,
    progress: Progress | None = None,
    begin: Callable[[int], None] = lambda done: None,
    group: int = GROUP,
) -> None:
    """Append a row for every thing that has none in ``path`` yet. ``work`` makes the rows of a group; they are on disk then.

    ``begin(done)`` is called first, with the number of rows kept of an earlier run; a group that was cut off is done again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _whole_groups(path, group)
    begin(done)
    rest = iter(things)
    deque(islice(rest, done), maxlen=0)
    with path.open("a", encoding="utf-8") as file:
        while some := list(islice(rest, group)):
            file.write("".join(json.dumps(row) + "\n" for row in work(some)))
            file.flush()
            os.fsync(file.fileno())
            done += len(some)
            if progress is not None:
                progress(done, total)


def read(path: Path) -> Iterator[Row]:
    """The rows, in order."""
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def plain(value: Any) -> Any:
    """The same as JSON knows it: NaN and infinity become null, tuples lists, numpy's numbers Python's."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return str(value) if isinstance(value, Path) else value


def _whole_groups(path: Path, group: int) -> int:
    """Cut the file behind its last whole group; how many rows stay."""
    if not path.exists():
        return 0
    kept = end = position = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            position += len(line)
            if number % group == 0:
                kept, end = number, position
    os.truncate(path, end)
    return kept
