"""What a batch run does, and to what: a ``Job`` and its ``Item``s. Everything random about a result hangs on these two."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterscan.data.contrasts import files_of
from counterscan.errors import DataError, WordsError
from counterscan.imaging.picture import stem
from counterscan.scale.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

    from counterscan.methods import Method
    from counterscan.result import Counterfactual
    from counterscan.types import Edit

FILE = "job.json"
LONGEST_STEM = 80  # bytes
ROWS = 1024  # of the manifest that are Python objects at once


@dataclass(frozen=True)
class Item:
    """One image of a manifest: ``id`` is its path as the manifest writes it, ``path`` where it lies.

    ``contrasts`` are the files of its other contrasts, by column.
    """

    id: str
    path: Path
    contrasts: Mapping[str, Path] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """16 hex digits of the id: what tells equal file names apart."""
        return hashlib.blake2b(self.id.encode(), digest_size=8).hexdigest()

    @property
    def stem(self) -> str:
        """What the names of its outputs start with."""
        return f"{stem(self.path).encode()[:LONGEST_STEM].decode(errors='ignore')}-{self.key}"

    @property
    def place(self) -> str:
        """The folder of its outputs, one of 4096, relative to the job's store."""
        return f"items/{self.key[:3]}"

    def stamp(self) -> list[int]:
        """Bytes and time of change (nanoseconds since 1970) of each of its files in turn; empty where one is not there."""
        try:
            facts = [path.stat() for path in (self.path, *self.contrasts.values())]
        except (OSError, ValueError):
            return []
        return [number for one in facts for number in (one.st_size, one.st_mtime_ns)]

    def seed(self, seed: int) -> int:
        """Its own seed, 0 to 2**32 - 1: of the id and the run's ``seed``, so never of neighbours, order or workers."""
        return int.from_bytes(hashlib.blake2b(f"{seed} {self.id}".encode(), digest_size=4).digest())


@dataclass(frozen=True)
class Judge:
    """Who scores results: ``call`` tells what it thinks of each edited finding before and after; ``fingerprint`` who it is."""

    fingerprint: str
    call: Callable[[Counterfactual], Mapping[str, tuple[float, float]]]


@dataclass(frozen=True)
class Job:
    """One edit for all items. ``model`` is what ``counterscan.load`` takes, ``fingerprint`` that of its weights.

    ``batch_size`` images go through the model at once, always exactly so many, on ``threads`` threads a copy of the model
    wherever that is: the last bits of float sums depend on both.
    """

    edit: Edit
    method: Method
    model: str
    fingerprint: str
    store: Store
    device: str = "cpu"
    seed: int = 0
    batch_size: int = 4
    threads: int = 1
    offline: bool = False
    judge: Judge | None = None

    def identity(self) -> dict[str, Any]:
        """All that a result and its row depend on besides its item, as JSON values."""
        mask = self.edit.mask
        return {
            "source": self.edit.source,
            "target": self.edit.target,
            "region": self.edit.region,
            "keep": list(self.edit.keep),
            "mask": None if mask is None else hashlib.sha256(mask.cpu().numpy().tobytes()).hexdigest(),
            "method": self.method.name,
            "settings": asdict(self.method),  # type: ignore[call-overload]
            "model": self.fingerprint,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "device": self.device.partition(":")[0],
            "judge": None if self.judge is None else self.judge.fingerprint,
        }

    def claim(self) -> None:
        """Mark the store as this job's. ``WordsError`` where another job's results lie: the two would mix."""
        mine = json.loads(json.dumps(self.identity(), default=str))
        try:
            theirs = json.loads(self.store.read(FILE))
        except FileNotFoundError:
            with self.store.draft() as draft:
                (draft / FILE).write_text(json.dumps(mine, indent=2) + "\n", encoding="utf-8")
                self.store.put(draft / FILE, FILE)
            return
        except ValueError as error:
            raise DataError(f"{self.store}/{FILE}: damaged ({error}); name another folder after -o") from error
        different = [key for key in mine if theirs.get(key) != mine[key]]
        if different:
            raise WordsError(
                f"{self.store}: holds the results of another job (its {' and '.join(different)} differ); "
                "name another folder after -o"
            )


def items(images: pa.Table, root: Path) -> Iterator[Item]:
    """Items one by one from a table of :func:`~counterscan.scale.manifest.read_images`, relative ones under ``root``."""
    for part in images.to_batches(max_chunksize=ROWS):
        for row in part.to_pylist():
            files = files_of(row, root)
            yield Item(row["path"], files.pop("path"), files)
