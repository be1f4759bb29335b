"""``batch``: one edit on every image of a manifest. Run again, it does only what is missing, failed or replaced."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterscan.scale.job import Item, Job, Judge, items
from counterscan.scale.ledger import DONE, FAILED, FOLDER, Ledger, Row, only_writer
from counterscan.scale.manifest import Unusable, read_images
from counterscan.scale.stages import begin
from counterscan.scale.store import Folder, Store, store

if TYPE_CHECKING:
    import pyarrow as pa

    from counterscan.backbones.base import Backbone
    from counterscan.methods import Method, Progress

WORKERS = 2
THREADS = 4  # of one copy of the model at most; more cores are better used by more copies, with ``ray="local"``
SHOWN = 20


def batch(
    manifest: str | Path,
    folder: str | Path,
    *,
    method: str | Method | None = None,
    model: str = "chest-nih",
    device: str = "cpu",
    seed: int = 0,
    batch_size: int = 4,
    workers: int | None = None,
    ray: str | None = None,
    offline: bool = False,
    judge: Judge | None = None,
    progress: Progress | None = None,
    **words: Any,
) -> dict[str, Any]:
    """Edit every image of ``manifest`` (.csv, .tsv, .parquet or .jsonl with a column ``path``, and ``path_*`` for other
    contrasts) into ``folder``, which may be a URL that fsspec knows, such as ``s3://bucket/out``.

    ``words`` are those of ``counterscan.edit``: ``remove``, ``add``, ``source``, ``target``, ``instruct``, ``region``,
    ``mask``, ``keep``. Every item has a seed of its own, from its path in the manifest and ``seed``, so its result depends
    neither on the others nor on ``workers``: threads that read and as many that write here, model actors with ``ray``
    (``"local"`` or a cluster's address). ``judge`` scores every result in the ledger. ``progress(done, total)`` counts the items
    still to be done.

    Returns ``items`` in the manifest, of these ``done``, ``failed`` and ``skipped`` (done before); ``seconds`` and
    ``images_per_second`` of this run without its start; ``model``, ``fingerprint``, ``ledger`` (a folder of Parquet
    parts, relative to ``folder``) and the first ``failures``. Items that cannot be done, and rows that name no image, are
    recorded with the reason and raise nothing.

    Raises:
        WordsError: the words are wrong, the model cannot run the method, or ``folder`` holds another job's results.
        DataError: the manifest is unusable, or another run is writing to ``folder``.
        WorkError: the disk is full, or the store cannot be reached or written; every finished item is kept.
    """
    import pyarrow as pa

    from counterscan.scale.devices import open_backbone

    manifest, place = Path(manifest), store(folder)
    root = manifest.absolute().parent
    images, unusable = read_images(manifest)
    backbone = open_backbone(model, "cpu" if ray else device, offline=offline)
    job = _job(backbone, words, method, model, place, device, seed, batch_size, offline, judge)
    begin(job, backbone)
    with _alone(place):
        job.claim()
        place.tidy()
        ledger = Ledger(place)
        todo = _missing(images, root, ledger.settle(), place)
        began = time.perf_counter()
        work = items(todo, root)
        with _threads(job.threads):
            for count, _ in enumerate(_rows(job, backbone, work, ledger.add, workers, ray), 1):
                if progress is not None:
                    progress(count, len(todo))
        seconds = time.perf_counter() - began
        for bad in unusable:
            ledger.add(Row(_name(bad), "", FAILED, bad.reason))
        table = ledger.settle()
        place.tidy()
    facts = {"model": backbone.card.name, "fingerprint": job.fingerprint, "ledger": FOLDER}
    listed = pa.chunked_array([*images["path"].chunks, pa.array([_name(bad) for bad in unusable], pa.string())])
    return _summary(listed, table, len(images) - len(todo), len(todo), seconds) | facts


def _name(bad: Unusable) -> str:
    """What stands in the ledger for a row that names no image."""
    return f"row {bad.row}"


def _job(
    backbone: Backbone,
    words: dict[str, Any],
    method: str | Method | None,
    model: str,
    place: Store,
    device: str,
    seed: int,
    batch_size: int,
    offline: bool,
    judge: Judge | None,
) -> Job:
    from dataclasses import replace

    import torch

    from counterscan import methods
    from counterscan.editing import read_mask
    from counterscan.language import resolve

    mask = words.pop("mask", None)
    request = resolve(**words, card=backbone.card)
    if mask is not None:
        request = replace(request, mask=read_mask(mask))
    if method is None or isinstance(method, str):
        method = methods.suited(backbone.card, method, keep=bool(request.keep))
    threads = min(torch.get_num_threads(), THREADS)
    facts = str(model), backbone.fingerprint, place, device, seed, batch_size, threads, offline, judge
    return Job(request, method, *facts)


def _alone(place: Store) -> AbstractContextManager[None]:
    """No second run in the same folder; elsewhere nothing tells of one."""
    return only_writer(place.path) if isinstance(place, Folder) else nullcontext()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Inside, torch works on so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _rows(
    job: Job,
    backbone: Backbone,
    work: Iterator[Item],
    record: Callable[[Row], None],
    workers: int | None,
    ray: str | None,
) -> Iterator[Row]:
    if ray is None:
        from counterscan.scale.local import stream

        yield from stream(job, backbone, work, workers=workers or WORKERS, record=record)
    else:
        from counterscan.scale.ray import stream as distributed

        yield from distributed(job, work, address=ray, workers=workers, record=record)


def _missing(images: pa.Table, root: Path, table: pa.Table, place: Store) -> pa.Table:
    """The images without a row that says done, all of whose files are there, with as many bytes as it says; and those that
    were replaced since. An image that is gone stays done, and so does one of a ledger from before ``inputs``.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = table.filter(pc.equal(table["status"], DONE)).select(["item", "files", "bytes", "inputs"])
    size = place.sizes("items")
    rows = zip(table["files"], table["bytes"], strict=True)
    whole = [sum(size(name) for name in files.as_py()) == total.as_py() for files, total in rows]
    table = table.filter(pa.array(whole, pa.bool_()))
    at = pc.fill_null(pc.index_in(images["path"], value_set=table["item"]), -1).to_pylist()  # -1: not done
    known = zip(at, items(images, root), strict=True)
    todo = [k < 0 or _replaced(table["inputs"][k].as_py(), item) for k, item in known]
    return images.filter(pa.array(todo, pa.bool_()))


def _replaced(before: list[int] | None, item: Item) -> bool:
    """Whether an image's files are others than those whose stamp is in the ledger, as far as both are known."""
    return bool(before) and item.stamp() not in ([], before)


def _summary(listed: pa.ChunkedArray, table: pa.Table, skipped: int, attempted: int, seconds: float) -> dict[str, Any]:
    import pyarrow.compute as pc

    table = table.filter(pc.is_in(table["item"], value_set=listed))  # the manifest may have been longer once
    bad = table.filter(pc.equal(table["status"], FAILED)).select(["item", "reason"])
    return {
        "items": len(listed),
        "done": table.num_rows - bad.num_rows,
        "failed": bad.num_rows,
        "skipped": skipped,
        "seconds": round(seconds, 3),
        "images_per_second": round(attempted / seconds, 3),
        "failures": bad.slice(0, SHOWN).to_pylist(),
    }
