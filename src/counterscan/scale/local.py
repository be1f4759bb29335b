"""The stages overlapped on one machine: threads read ahead and write behind while this thread runs the model.

Each stage holds at most a few batches, so memory does not grow with the manifest: a slow writer holds up the model,
a slow model the readers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from counterscan.scale.job import Item, Job
from counterscan.scale.ledger import Row
from counterscan.scale.stages import Changed, Loaded, change, finish, load

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone

DEPTH = 2  # batches that may wait before the model, and behind it


def stream(
    job: Job,
    backbone: Backbone,
    items: Iterable[Item],
    *,
    workers: int = 2,
    record: Callable[[Row], None] = lambda row: None,
) -> Iterator[Row]:
    """Do the items; yields a row each, in no promised order. ``record(row)`` is called once the item's files are whole.

    ``workers`` threads read and as many write.
    """
    depth = DEPTH * job.batch_size
    readers, writers = ThreadPoolExecutor(workers, "read"), ThreadPoolExecutor(workers, "write")
    try:
        loaded = _ahead(readers, partial(load, job, backbone), items, depth)
        changed = _batches(job, backbone, loaded)
        yield from _ahead(writers, partial(finish, job, backbone.card.name, record), changed, depth)
    finally:
        for pool in (readers, writers):
            pool.shutdown(cancel_futures=True)


def _batches(job: Job, backbone: Backbone, loaded: Iterable[Loaded | Row]) -> Iterator[Changed | Row]:
    """The model stage: full batches of one shape; failures pass by."""
    waiting: dict[tuple[int, ...], list[Loaded]] = {}
    for one in loaded:
        if isinstance(one, Row):
            yield one
            continue
        shape = tuple(one.tensor.shape)
        waiting.setdefault(shape, []).append(one)
        if len(waiting[shape]) == job.batch_size:
            yield from change(job, backbone, waiting.pop(shape))
    for group in waiting.values():
        yield from change(job, backbone, group)


def _ahead(pool: Executor, work: Callable[[Any], Any], items: Iterable[Any], depth: int) -> Iterator[Any]:
    """``map`` in order, at most ``depth`` ahead of who asks."""
    pending: deque[Future[Any]] = deque()
    for item in items:
        pending.append(pool.submit(work, item))
        if len(pending) > depth:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
