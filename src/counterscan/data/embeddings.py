"""Text embeddings computed once and kept in safetensors shards, so that a large text encoder is asked, then put away.

A folder belongs to one model and tokenizer, and each shard names the texts that it holds: another model or another text
never meets an old embedding. Shards are written whole, so filling can be stopped and gone on with.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterscan.errors import DataError, WorkError
from counterscan.types import Condition

if TYPE_CHECKING:
    from torch import Tensor

SHARD = 256  # texts in a file
FIELDS = ("tokens", "pooled", "mask")
Report = Callable[[int, int], None]


class Embeddings:
    """What texts become in a model, on disk below ``folder``; call it with texts for their ``Condition``, on the CPU.

    Values are kept in the type in which the model works: float32 exactly as computed.
    """

    def __init__(self, folder: Path, backbone: Any) -> None:
        self.folder, self.backbone = folder / key(backbone), backbone
        self._where: dict[str, tuple[Path, int]] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            self._note(path)

    def __len__(self) -> int:
        return len(self._where)

    def fill(self, texts: Iterable[str], *, batch: int = 32, report: Report | None = None) -> None:
        """Compute what is missing. ``report(done, total)`` is told after each shard."""
        missing = iter(fresh := [text for text in dict.fromkeys(texts) if text not in self._where])
        done = 0
        while chunk := list(islice(missing, SHARD)):
            rows = [self.backbone.embed(chunk[i : i + batch]) for i in range(0, len(chunk), batch)]
            self._write(chunk, Condition.cat(rows))
            done += len(chunk)
            if report is not None:
                report(done, len(fresh))

    def __call__(self, texts: Sequence[str]) -> Condition:
        """One row a text. ``DataError`` names those that were never computed."""
        unknown = [text for text in dict.fromkeys(texts) if text not in self._where]
        if unknown:
            raise DataError(
                f"{self.folder}: {len(unknown)} texts have no embedding, such as {unknown[0]!r}; fill it first"
            )
        return Condition.cat([self._row(*self._where[text]) for text in texts])

    def _row(self, path: Path, row: int) -> Condition:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            names = set(file.keys())
            rows = {name: file.get_slice(name)[row : row + 1] for name in FIELDS if name in names}
        return Condition(**rows)

    def _write(self, texts: list[str], condition: Condition) -> None:
        from safetensors.torch import save_file

        named = {name: getattr(condition, name) for name in FIELDS}
        tensors = {n: self._kept(t) for n, t in named.items() if t is not None}
        name = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
        path, draft = self.folder / f"{name}.safetensors", self.folder / f".{name}.{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, draft, {"texts": json.dumps(texts)})
            os.replace(draft, path)
        except OSError as error:
            raise WorkError(f"{path}: embeddings cannot be kept ({error.strerror}); make room") from error
        finally:
            draft.unlink(missing_ok=True)
        self._note(path)

    def _kept(self, tensor: Tensor) -> Tensor:
        small = tensor.is_floating_point() and self.backbone.dtype.itemsize < tensor.dtype.itemsize
        return (tensor.to(self.backbone.dtype) if small else tensor).detach().cpu().contiguous()

    def _note(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                texts = json.loads(file.metadata()["texts"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return  # not one of ours, or damaged: its texts are computed again
        self._where |= {text: (path, row) for row, text in enumerate(texts)}


def key(backbone: Any) -> str:
    """16 hex digits that change with the weights, the working type and the tokenizers."""
    digest = hashlib.sha256(f"{backbone.fingerprint} {backbone.dtype}".encode())
    folder = getattr(backbone, "folder", None)
    for path in sorted(folder.glob("tokenizer*/*")) if folder else []:
        if path.is_file():
            digest.update(f"{path.parent.name}/{path.name}:".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
