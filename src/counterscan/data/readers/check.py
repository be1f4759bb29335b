"""The public checker of readers: what every layout's reader promises, tried on a folder. Run it on your own reader as well."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import numpy as np

from counterscan.data.manifest import CONTRAST, FIXED, Record, read, write
from counterscan.data.readers import open_layout
from counterscan.data.readers.source import SEXES, SPLITS, Source


def check_reader(reader: ModuleType | str, folder: str | Path) -> None:
    """Raises ``AssertionError`` naming the first promise that a reader (a module, or a layout's name) breaks on a folder.

    The promises: images, masks and contrasts are files that are there, named by absolute paths; findings and contrasts are
    those of the columns, none of which is another's name; splits and sexes are the manifest's words; a manifest of the
    records reads back the same; opened again, the same records come, and what was taken out of containers is not written
    again; the folder is left as it was, and no global random state is touched.
    ``folder`` is a whole data set in the reader's layout, a small one: its records are held all at once.
    """
    opened = partial(open_layout, reader) if isinstance(reader, str) else reader.open_source
    folder = Path(folder).absolute()
    before, random = _state(folder), repr(np.random.get_state())
    with TemporaryDirectory() as made:
        work, manifest = Path(made) / "work", Path(made) / "manifest.csv"
        source: Source = opened(folder, work)
        columns = [*FIXED, *(CONTRAST + name for name in source.contrasts), *source.findings]
        assert len(columns) == len(set(columns)), f"a column is named twice: {', '.join(columns)}"
        assert not [name for name in source.findings if name.startswith(CONTRAST)], (
            "a finding is named as a contrast is"
        )
        records = list(source.records)
        assert records, "no record"
        for record in records:
            _check_record(record, source)
        taken = _state(work)
        again: Source = opened(folder, work)
        same = (again.findings, again.contrasts) == (source.findings, source.contrasts)
        assert same and list(again.records) == records, "opened again, it gives other records"
        assert taken == _state(work), "opened again, it writes again what it had taken out of containers"
        write(manifest, records, source.findings, source.contrasts)
        for record, row in zip(records, read(manifest), strict=True):
            wanted, found = _said(record, source), _said(row, source)
            assert found == wanted, f"{record.path}: a manifest says {found}, the record {wanted}"
    assert before == _state(folder), "the folder was written into"
    assert random == repr(np.random.get_state()), "numpy's global random state was used"


def _check_record(record: Record, source: Source) -> None:
    for path in (record.path, *filter(None, (record.mask, *record.contrasts.values()))):
        assert Path(path).is_absolute() and Path(path).is_file(), f"{path!r} is not the absolute path of a file"
    unknown = [*(record.findings.keys() - source.findings), *(record.contrasts.keys() - source.contrasts)]
    assert not unknown, f"{record.path}: {', '.join(sorted(unknown))} is no column"
    assert record.split in ("", *SPLITS.values()), f"{record.path}: split {record.split!r}; write train, val or test"
    assert record.sex in ("", *SEXES.values()), f"{record.path}: sex {record.sex!r}; write female or male"


def _said(record: Record, source: Source) -> Record:
    """The record without its files and number, every column's finding in it."""
    findings = dict.fromkeys(source.findings) | record.findings
    return replace(record, path="", mask="", contrasts={}, row=0, findings=findings)


def _state(folder: Path) -> dict[Path, tuple[int, int]]:
    """Sizes and times of all that is under a folder."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}
