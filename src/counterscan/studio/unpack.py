"""A zip of DICOM files is unpacked, and its headers are read, in a process of its own with limits on memory and time.

``python -m counterscan.studio.unpack ZIP FOLDER FILES FILE_BYTES ALL_BYTES PIXELS BYTES SECONDS`` prints one JSON object:
``instances`` in the order of the series, and what was ``passed_over``; or ``error``.

Files are unpacked under numbers: no name that stands in a zip ever becomes a path. What counts are the bytes that come out,
not those that the zip says will.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from counterscan.errors import ImageError
from counterscan.studio.decode import answer, apart
from counterscan.studio.limits import Limits
from counterscan.studio.sessions import clean

START = 132  # bytes: the preamble, then "DICM"
TAGS = [
    "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "InstanceNumber", "ImagePositionPatient",
    "ImageOrientationPatient", "Rows", "Columns", "NumberOfFrames",
]  # fmt: skip
TOLD = 20  # files passed over that are named


def unpack(source: Path, folder: Path, name: str, limits: Limits) -> dict[str, Any]:
    """Unpack a zip into a folder; returns ``instances`` and ``passed_over``, as in :func:`series_of`.

    Raises:
        ImageError: no zip, one that is too large or holds too many files, or none that can be edited.
    """
    room = (limits.instances, limits.upload_bytes, limits.unpacked_bytes, limits.pixels)
    return apart("unpack", name, limits, source, folder, name, *room)


def series_of(source: Path, folder: Path, name: str, files: int, each: int, total: int, pixels: int) -> dict[str, Any]:
    """The images of a zip: by series, then by place along it, else by instance number.

    Each instance has the ``file`` it was unpacked to, its ``name``, ``series`` in words, ``number``, ``width`` and ``height``.
    """
    found: list[dict[str, Any]] = []
    passed_over = []
    for path, inside, wrong in _unpacked(source, folder, name, files, each, total):
        try:
            if wrong:
                raise ImageError(wrong)
            found.append({"file": path.name, "name": inside, **_header(path, pixels)})
        except ImageError as error:
            path.unlink(missing_ok=True)
            passed_over.append({"name": inside, "why": str(error)})
    if not found:
        why = f": {passed_over[0]['name']} {passed_over[0]['why']}" if passed_over else ""
        raise ImageError(f"{name}: holds no DICOM image that can be edited{why}")
    placed = all(one["place"] is not None for one in found)
    found.sort(key=lambda one: (one["order"], one["place"] if placed else 0, one["number"], one["name"]))
    told = [{key: value for key, value in one.items() if key not in ("order", "place")} for one in found]
    return {"instances": told, "passed_over": passed_over[:TOLD], "passed_over_count": len(passed_over)}


def _unpacked(
    source: Path, folder: Path, name: str, files: int, each: int, total: int
) -> Iterator[tuple[Path, str, str]]:
    """The path, name and fault (or "") of every file of a zip, unpacked one by one."""
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError, ValueError):
        raise ImageError(f"{name}: is no readable zip; pack the DICOM files of the series into one") from None
    with archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        if len(infos) > files:
            raise ImageError(f"{name}: holds {len(infos)} files, more than {files}; pack one series at a time")
        for k, info in enumerate(infos):
            path = folder / f"{k:05d}"
            wrong = _write(archive, info, path, min(each, total))
            total -= path.stat().st_size if path.exists() else 0
            if total <= 0:
                raise ImageError(f"{name}: too much comes out of it; pack one series at a time")
            yield path, clean(info.filename), wrong


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, most: int) -> str:
    """Unpack one DICOM file, as far as ``most`` bytes; what is wrong with it, or ""."""
    if info.flag_bits & 1:
        return "is encrypted"
    try:
        with archive.open(info) as packed:
            chunk = packed.read(START)
            if chunk[START - 4 :] != b"DICM":
                return "is no DICOM file"
            with path.open("wb") as file:
                while chunk:
                    file.write(chunk)
                    if file.tell() > most:
                        return "is too large"
                    chunk = packed.read(2**20)
    except Exception as error:  # zlib's, lzma's and bz2's own, and what zipfile says of damage
        return f"is damaged ({type(error).__name__})"
    return ""


def _header(path: Path, pixels: int) -> dict[str, Any]:
    """What orders and names an instance, and its size. Raises ``ImageError`` for a file that is no single image."""
    import pydicom

    try:
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
        if "Rows" not in data or "Columns" not in data:
            raise ImageError("holds no image")
        frames, width, height = int(data.get("NumberOfFrames") or 1), int(data.Columns), int(data.Rows)
        uid, number = str(data.get("SeriesInstanceUID") or ""), int(data.get("SeriesNumber") or 0)
        words = " ".join(str(data.get(tag) or "") for tag in ("SeriesNumber", "Modality", "SeriesDescription"))
        shown = "".join(c for c in words if c.isprintable()).strip()[:80]
        known = {"series": shown, "number": int(data.get("InstanceNumber") or 0), "width": width, "height": height}
        known |= {"order": (number, uid), "place": _place(data)}
    except ImageError:
        raise
    except Exception as error:  # pydicom raises many kinds for damaged values
        raise ImageError(f"is damaged ({type(error).__name__})") from None
    if frames > 1:
        raise ImageError(f"has {frames} frames; export the one to edit as a file of its own")
    if width * height > pixels:
        raise ImageError("has too many pixels")
    return known


def _place(data: Any) -> float | None:
    """Where a slice lies along the normal of its plane, in mm; ``None`` where the header does not say."""
    across, at = data.get("ImageOrientationPatient"), data.get("ImagePositionPatient")
    if not across or not at or len(across) != 6 or len(at) != 3:
        return None
    a, b = [float(x) for x in across[:3]], [float(x) for x in across[3:]]
    normal = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    return sum(n * float(x) for n, x in zip(normal, at, strict=True))


def main(arguments: list[str]) -> None:
    """Unpack as the arguments say; the answer goes to stdout."""
    source, folder, name, files, each, total, pixels, *numbers = arguments
    room = (int(files), int(each), int(total), int(pixels))
    answer(name, lambda: series_of(Path(source), Path(folder), name, *room), *numbers)


if __name__ == "__main__":
    main(sys.argv[1:])
