"""Kvasir-SEG: ``images/*.jpg`` with a polyp each and ``masks/*.jpg`` of the same names (Jha et al., 2020)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from counterscan.data.manifest import Record
from counterscan.data.readers.source import Source, images


def open_source(source: Path, work: Path) -> Source:
    """Every image has a polyp; a mask that is not there is left for ``data check`` to say. No splits are published."""
    return Source(("polyp",), _records(source, images(source / "images")))


def _records(source: Path, paths: list[Path]) -> Iterator[Record]:
    for path in paths:
        yield Record(str(path), mask=str(source / "masks" / path.name), findings={"polyp": 1})
