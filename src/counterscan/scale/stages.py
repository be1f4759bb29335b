"""The three stages of an item, as functions of the job and the item alone: ``load``, ``change``, ``finish``.

A failure is a ``Row`` too and passes the later stages untouched. Bad items are never fatal; a full disk is.
"""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from counterscan.errors import CounterscanError, ModelError, WordsError
from counterscan.scale.job import Item, Job
from counterscan.scale.ledger import DONE, FAILED, Row
from counterscan.scale.store import StoreError

if TYPE_CHECKING:
    from torch import Tensor

    from counterscan.backbones.base import Backbone
    from counterscan.imaging import Picture, Placement
    from counterscan.result import Counterfactual

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True, eq=False)
class Loaded:
    """A decoded item: the picture, and as the model takes it, ``square`` (S, S[, 3]) and ``tensor`` (C, S, S).

    ``stamp`` is the item's from before it was read.
    """

    item: Item
    picture: Picture
    square: np.ndarray
    placement: Placement
    tensor: Tensor
    seconds: float
    stamp: list[int]


@dataclass(frozen=True, eq=False)
class Changed:
    """A loaded item and what the model made of it: both tensors (C, S, S) on the CPU."""

    loaded: Loaded
    reconstruction: Tensor
    edited: Tensor
    evaluations: int
    seconds: float


class _Begun(Exception):
    """Raised by :func:`begin` once a method is at work."""


def begin(job: Job, backbone: Backbone) -> None:
    """Start the edit of an empty image, up to the method's first step.

    Raises:
        WordsError, ModelError: the model cannot run this method, or does not know these words: no item would fare better.
    """
    import torch

    def stop(done: int, total: int) -> None:
        raise _Begun

    empty = torch.full((1, backbone.channels, backbone.resolution, backbone.resolution), 0.5, device=backbone.device)
    try:
        job.method(backbone, empty, job.edit, generator=[torch.Generator().manual_seed(job.seed)], progress=stop)
    except (WordsError, ModelError):
        raise
    except Exception:  # it has begun, or an empty image is nothing for it
        return


def load(job: Job, backbone: Backbone, item: Item) -> Loaded | Row:
    """Read an item and fit it to the model."""
    from counterscan.data.contrasts import read, seen_by
    from counterscan.editing import allowed_area, to_tensor
    from counterscan.imaging import fit

    began, stamp = time.perf_counter(), item.stamp()
    try:
        picture = read(seen_by(backbone.card, {"path": item.path, **item.contrasts}).values())
        unit = picture.unit()
        allowed_area(
            job.edit, (unit.shape[0], unit.shape[1])
        )  # refuse what the mask does not fit before it costs anything
        square, placement = fit(unit, backbone.resolution)
        tensor = to_tensor(square, backbone.channels)
    except Exception as error:  # whatever is wrong with this image, the others are still to be done
        return failure(item, error, time.perf_counter() - began)
    return Loaded(item, picture, square, placement, tensor, time.perf_counter() - began, stamp)


def change(job: Job, backbone: Backbone, group: Sequence[Loaded]) -> list[Changed | Row]:
    """Edit up to ``batch_size`` items at once. Where that fails each is tried alone, so that only the guilty one fails."""
    began = time.perf_counter()
    try:
        edited, reconstruction, evaluations = _through_model(job, backbone, group)
    except Exception as error:
        if len(group) == 1:
            return [failure(group[0].item, error, group[0].seconds + time.perf_counter() - began)]
        return [part for one in group for part in change(job, backbone, [one])]
    seconds = (time.perf_counter() - began) / len(group)
    return [
        Changed(one, reconstruction[i], edited[i], evaluations, seconds) for i, one in enumerate(group)
    ]  # rows beyond the group are padding


