"""What a job does: call the public API, and leave files to download and views to look at in the job's folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import ImageError, WordsError
from counterscan.robustness.opening import judges
from counterscan.studio.views import write_view

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone
    from counterscan.imaging import Picture
    from counterscan.result import Counterfactual
    from counterscan.robustness.opening import Outputs

Original = Callable[[], "Picture"]  # reads the image that is asked about
Report = Callable[[int, int], None]
FLOOR = 0.02  # five grey levels of 256: changes below it are no region


class Models:
    """The models that may be named: the built-in ones, and the one given at the start. Each is opened once."""

    def __init__(self, default: str, *, offline: bool = False) -> None:
        from counterscan.backbones import names

        self.default, self._offline = default, offline
        self.names = list(dict.fromkeys([default, *names()]))
        self._open: dict[str, Backbone] = {}
        self._lock = threading.Lock()

    def get(self, name: str | None) -> Backbone:
        """The model of that name, by default the one given at the start."""
        name = name or self.default
        if name not in self.names:  # never a path from the browser
            raise WordsError(f"no model {name!r} here: known are {', '.join(self.names)}")
        with self._lock:
            if name not in self._open:
                import counterscan

                self._open[name] = counterscan.load(name, offline=self._offline)
            return self._open[name]


@cache
def classifier(name: str) -> Outputs:
    """The built-in classifier of that name."""
    from counterscan.robustness.opening import open_classifier

    if name not in judges():  # never a path or a module from the browser
        raise WordsError(f"no classifier {name!r} here: known are {', '.join(judges())}")
    return open_classifier(name)


def unpack_mask(mask: dict[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A drawn region as bool (H, W) of the image's ``size``, from bits packed row by row at the size it was drawn.

    ``WordsError`` where the bits are not base64, not as many as its size says, or none is set.
    """
    import base64

    width, height = mask["width"], mask["height"]
    try:
        packed = np.frombuffer(base64.b64decode(mask["bits"], validate=True), np.uint8)
    except ValueError as error:
        raise WordsError(f"mask: bits are not base64 ({error})") from None
    if packed.size != -(-width * height // 8):
        raise WordsError(f"mask: {packed.size} bytes for {width}x{height} pixels")
    drawn = np.unpackbits(packed, count=width * height).reshape(height, width).astype(bool)
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, (height, width), strict=True))
    region: NDArray[np.bool_] = drawn[np.ix_(rows, columns)]
    if not region.any():
        raise WordsError("the drawn region is empty: nothing may change; draw the area that may, or clear it")
    return region


def edit(
    original: Original,
    folder: Path,
    backbone: Backbone,
    request: dict[str, Any],
    *,
    count: int,
    strength: float,
    judge: Outputs | None,
    side: int,
    report: Report,
) -> dict[str, Any]:
    """Counterfactuals of one image with ``count`` seeds, at the ``strength`` that the request's method has been given."""
    import counterscan

    picture = original()
    request, seed = _with_mask(request, picture), request["seed"]
    items = []
    for k in range(count):

        def part(done: int, total: int, k: int = k) -> None:
            report(k * total + done, count * total)

        result = counterscan.edit(picture, **(request | {"seed": seed + k}), model=backbone, progress=part)
        stem = f"{picture.stem}.{seed + k}"
        items.append(_edited(result, folder, stem, side) | {"strength": strength} | _judged(result, judge))
    return {"items": items, "model": backbone.card.name}


def _judged(result: Counterfactual, judge: Outputs | None) -> dict[str, Any]:
    """What a classifier says of the image before and after, a pair a label."""
    from counterscan.search import judged

    return {} if judge is None else {"judge": {"name": judge.name, "scores": judged(result, judge)}}


def search(
    original: Original,
    folder: Path,
    backbone: Backbone,
    request: dict[str, Any],
    *,
    until: float | None,
    best_of: int,
    strength: float,
    selector: Outputs | None,
    judge: Outputs | None,
    side: int,
    report: Report,
) -> dict[str, Any]:
    """The weakest edit that convinces the selector, or the best of several seeds, and everything that was tried.

    The request's method has been given the ``strength`` already.
    """
    from counterscan.search import search

    picture = original()
    goal: dict[str, Any] = {"until": until, "best_of": best_of, "selector": selector}
    found = search(picture, model=backbone, progress=report, **goal, **_with_mask(request, picture))
    item = _edited(found.result, folder, f"{picture.stem}.{found.result.seed}", side)
    told = {
        "reached": found.reached,
        "strength": strength * found.strength,
        "guidance": found.result.settings["guidance"],
    }
    told |= {"selector": selector.name if selector else found.result.model}
    told |= {"trials": [asdict(trial) for trial in found.trials]}
    cost = {"evaluations": found.evaluations, "seconds": found.seconds}
    return {"items": [item | told | cost | _judged(found.result, judge)], "model": backbone.card.name}


def _with_mask(request: dict[str, Any], picture: Picture) -> dict[str, Any]:
    """The request with its drawn region, if there is one, at the picture's size."""
    drawn = request.get("mask")
    return request | {"mask": unpack_mask(drawn, picture.pixels.shape[:2])} if drawn else request


