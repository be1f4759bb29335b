"""What is evaluated: the images of a manifest or of a folder, one by one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from counterscan.errors import DataError
from counterscan.imaging.picture import ENDINGS

IMAGES = tuple(ending for ending in ENDINGS if ending not in (".tiff", ".tif", ".bmp", ".webp"))


@dataclass(frozen=True)
class Item:
    """One image. ``name`` is its path as it was given; ``patient`` is the name where nobody is known.

    ``contrasts`` are the files of its other contrasts, by column.
    """

    path: Path
    name: str
    patient: str
    caption: str = ""
    mask: Path | None = None
    findings: dict[str, int | None] = field(default_factory=dict)
    contrasts: dict[str, Path] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, Path]:
        """All files of the image by column, ``path`` first."""
        return {"path": self.path, **self.contrasts}


def items(source: Path, split: str | None = None) -> Iterator[Item]:
    """The images of a manifest (those of ``split`` where it is named), or all of a folder and its folders, by name.

    An image of several rows, one a caption, comes once, as the first of them. Images of a folder that ``counterscan generate``
    wrote have its prompt as caption.

    Raises:
        DataError: nothing there; or, at the end, every bad row of the manifest.
    """
    if source.is_dir():
        if split is not None:
            raise DataError(f"{source}: is a folder, which has no split {split!r}; name a manifest")
        return _folder(source)
    return _manifest(source, split)


def identity(source: Path, split: str | None = None) -> tuple[int, str]:
    """How many images there are, and 16 hex digits that change with their names, sizes and dates, and those of
    their masks.

    Raises:
        DataError: there is none.
    """
    count, digest = 0, hashlib.sha256()
    for item in items(source, split):
        count += 1
        digest.update(repr((item.name, item.patient, item.caption, str(item.mask), item.findings)).encode())
        for path in filter(Path.is_file, (*item.files.values(), *([item.mask] if item.mask else []))):
            facts = path.stat()
            digest.update(f"{facts.st_size} {facts.st_mtime_ns}".encode())
    if not count:
        raise DataError(f"{source}: holds no image{'' if split is None else f' of the split {split!r}'} to evaluate")
    return count, digest.hexdigest()[:16]


def _folder(folder: Path) -> Iterator[Item]:
    captions: dict[Path, str] = {}
    for path in sorted(folder.rglob("*")):
        if not path.name.lower().endswith(IMAGES) or hidden(path, folder) or not path.is_file():
            continue
        if path.parent not in captions:
            captions[path.parent] = _prompt(path.parent)
        name = path.relative_to(folder).as_posix()
        yield Item(path, name, name, captions[path.parent])


def hidden(path: Path, folder: Path) -> bool:
    """Whether a path below a folder is a draft, or in a folder of drafts that a killed run left."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _prompt(folder: Path) -> str:
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return str(run["settings"]["prompt"]) if run["command"] == "generate" else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _manifest(manifest: Path, split: str | None) -> Iterator[Item]:
    from counterscan.data.manifest import CONTRAST, read, resolve

    seen: set[int] = set()
    for record in read(manifest):
        if split is None or record.split == split:
            mask = resolve(manifest, record.mask) if record.mask else None
            path, patient = resolve(manifest, record.path), record.patient or record.path
            others = {CONTRAST + name: resolve(manifest, other) for name, other in record.contrasts.items()}
            item = Item(path, record.path, patient, record.caption, mask, record.findings, others)
            if (files := hash(tuple(item.files.values()))) not in seen:
                seen.add(files)
                yield item
