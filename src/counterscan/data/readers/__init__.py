"""One reader a public layout: each turns a downloaded folder into the rows of a manifest."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from counterscan.data.readers.source import Source
from counterscan.errors import DataError, WordsError

LAYOUTS = (
    "brats",
    "captions",
    "chexpert",
    "covid-radiography",
    "dicom",
    "huggingface",
    "hyperkvasir",
    "kvasir-seg",
    "medvqa-gi",
    "metadata",
    "mimic-cxr-jpg",
    "nih-cxr14",
    "padchest",
    "rocov2",
)
"""Each the name of its module, with ``_`` for ``-``."""


def open_layout(layout: str, source: str | Path, work: str | Path) -> Source:
    """The rows of a data set in a public layout. ``work`` receives images that have to be taken out of containers.

    Raises:
        WordsError: no such layout.
        DataError: the folder is absent or not in the layout; the message names the file that is missed.
    """
    if layout not in LAYOUTS:
        raise WordsError(f"no layout {layout!r}: known are {', '.join(LAYOUTS)}")
    source = Path(source).absolute()
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; name the data set's top folder")
    reader = import_module(f"counterscan.data.readers.{layout.replace('-', '_')}")
    found: Source = reader.open_source(source, Path(work).absolute())
    return found


def describe() -> dict[str, str]:
    """Every layout with the sentence that its reader opens with: what it is and who published it."""
    modules = {layout: import_module(f"counterscan.data.readers.{layout.replace('-', '_')}") for layout in LAYOUTS}
    return {layout: " ".join((module.__doc__ or "").split("\n\n")[0].split()) for layout, module in modules.items()}
