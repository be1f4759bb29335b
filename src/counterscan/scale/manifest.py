"""The columns of a manifest that name files of images: CSV, Parquet or JSON lines."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from counterscan.data.manifest import CONTRAST
from counterscan.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 5
NO_PATH = "{}: has no column 'path'; a manifest names its images in one, relative to its own folder or absolute"


def read_images(manifest: Path) -> pa.Table:
    """``path`` and the columns ``path_*`` of other contrasts as written, each path once, in order.

    ``DataError`` names the file and every row without a path.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = _table(manifest)
    if "path" not in table.column_names:
        raise DataError(NO_PATH.format(manifest))
    names = ["path", *filter(_contrast, table.column_names)]
    table = pa.table({name: pc.utf8_trim_whitespace(table[name].cast(pa.string())) for name in names})
    paths = table["path"].combine_chunks()
    empty = pc.fill_null(pc.equal(paths, ""), True)
    if pc.any(empty).as_py():
        rows = [i + 1 for i, bad in enumerate(empty.to_pylist()) if bad]
        shown = ", ".join(map(str, rows[:SHOWN])) + (" and more" if len(rows) > SHOWN else "")
        raise DataError(f"{manifest}: {len(rows)} rows have an empty 'path' (rows {shown}); fill or remove them")
    return table.take(pc.index_in(paths.unique(), value_set=paths))  # the first row of each


def _contrast(name: str) -> bool:
    return name.startswith(CONTRAST)


def _table(manifest: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet as pq

    try:
        if manifest.suffix == ".parquet":
            return pq.read_table(manifest)
        if manifest.suffix in (".jsonl", ".ndjson"):
            return pa.json.read_json(manifest)
        if manifest.suffix in (".csv", ".tsv"):
            delimiter = "\t" if manifest.suffix == ".tsv" else ","
            with manifest.open(newline="", encoding="utf-8-sig") as file:
                header = next(csv.reader(file, delimiter=delimiter), [])
            names = ["path", *filter(_contrast, header)]
            text = pa.csv.ConvertOptions(
                include_columns=names, column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            )
            parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
            return pa.csv.read_csv(manifest, parse_options=parse, convert_options=text)
    except FileNotFoundError:
        raise DataError(f"{manifest}: no such file") from None
    except KeyError:  # the CSV reader's way to say so
        raise DataError(NO_PATH.format(manifest)) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{manifest}: not a readable manifest ({' '.join(str(error).split())[:200]})") from error
    raise DataError(f"{manifest}: a manifest is a .csv, .tsv, .parquet or .jsonl file with a column 'path'")
