"""Work done ahead of its use, in threads: decoding an image releases Python's lock."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
DEPTH = 4  # results a worker that may wait to be used


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Iterator[tuple[Item, Result]]:
    """Each item with what ``work`` makes of it, in order; an error of ``work`` is raised at its item.

    Memory holds ``DEPTH`` results a worker; ``workers`` are as many as processors, at most 8.
    """
    workers = workers or min(os.cpu_count() or 1, 8)
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="counterscan-data") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) >= DEPTH * workers:
                    first, result = waiting.popleft()
                    yield first, result.result()
            while waiting:
                first, result = waiting.popleft()
                yield first, result.result()
        finally:
            for _, result in waiting:
                result.cancel()
