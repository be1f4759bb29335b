"""The columns of a manifest that name files of images: CSV, Parquet or JSON lines."""

from __future__ import annotations

import csv
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from counterscan.data.manifest import CONTRAST, columns
from counterscan.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


class Unusable(NamedTuple):
    """A row (1-based, the header not counted) that names no image, and what is wrong with it."""

    row: int
    reason: str


def read_images(manifest: Path) -> tuple[pa.Table, list[Unusable]]:
    """``path`` and the columns ``path_*`` of other contrasts as written, each path once, in order; and the rows without one, or
    with more or fewer fields than the header.

    ``DataError`` where the file is no manifest or has no row.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table, torn = _table(manifest)
    table = table.rename_columns(columns(table.column_names, manifest))
    if not table.num_rows and not torn:
        raise DataError(f"{manifest}: lists no image")
    names = ["path", *filter(_contrast, table.column_names)]
    table = pa.table({name: pc.utf8_trim_whitespace(table[name].cast(pa.string())) for name in names})
    empty = pc.fill_null(pc.equal(table["path"], ""), True)
    skipped = {bad.row for bad in torn}
    numbers = (n for n in count(1) if n not in skipped)  # those of the rows that were read
    pathless = [
        Unusable(n, "its path is empty; name an image")
        for n, bad in zip(numbers, empty.to_pylist(), strict=False)
        if bad
    ]
    table = table.filter(pc.invert(empty))
    paths = table["path"].combine_chunks()
    return table.take(pc.index_in(paths.unique(), value_set=paths)), sorted(torn + pathless)  # the first row of each


def _contrast(name: str) -> bool:
    return name.startswith(CONTRAST)


def _table(manifest: Path) -> tuple[pa.Table, list[Unusable]]:
    """The table, and the rows of another number of fields, which are not in it."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet as pq

    try:
        if manifest.suffix == ".parquet":
            return pq.read_table(manifest), []
        if manifest.suffix in (".jsonl", ".ndjson"):
            return pa.json.read_json(manifest), []
        if manifest.suffix in (".csv", ".tsv"):
            delimiter = "\t" if manifest.suffix == ".tsv" else ","
            with manifest.open(newline="", encoding="utf-8-sig") as file:
                header = next(csv.reader(file, delimiter=delimiter), [])
            known = zip(header, columns(header, manifest), strict=True)
            names = [written for written, name in known if name == "path" or _contrast(name)]
            text = pa.csv.ConvertOptions(
                include_columns=names, column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            )
            torn: list[Unusable] = []

            def skip(row: Any) -> str:
                reason = f"has {row.actual_columns} fields, the header {row.expected_columns}; quote a field with a {delimiter!r}"
                torn.append(Unusable(row.number - 1, reason))
                return "skip"

            parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip)
            alone = pa.csv.ReadOptions(use_threads=False)  # several threads do not know the rows' numbers
            return pa.csv.read_csv(manifest, alone, parse, text), torn
    except FileNotFoundError:
        raise DataError(f"{manifest}: no such file") from None
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise DataError(f"{manifest}: not a readable manifest ({' '.join(str(error).split())[:200]})") from error
    raise DataError(f"{manifest}: a manifest is a .csv, .tsv, .parquet or .jsonl file with a column 'path'")