def _edited(result: Counterfactual, folder: Path, stem: str, side: int) -> dict[str, Any]:
    from counterscan.attribution.difference import regions, strength
    from counterscan.studio.report import asked, write_report

    files = result.save(folder, stem)
    note = {key: getattr(result, key) for key in ("method", "model", "fingerprint", "seed")}
    note |= {"words": f"{result.edit.source} -> {result.edit.target}"}
    files |= _exports(result.counterfactual, folder, f"{stem}.counterfactual", files["counterfactual"], note)
    view = write_view(result.counterfactual.unit(), folder / f"{stem}.view", side)
    files |= {"view": f"{stem}.view", "record": f"{stem}.json", "report": f"{stem}.report.html"}
    found = regions(strength(result.difference) > FLOOR, result.difference, result.factual.spacing_mm)
    write_report(result, found, folder / files["report"])
    facts = {key: getattr(result, key) for key in ("method", "evaluations", "seconds", "seed", "model", "fingerprint")}
    words = {"source": result.edit.source, "target": result.edit.target}
    changed = float(result.mask.mean())
    shown = {"files": files, "view": view, "regions": list(map(asdict, found)), "changed": changed}
    return shown | {"asked": asked(result.edit)} | facts | words


def _exports(picture: Picture, folder: Path, stem: str, own: str, note: Mapping[str, Any]) -> dict[str, str]:
    """The picture as PNG and as DICOM beside its ``own`` file, which is one of the two where it can be.

    Several contrasts fit into neither: they stay the array that they are.
    """
    from counterscan.imaging import write
    from counterscan.studio.capture import write_capture

    if picture.pixels.shape[2:] not in ((), (3,)):
        return {"array": own}
    names = {"png": own if own.endswith(".png") else f"{stem}.png", "dicom": own}
    if names["png"] != own:
        write(picture, folder / names["png"], note=note)
    if not own.endswith(".dcm"):
        names["dicom"] = write_capture(picture, folder / f"{stem}.dcm", note).name
    return names


def batch(
    paths: Mapping[int, Path], folder: Path, backbone: Backbone, request: dict[str, Any], *, side: int, report: Report
) -> dict[str, Any]:
    """The same edit of images by row; an image that cannot be done is named and costs the others nothing."""
    import counterscan
    from counterscan.imaging import read

    items, failures = [], []
    for k, (row, path) in enumerate(paths.items()):

        def part(done: int, total: int, k: int = k) -> None:
            report(k * total + done, len(paths) * total)

        try:
            result = counterscan.edit(read(path), **request, model=backbone, progress=part)
        except ImageError as error:
            failures.append({"row": row, "error": str(error)})
        else:
            items.append(_edited(result, folder, f"{row}.{path.stem}.{request['seed']}", side) | {"row": row})
    return {"items": items, "failures": failures, "model": backbone.card.name}


def attribute(
    original: Original, folder: Path, backbone: Backbone, request: dict[str, Any], *, side: int, report: Report
) -> dict[str, Any]:
    """Where a finding is. The view of the signed map holds ``map / 2 + 0.5``."""
    import counterscan

    picture = original()
    result = counterscan.attribute(picture, **request, model=backbone, progress=report)
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{picture.stem}.{result.seed}"
    source = picture.path is not None and picture.format == "dicom" and find_spec("highdicom")
    formats = ("png", "dicom-seg") if source and result.present else ("png",)
    files = result.save(folder, stem, formats) | {"view": f"{stem}.map.view", "spread": f"{stem}.spread.view"}
    view = write_view(result.map / 2 + 0.5, folder / files["view"], side)
    write_view(result.spread, folder / files["spread"], side)
    about = {"asked": f"where is {result.finding}", "method": request["method"] or backbone.card.default_method}
    names = ("finding", "present", "threshold", "rate", "uncertainty", "agreement", "evaluations", "seconds", "seed")
    facts = {key: getattr(result, key) for key in names}
    found = [asdict(region) for region in result.regions]
    item = {"files": files, "view": view, "regions": found, "model": result.model, "fingerprint": result.fingerprint}
    return {"items": [item | about | facts], "model": backbone.card.name, "repeats": request["repeats"]}


def generate(folder: Path, backbone: Backbone, request: dict[str, Any], *, side: int, report: Report) -> dict[str, Any]:
    """Images from a prompt."""
    import counterscan
    from counterscan.imaging import write

    pictures = counterscan.generate(**request, model=backbone, progress=report)
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for i, picture in enumerate(pictures):
        seed = request["seed"] + i
        note = {"prompt": request["prompt"], "seed": seed, "model": backbone.card.name}
        note |= {"fingerprint": backbone.fingerprint}
        name = write(picture, folder / f"generated.{seed}{picture.suffix}", note=note).name
        view = write_view(picture.unit(), folder / f"generated.{seed}.view", side)
        files = {"counterfactual": name, "view": f"generated.{seed}.view"}
        files |= _exports(picture, folder, f"generated.{seed}", name, note)
        items.append({"files": files, "view": view, "seed": seed})
    return {"items": items, "model": backbone.card.name, "prompt": request["prompt"]}
