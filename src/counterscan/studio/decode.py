"""Uploads are decoded in a process of their own, with limits on memory and time: a file that crashes or fills it costs
only itself.

``python -m counterscan.studio.decode FILE VIEW PIXELS SIDE SLICE BYTES SECONDS`` prints one JSON object: facts, or ``error``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from counterscan.errors import CounterscanError, ImageError
from counterscan.studio.limits import Limits


def decode(path: Path, view: Path, limits: Limits, slice_index: int | None = None) -> dict[str, Any]:
    """Read an uploaded file, or one slice of it, in a child process and write its view; returns what the page shows about it.

    Raises:
        ImageError: the file cannot be read, has too many pixels, or took too much memory or time.
    """
    which = "" if slice_index is None else slice_index
    return apart("decode", path.name, limits, path, view, limits.pixels, limits.view_side, which)


def apart(module: str, name: str, limits: Limits, *words: object) -> dict[str, Any]:
    """Run a module of the studio in a child process with limits on memory and time; its answer. ``name`` is the upload's.

    Raises:
        ImageError: what the child said was wrong, or that it did not live to say it.
    """
    numbers = (limits.decode_bytes, int(limits.decode_seconds))
    command = [sys.executable, "-m", f"counterscan.studio.{module}", *map(str, (*words, *numbers))]
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        child = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=limits.decode_seconds * 2,
            env={**os.environ, **threads}, check=False,
        )  # fmt: skip
        facts: dict[str, Any] = json.loads(child.stdout)
    except subprocess.TimeoutExpired:
        raise ImageError(f"{name}: took too long to read; save it again as PNG or plain DICOM") from None
    except ValueError:  # it died before it could say anything
        raise ImageError(f"{name}: damaged, or needs too much memory to read") from None
    if "error" in facts:
        raise ImageError(facts["error"])
    return facts


def answer(name: str, work: Callable[[], dict[str, Any]], memory: str, seconds: str) -> None:
    """The child's side: limit itself, do the work, and print its answer or what is wrong as one JSON object."""
    _limit(int(memory), int(seconds))
    warnings.simplefilter("ignore")
    try:
        facts = work()
    except CounterscanError as error:
        facts = {"error": str(error)}
    except MemoryError:
        facts = {"error": f"{name}: needs too much memory to read"}
    except Exception as error:
        facts = {"error": f"{name}: damaged ({type(error).__name__})"}
    sys.stdout.write(json.dumps(facts))


def _limit(memory: int, seconds: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows; the time limit of the parent still holds
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _facts(path: Path, view: Path, most: int, side: int, slice_index: int | None) -> dict[str, Any]:
    from PIL import Image

    from counterscan.imaging import picture as limits
    from counterscan.imaging import read
    from counterscan.studio.views import write_view

    Image.MAX_IMAGE_PIXELS = None  # our own limit is lower, and its message says the sizes
    limits.LARGEST = min(limits.LARGEST, most)  # checked by the readers before they decode
    picture = read(path, slice_index=slice_index)
    height, width = picture.pixels.shape[:2]
    return {
        "width": width,
        "height": height,
        "channels": picture.pixels.shape[2] if picture.pixels.ndim == 3 else 1,
        "bits": picture.bits,
        "format": picture.format,
        "spacing_mm": picture.spacing_mm,
        "slice": picture.slice_index,
        "synthetic": _says_synthetic(path, picture.header),
        "view": write_view(picture.unit(), view, side),
    }


def _says_synthetic(path: Path, header: Any) -> bool:
    """Whether the file itself says that it was made by software, as all files do that we write."""
    from PIL import Image

    if getattr(header, "SyntheticData", "") == "YES":
        return True
    try:
        with Image.open(path) as image:
            return image.info.get("Synthetic") == "yes"
    except OSError:  # no PNG
        return False


def main(arguments: list[str]) -> None:
    """Decode as the arguments say; the answer goes to stdout."""
    path, view, most, side, which, *numbers = arguments
    index = int(which) if which else None
    answer(Path(path).name, lambda: _facts(Path(path), Path(view), int(most), int(side), index), *numbers)


if __name__ == "__main__":
    main(sys.argv[1:])
