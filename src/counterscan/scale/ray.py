"""The same run on Ray: actors that load the model once each do the local pipeline on portions of the items.

The driver alone reads the manifest and writes the ledger, so resuming is per item and does not know Ray. A lost worker
is started again and its portion repeated, which overwrites files with equal ones; a portion that keeps killing workers
is taken apart, so that one poisonous image costs only itself. Workers must see the output folder under the same path, or the URL.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from counterscan.errors import WorkError
from counterscan.scale.job import Item, Job
from counterscan.scale.ledger import Row
from counterscan.scale.stages import failure

PORTION = 8  # batches a worker gets at once: enough to overlap reading and writing, little to repeat
RETRIES = 2
CORES = 4  # of a worker that runs on the CPU
STORE = 2**27  # bytes of Ray's object store for a run on this machine: only rows travel


class Worker:
    """One copy of the model, wherever Ray puts it."""

    def __init__(self, job: Job) -> None:
        import torch

        from counterscan.scale.devices import open_backbone

        torch.set_num_threads(job.threads)
        self.job = job
        self.backbone = open_backbone(job.model, job.device, offline=job.offline)
        if self.backbone.fingerprint != job.fingerprint:
            raise WorkError(f"{job.model}: has other weights on this worker than where the run was started")

    def do(self, items: list[Item]) -> list[Row]:
        """Do a portion of the items."""
        from counterscan.scale.local import stream

        return list(stream(self.job, self.backbone, items))


def placement(nodes: Sequence[Mapping[str, float]], workers: int | None, device: str) -> tuple[int, float, float]:
    """(workers, CPUs each, GPUs each) for the resources of a cluster's nodes, such that all workers find a place.

    Without a number there is one worker a GPU, or on the CPU one for every four cores. More workers than GPUs share
    them in equal fractions.
    """
    if device.startswith("cuda"):
        nodes = [node for node in nodes if node.get("GPU", 0) >= 1]
        if not nodes:
            raise WorkError(f"no GPU in the Ray cluster for the device {device!r}; leave --device out to use its CPUs")
    cpus, gpus = [node.get("CPU", 0) for node in nodes], [node.get("GPU", 0) for node in nodes]
    if not device.startswith("cuda"):
        count = workers or int(max(1, sum(cpus) // CORES))
        return count, _share(cpus, count), 0.0
    count = workers or int(sum(gpus))
    return count, _share(cpus, count), min(1.0, _share(gpus, count))


def _share(amounts: Sequence[float], count: int) -> float:
    """The largest whole share, or else one over a whole number, of which ``count`` fit into the nodes' amounts."""
    for share in range(int(sum(amounts) // count), 0, -1):
        if sum(amount // share for amount in amounts) >= count:
            return float(share)
    whole = sum(int(amount) for amount in amounts)
    if not whole:
        raise WorkError("the Ray cluster has no CPU to run on")
    return 1 / math.ceil(count / whole)


def stream(
    job: Job,
    items: Iterable[Item],
    *,
    address: str,
    workers: int | None = None,
    record: Callable[[Row], None] = lambda row: None,
) -> Iterator[Row]:
    """Do the items on the cluster at ``address`` (``"local"``: this machine); yields a row each, in no promised order."""
    ray = _library()
    with _connected(ray, address):
        count, cpus, gpus = placement(_nodes(ray), workers, job.device)
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": -1, "max_task_retries": RETRIES}
        actors = [ray.remote(Worker).options(**options).remote(job) for _ in range(count)]
        try:
            ray.get([actor.__ray_ready__.remote() for actor in actors])
        except ray.exceptions.RayActorError as error:
            raise WorkError(f"the workers cannot start: {_last_line(error)}") from error
        for row in _share_out(ray, actors, _portions(items, PORTION * job.batch_size)):
            record(row)
            yield row


def _share_out(ray: Any, actors: list[Any], portions: Iterator[list[Item]]) -> Iterator[Row]:
    """Keep every actor busy with one portion; what kept killing its workers comes again one item at a time."""
    idle, busy, again = deque(actors), {}, deque[list[Item]]()
    while True:
        while idle and (portion := again.popleft() if again else next(portions, None)):
            actor = idle.popleft()
            busy[actor.do.remote(portion)] = actor, portion
        if not busy:
            return
        (ready, *_), _ = ray.wait(list(busy))
        actor, portion = busy.pop(ready)
        idle.append(actor)
        try:
            yield from ray.get(ready)
        except ray.exceptions.RayActorError as error:
            if len(portion) > 1:
                again.extend([item] for item in portion)
            else:
                lost = WorkError(f"its worker died {RETRIES + 1} times: {_last_line(error)}")
                yield failure(portion[0], lost)
        except ray.exceptions.RayTaskError as error:  # a full disk, say
            raise error.cause from None  # which is one line, where the error's own text is a traceback


def _portions(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    source = iter(items)
    while portion := list(itertools.islice(source, size)):
        yield portion


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """A connection of this run's own, or the one its caller has already made."""
    if ray.is_initialized():
        yield
        return
    here: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **here)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise WorkError(f"no Ray cluster at {address!r} ({_last_line(error)}); see `ray status` there") from error
    try:
        yield
    finally:
        ray.shutdown()


def _nodes(ray: Any) -> list[Mapping[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _library() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise WorkError("--ray needs Ray, which is not installed: pip install 'counterscan[ray]'") from None
    return ray


def _last_line(error: BaseException) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
