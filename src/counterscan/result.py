"""``Counterfactual``: the answer to an edit. It draws itself, saves itself and can be loaded again."""

from __future__ import annotations

import base64
import html
import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from counterscan.errors import DataError, ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from counterscan.imaging import Picture
    from counterscan.types import Edit

CENTRE, REACH = 32768, 32767  # a saved difference: 16 bits around CENTRE, REACH = the scale in its note
FORMAT = 1


@dataclass(frozen=True, eq=False, repr=False)
class Counterfactual:
    """A factual image and what it would look like after an edit.

    ``difference`` is signed, counterfactual minus factual, float32 (H, W) in the unit scale of ``Picture.unit`` at
    native size; ``mask`` bool (H, W) is where pixels may differ: outside it the two are equal bit for bit. ``unblended`` is
    the change before its weight of :func:`~counterscan.blending.blend`, of the same shape: unlike ``difference`` it is not cut
    to 0 where the change was too weak to go into the image, and it knows no region. It is not saved.
    ``evaluations`` are network evaluations for this image, ``seconds`` its share of the time, ``fingerprint`` that
    of the model's weights.
    """

    factual: Picture
    counterfactual: Picture
    difference: np.ndarray
    mask: np.ndarray
    edit: Edit
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    model: str = ""
    fingerprint: str = ""
    unblended: np.ndarray | None = None

    def __repr__(self) -> str:
        name = self.factual.path.name if self.factual.path else "image"
        height, width = self.mask.shape
        return (
            f"<Counterfactual {name} {width}x{height}: {self.edit.target!r}, {self.method}, "
            f"{self.mask.mean():.1%} changed, {self.evaluations} evaluations>"
        )

    def _repr_html_(self) -> str:
        facts: dict[str, Any] = {"from": self.edit.source, "to": self.edit.target, "region": self.edit.region or ""}
        facts |= {"method": self.method, "model": self.model, "seed": self.seed, "evaluations": self.evaluations}
        facts |= {"changed": f"{self.mask.mean():.1%} of the image"}
        return as_html(self.figure(), "original, counterfactual, difference, and the difference on the original", facts)

    def figure(self, side: int = 320) -> Image:
        """Four panels ``side`` pixels high: original, counterfactual, signed difference, overlay."""
        from counterscan.drawing import panels

        return panels(self.factual.unit(), self.counterfactual.unit(), self.difference, side=side)

    def save(self, folder: str | Path, stem: str | None = None) -> dict[str, str]:
        """Write everything into ``folder``; returns the file names, relative to it.

        ``image`` is the factual: its file byte for byte where that holds its pixels the way up they are, else written like
        the ``counterfactual``, of the factual's kind (DICOM, NIfTI, ``.npy`` or, for all others, a lossless PNG), and marked
        where it is synthetic itself; ``difference`` a 16-bit PNG (grey 32768 = no change, scale in its note); ``mask`` and
        ``figure`` PNG. A ``{stem}.json`` beside them is what ``load`` reads. After an ``ImageError`` none of them is there.
        """
        from counterscan.imaging import write
        from counterscan.imaging.files import together
        from counterscan.imaging.raster import write_png

        stem = stem or self.factual.stem
        record, region = self._record(), None
        with together(Path(folder)) as draft:
            image, record["slice"] = self._save_factual(draft, stem)
            files = {"image": image, "counterfactual": f"{stem}.counterfactual{self.factual.suffix}"}
            files |= {kind: f"{stem}.{kind}.png" for kind in ("difference", "mask", "figure")}
            write(self.counterfactual, draft / files["counterfactual"], note=self._note())
            _write_difference(self.difference, draft / files["difference"])
            _write_mask(self.mask, draft / files["mask"])
            write_png(np.asarray(self.figure()), draft / files["figure"], {"kind": "figure"} | self._note())
            if self.edit.mask is not None:
                region = f"{stem}.allowed.png"
                _write_mask(self.edit.mask.cpu().numpy().astype(bool), draft / region)
            text = json.dumps({"format": FORMAT, "files": files, "allowed": region, **record}, indent=2) + "\n"
            (draft / f"{stem}.json").write_text(text, encoding="utf-8")
        return files

    @staticmethod
    def load(path: str | Path) -> Counterfactual:
        """Read what ``save`` wrote: its ``.json``, or a folder that holds exactly one."""
        from counterscan.imaging import read

        path = _record_path(Path(path))
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            files, folder = record["files"], path.parent
            low, high = record["window"]  # a reader that estimates the window from the pixels would find two
            factual = read(folder / files["image"], slice_index=record.get("slice"))
            synthetic = factual.synthetic or record.get("synthetic", False)  # not every file has room for the mark
            return Counterfactual(
                factual=replace(factual, low=low, high=high, synthetic=synthetic),
                counterfactual=replace(read(folder / files["counterfactual"]), low=low, high=high, synthetic=True),
                difference=_read_difference(folder / files["difference"]),
                mask=_read_mask(folder / files["mask"]),
                edit=_read_edit(record["edit"], folder / record["allowed"] if record["allowed"] else None),
                **{key: record[key] for key in _PLAIN},
            )
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise DataError(f"{path}: not a saved counterfactual ({type(error).__name__}: {error})") from error

    def _note(self) -> dict[str, Any]:
        """What is written into the counterfactual itself."""
        words = f"{self.edit.source} -> {self.edit.target}"
        return {"method": self.method, "words": words} | {k: getattr(self, k) for k in ("model", "fingerprint", "seed")}

    def _record(self) -> dict[str, Any]:
        request = self.edit
        return {key: getattr(self, key) for key in _PLAIN} | {
            "settings": dict(self.settings),
            "synthetic": self.factual.synthetic,
            "window": [self.factual.low, self.factual.high],
            "edit": {
                "source": request.source,
                "target": request.target,
                "changes": [asdict(change) for change in request.changes],
                "region": request.region,
                "keep": list(request.keep),
                "unkept": request.unkept,
            },
        }

    def _save_factual(self, folder: Path, stem: str) -> tuple[str, int | None]:
        """Copy the factual's file, or write its pixels where they are not the file's; the name, and which slice of it it is."""
        from counterscan.imaging import write

        source = self.factual.path
        if source is None or not _holds(source, self.factual):
            return write(self.factual, folder / f"{stem}.original{self.factual.suffix}", note=None).name, None
        name = f"{stem}.original{source.name[len(self.factual.stem) :] or self.factual.suffix}"
        shutil.copyfile(source, folder / name)
        return name, self.factual.slice_index


