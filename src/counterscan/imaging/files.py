"""Files that are either whole or absent, and what tells one from another."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from counterscan.errors import ImageError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name in ``path``'s folder to write to; renamed to ``path`` at the end, removed after an error.

    Raises:
        ImageError: the folder is absent, full or read-only.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield draft
        os.replace(draft, path)
    except OSError as error:
        raise ImageError(f"{path.name}: cannot be written ({error.strerror or type(error).__name__})") from error
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def together(folder: Path) -> Iterator[Path]:
    """A temporary folder in ``folder``, which is made, for files that belong together: at the end all of them move out of it,
    the ``.json`` that tells of the others last; after an error none.

    Raises:
        ImageError: the folder or one of the files cannot be written.
    """
    moved: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".", ignore_cleanup_errors=True) as name:
            yield Path(name)
            for file in sorted(Path(name).iterdir(), key=lambda file: (file.suffix == ".json", file.name)):
                os.replace(file, folder / file.name)
                moved.append(folder / file.name)
    except OSError as error:
        for path in moved:
            path.unlink(missing_ok=True)
        raise ImageError(f"{folder}: cannot be written ({error.strerror or type(error).__name__})") from error


def is_dicom(path: Path, start: bytes | None = None) -> bool:
    """Whether a file is DICOM, by its first bytes or its ending; ``start``: its first 132 bytes, where they have been read."""
    if start is None:
        with path.open("rb") as file:
            start = file.read(132)
    return start[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")


def digest(path: Path) -> str:
    """16 hex digits that change with what is in a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