def _through_model(job: Job, backbone: Backbone, group: Sequence[Loaded]) -> tuple[Tensor, Tensor, int]:
    """The edited and the reconstructed images, and evaluations an image. A short group is filled up with its last item."""
    import torch

    full = [*group, *[group[-1]] * (job.batch_size - len(group))]
    spent = backbone.evaluations
    images = torch.stack([one.tensor for one in full]).to(backbone.device)
    generators = [torch.Generator().manual_seed(one.item.seed(job.seed)) for one in full]
    edited = job.method(backbone, images, job.edit, generator=generators)
    reconstruction = backbone.decode(backbone.encode(images))
    return edited.cpu(), reconstruction.cpu(), (backbone.evaluations - spent) // len(full)


def finish(job: Job, model: str, record: Callable[[Row], None], part: Changed | Row) -> Row:
    """Composite, save and hash an item, and record what became of it."""
    row = part
    if isinstance(part, Changed):
        began = time.perf_counter()
        item, spent = part.loaded.item, part.loaded.seconds + part.seconds
        try:
            result = _counterfactual(job, model, part)
            scores = job.judge.call(result) if job.judge else {}
            files = _save(job, item, result)
        except StoreError:
            raise
        except Exception as error:
            if full := _no_room(error):
                where, todo = full.filename or job.store, "make room and run the same command again"
                raise StoreError(f"{where}: cannot be written ({full.strerror}); {todo}") from error
            row = failure(item, error, spent + time.perf_counter() - began)
        else:
            row = _done(part, result, scores, files, time.perf_counter() - began)
    assert isinstance(row, Row)
    record(row)
    return row


def failure(item: Item, error: BaseException, seconds: float = 0.0) -> Row:
    """The row of an item that could not be done, with the reason in one line."""
    text = str(error) if isinstance(error, CounterscanError | OSError) else f"{type(error).__name__}: {error}"
    return Row(item.id, str(item.path), FAILED, " ".join(text.split()), seconds)


def _counterfactual(job: Job, model: str, part: Changed) -> Counterfactual:
    from counterscan.editing import finished

    one = part.loaded
    images = one.picture, one.square, one.placement, part.reconstruction, part.edited
    facts: dict[str, Any] = {"seed": one.item.seed(job.seed), "evaluations": part.evaluations}
    # no seconds: how long it took is in the ledger, so that the files depend on nothing but item and job
    return finished(*images, job.edit, job.method, model=model, fingerprint=job.fingerprint, **facts)


def _save(job: Job, item: Item, result: Counterfactual) -> dict[str, tuple[str, int]]:
    """Write an item's files aside and put them in the store, the record last. File → (sha256, bytes)."""
    files = {}
    with job.store.draft() as draft:
        names = [*result.save(draft, item.stem).values()]
        names += sorted(path.name for path in draft.iterdir() if path.name not in names)  # the record
        for name in names:
            with (draft / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            files[f"{item.place}/{name}"] = digest, (draft / name).stat().st_size
            job.store.put(draft / name, f"{item.place}/{name}")
    return files


def _done(
    part: Changed,
    result: Counterfactual,
    scores: Mapping[str, tuple[float, float]],
    files: Mapping[str, tuple[str, int]],
    writing: float,
) -> Row:
    one = part.loaded
    size = np.abs(result.difference[result.mask]) if result.mask.any() else np.zeros(1, np.float32)
    return Row(
        one.item.id,
        str(one.item.path),
        DONE,
        seconds=one.seconds + part.seconds + writing,
        reading=one.seconds,
        model=part.seconds,
        writing=writing,
        seed=result.seed,
        evaluations=part.evaluations,
        changed=float(result.mask.mean()),
        mean_change=float(size.mean()),
        largest_change=float(size.max()),
        judged=list(scores),
        before=[before for before, _ in scores.values()],
        after=[after for _, after in scores.values()],
        files=list(files),
        sha256=[digest for digest, _ in files.values()],
        bytes=sum(size for _, size in files.values()),
        inputs=one.stamp,
    )


def _no_room(error: BaseException | None) -> OSError | None:
    """What says that nothing can be written, in an error or its causes: no other item would fare better."""
    while error is not None and not (isinstance(error, OSError) and error.errno in NO_ROOM):
        error = error.__cause__
    return error