def as_html(picture: Image, alt: str, facts: Mapping[str, Any]) -> str:
    """What notebooks show of an answer: one piece of HTML that needs nothing from elsewhere and says that it is synthetic.

    ``facts`` may hold anybody's words: all are escaped, empty ones left out.
    """
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    told = {key: html.escape(str(value)) for key, value in facts.items() if value not in ("", None)}
    lines = " · ".join(f"{html.escape(key)}: {value}" for key, value in told.items())
    return (
        f'<img alt="Synthetic: {html.escape(alt)}" src="data:image/png;base64,{data}" style="max-width:100%">'
        f'<div style="font-size:90%"><b>Synthetic, not for diagnosis.</b> {lines}</div>'
    )


_PLAIN = ("method", "settings", "seed", "evaluations", "seconds", "model", "fingerprint")


def _holds(path: Path, picture: Picture) -> bool:
    """Whether a file is there and its pixels are the picture's, as they lie: not every program turns them as EXIF says."""
    from counterscan.imaging import read

    try:
        found = read(path, slice_index=picture.slice_index)
    except ImageError:
        return False
    return not found.turned and np.array_equal(found.pixels, picture.pixels)


def _record_path(path: Path) -> Path:
    if not path.is_dir():
        return path
    records = [p for p in sorted(path.glob("*.json")) if p.name != "run.json"]
    if len(records) != 1:
        raise DataError(f"{path}: holds {len(records)} records; name the .json of the one to load")
    return records[0]


def _read_edit(record: Mapping[str, Any], allowed: Path | None) -> Edit:
    import torch

    from counterscan.types import Change, Edit

    mask = None if allowed is None else torch.from_numpy(_read_mask(allowed))
    changes = tuple(Change(**change) for change in record["changes"])
    source, target, region, keep = (record[key] for key in ("source", "target", "region", "keep"))
    unkept = record.get("unkept")  # older records have none
    return Edit(source, target, changes, region, mask, tuple(keep), unkept and tuple(unkept))


def _write_difference(difference: np.ndarray, path: Path) -> None:
    from counterscan.imaging.provenance import SOFTWARE
    from counterscan.imaging.raster import save_png

    scale = float(np.abs(difference).max()) or 1.0
    pixels = (np.round(difference.astype(np.float64) / scale * REACH) + CENTRE).astype(np.uint16)
    comment = f"signed difference = (value - {CENTRE}) / {REACH} * scale"
    save_png(pixels, path, {"Software": SOFTWARE, "scale": repr(scale), "Comment": comment})


def _read_difference(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.asarray(image).astype(np.float64)
        try:
            scale = float(image.text["scale"])  # type: ignore[attr-defined]
        except (KeyError, AttributeError) as error:
            raise ImageError(f"{path}: the note that holds its scale is gone; save the counterfactual again") from error
    return ((pixels - CENTRE) / REACH * scale).astype(np.float32)


def _write_mask(mask: np.ndarray, path: Path) -> None:
    from counterscan.imaging.raster import save_png

    save_png(mask.astype(np.uint8) * 255, path, {})


def _read_mask(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.array(image.convert("L")) > 127
