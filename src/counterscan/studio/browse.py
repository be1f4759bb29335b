"""Data sets and benchmark results below folders that were named at the start. Read only; nothing outside is served."""

from __future__ import annotations

import io
import json
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from counterscan.errors import DataError
from counterscan.studio.views import THUMBNAIL, shrink

ENDINGS = (".csv", ".parquet")
SHOWN = ("path", "patient", "caption", "split", "view", "age", "sex")


def manifests(root: Path | None) -> list[str]:
    """The manifests below a folder: tables with a column ``path``, by their path relative to it."""
    if root is None:
        return []
    found = sorted(p for p in root.rglob("*") if p.suffix in ENDINGS and p.is_file())
    return [str(p.relative_to(root)) for p in found if "path" in _columns(p)]


def rows(root: Path | None, manifest: str, offset: int, limit: int, query: str = "") -> dict[str, Any]:
    """Rows of a manifest that hold the words of ``query``, from ``offset``; each with its number and its findings."""
    import pandas

    table = _search(_table(root, manifest), query)
    numbers = [c for c in table.select_dtypes(["number", "bool"]).columns if c not in SHOWN]
    findings = [c for c in numbers if set(table[c].dropna().unique()) <= {-1, 0, 1}]
    some = []
    for number, row in table.iloc[offset : offset + limit].iterrows():
        facts = {key: str(row[key]) for key in SHOWN if key in table.columns and not pandas.isna(row[key])}
        some.append({"row": number, **facts, "findings": [name for name in findings if row[name] == 1]})
    return {"total": len(table), "rows": some}


def image_of(root: Path | None, manifest: str, row: int) -> Path:
    """The image of a row. It must lie below the folder, wherever the manifest points.

    Raises:
        DataError: there is no such row, or its image lies elsewhere or is absent.
    """
    table = _table(root, manifest)
    if row not in table.index:
        raise DataError(f"{manifest}: has no row {row}")
    return _below(root, manifest, row, str(table.loc[row, "path"]))


def images_of(root: Path | None, manifest: str, query: str, count: int) -> dict[int, Path]:
    """The images of the first ``count`` rows that hold the words of ``query``, by row.

    Raises:
        DataError: no row does, or the image of one lies elsewhere or is absent.
    """
    table = _search(_table(root, manifest), query)
    if table.empty:
        raise DataError(f"{manifest}: no row holds {query!r}")
    return {row: _below(root, manifest, row, str(path)) for row, path in table["path"].iloc[:count].items()}


def benches(root: Path | None) -> list[dict[str, Any]]:
    """What ``counterscan bench`` left below a folder: the rows, and which pictures stand beside them."""
    found = []
    for path in sorted(root.rglob("run.json")) if root else []:
        try:
            run = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)  # NaN is no JSON
        except (OSError, ValueError):
            continue
        if isinstance(run, dict) and run.get("command") == "bench" and isinstance(run.get("result"), dict):
            keys = ("rows", "model", "world", "n", "floor")
            facts = {key: run["result"].get(key) for key in keys}
            some = [*sorted(path.parent.glob("*.png")), *sorted(path.parent.glob("cells/*.png"))]
            pictures = [p.relative_to(path.parent).as_posix() for p in some][:96]
            found.append({"name": str(path.parent.relative_to(root or path)), "pictures": pictures, **facts})
    return found


def picture_of(root: Path | None, bench: int, name: str) -> Path | None:
    """A picture of a benchmark by its name in :func:`benches`."""
    known = benches(root)
    if root is None or not 0 <= bench < len(known) or name not in known[bench]["pictures"]:
        return None
    return root / known[bench]["name"] / name


def examples() -> dict[str, Any]:
    """The radiographs that come with the package: ``items`` and the ``credit`` they are owed."""
    known: dict[str, Any] = json.loads((_examples() / "examples.json").read_text(encoding="utf-8"))
    return known


def example(number: int) -> Path:
    """The file of an example. Raises ``DataError`` when there is none of that number."""
    items = examples()["items"]
    if not 0 <= number < len(items):
        raise DataError(f"no example {number}: there are {len(items)}, from 0")
    return _examples() / str(items[number]["file"])


@lru_cache(maxsize=512)
def thumbnail(path: Path) -> bytes:
    """A small PNG of an image file that the server's own people put there."""
    from counterscan.drawing import as_image
    from counterscan.imaging import read

    buffer = io.BytesIO()
    small = as_image(shrink(read(path).unit(), 2 * THUMBNAIL))
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    small.save(buffer, "PNG")
    return buffer.getvalue()


def _examples() -> Path:
    return Path(str(resources.files("counterscan"))) / "data" / "examples"


def _manifest(root: Path | None, manifest: str) -> Path:
    if root is None or manifest not in manifests(root):
        raise DataError(f"no manifest {manifest!r} below the folder given with --data")
    return root / manifest


def _table(root: Path | None, manifest: str) -> Any:
    import pandas

    path = _manifest(root, manifest)
    try:
        table = pandas.read_parquet(path) if path.suffix == ".parquet" else pandas.read_csv(path)
    except (ValueError, OSError) as error:
        raise DataError(f"{manifest}: cannot be read ({type(error).__name__})") from None
    return table.reset_index(drop=True)


def _search(table: Any, query: str) -> Any:
    for word in query.lower().split():
        text = table.select_dtypes(exclude="number").astype(str)
        table = table[text.apply(lambda column, w=word: column.str.lower().str.contains(w, regex=False)).any(axis=1)]
    return table


def _below(root: Path | None, manifest: str, row: int, name: str) -> Path:
    try:
        path = (_manifest(root, manifest).parent / name).resolve()
        inside = root is not None and path.is_relative_to(root.resolve()) and path.is_file()
    except (OSError, ValueError):  # such as a name with a null byte
        inside = False
    if not inside:
        raise DataError(f"{manifest}: row {row}: path: no file below the folder given with --data")
    return path


def _columns(path: Path) -> list[str]:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            return list(pyarrow.parquet.read_schema(path).names)
        with path.open(encoding="utf-8") as file:
            return [name.strip().strip('"') for name in file.readline(10_000).strip().split(",")]
    except (OSError, ValueError):
        return []
