r"""Pairs from masks and symmetry: what is outlined on one side gives way to the tissue of the other side.

    python -m counterscan.training.mirror MANIFEST --finding tumour --kinds "glioma, meningioma" \
        --template "brain MRI" -o PAIRS

For data without healthy images, of what is nearly its own mirror image: brains in axial and coronal slices. The image WITH the
finding is real, and is the target that addition learns (``data.before: before`` in a training config). An image is used where
its mirrored self, turned and shifted to fit, is like it outside of the outline (correlation at least ``LIKE``), and where the
outline does not meet its own reflection. ``PAIRS/manifest.csv`` has all rows of the manifest and, of the split ``train``, those
of the pairs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from counterscan.data import manifest as manifests
from counterscan.data.manifest import Record, located
from counterscan.errors import DataError, ImageError
from counterscan.imaging.files import replacing
from counterscan.language.captions import mentions
from counterscan.language.phrase import phrase, prompt
from counterscan.training.paste import BEFORE, blended, outline_of

Array = NDArray[np.float32]
LIKE = 0.7
DARK = 0.08  # brightness below which there is no head
COARSE = 4  # pixels of the image a pixel of the search for the midline
TURNS = np.arange(-16.0, 17.0, 2.0)  # degrees
SHIFTS = np.arange(-5.0, 5.5, 1.0)  # coarse pixels
ROOM = 6 / 256  # of the image: how far beyond the outline tissue is replaced
SEPARATOR = " || "


def reflected(image: Array, turn: float, middle: float) -> Array:
    """``image`` (H, W) seen in a mirror along the line through column ``middle`` at half its height, ``turn`` degrees from
    upright.
    """
    double = 2 * np.deg2rad(turn)
    mirror = np.array([[np.cos(double), np.sin(double)], [np.sin(double), -np.cos(double)]])
    centre = np.array([(image.shape[0] - 1) / 2, middle])
    return ndimage.affine_transform(image, mirror, centre - mirror @ centre, order=1).astype(np.float32)


def midline(image: Array, mask: NDArray[np.bool_]) -> tuple[float, float, float]:
    """How like its reflection ``image`` (H, W) is outside of ``mask`` and the mask's reflection: the best correlation, and
    the turn and middle of that mirror.
    """
    coarse = ndimage.zoom(ndimage.gaussian_filter(image, COARSE / 2), 1 / COARSE, order=1)
    hidden = ndimage.zoom(ndimage.binary_dilation(mask, iterations=6).astype(np.float32), 1 / COARSE, order=1)
    head = coarse > DARK
    best = (-1.0, 0.0, (image.shape[1] - 1) / 2)
    if not head.any():
        return best
    centre = ndimage.center_of_mass(head)[1]
    for turn in TURNS:
        for middle in centre + SHIFTS:
            other, also = (reflected(part, turn, middle) for part in (coarse, hidden))
            seen = (head | (other > DARK)) & (hidden < 0.3) & (also < 0.3)
            like = np.corrcoef(coarse[seen], other[seen])[0, 1] if seen.sum() > 50 else -1.0
            if like > best[0]:
                best = (float(like), float(turn), float(middle * COARSE + (COARSE - 1) / 2))
    return best


def healthy(image: Array, mask: NDArray[np.bool_]) -> Array | None:
    """``image`` (H, W, C) with the tissue of the other side where ``mask`` is; ``None`` where the sides are too unlike, or the
    outline reaches its own reflection.
    """
    if not mask.any():
        return None
    like, turn, middle = midline(image.mean(2), mask)
    room = max(round(ROOM * min(mask.shape)), 1)
    grown = ndimage.binary_dilation(mask, iterations=room)
    if like < LIKE or (grown & (reflected(mask.astype(np.float32), turn, middle) > 0.5)).any():
        return None
    alpha = ndimage.gaussian_filter(grown.astype(np.float32), room / 2)
    other = np.stack([reflected(plane, turn, middle) for plane in np.moveaxis(image, 2, 0)], 2)
    return blended(image, other, alpha, 2 * room)


def told(record: Record, template: str) -> str:
    """The wordings of a record's caption, and the terse one that edits use."""
    facts = [m for m in mentions(record.caption, tuple(record.findings)) if m.present]
    words = [phrase(m.finding, side=m.side, place=m.place, severity=m.severity) for m in facts]
    terse = prompt(words, template=template)
    return SEPARATOR.join(dict.fromkeys([record.caption, terse] if facts else [record.caption]))


def denied(record: Record, names: Iterable[str], template: str) -> str:
    """Wordings that deny what the record has, one name each."""
    there = [name for name in names if record.findings.get(name) == 1]
    return SEPARATOR.join(prompt([phrase(name, absent=True)], template=template) for name in there)


def lines(real: Record, without: Path, names: Sequence[str], template: str, number: int) -> list[Record]:
    """The rows of one pair: without the finding from with it, the other way about, and without it alone; every fourth time both
    kept as they are.
    """
    clear = replace(real, path=str(without), mask="", caption=denied(real, names, template),
                    findings=real.findings | dict.fromkeys(names, 0), contrasts={})  # fmt: skip
    out = [replace(clear, contrasts={BEFORE: real.path}), replace(real, contrasts={BEFORE: clear.path}), clear]
    if number % 4 == 0:
        out += [replace(one, contrasts={BEFORE: one.path}) for one in (clear, real)]
    return out


def with_pairs(manifest: Path, names: Sequence[str], template: str, folder: Path) -> tuple[Path, int]:
    """Write ``folder/manifest.csv`` and the images of its pairs; returns its path, and how many pairs there are.

    ``names`` are the columns of the finding that is outlined and of its kinds. ``DataError`` where a column is missing, an image
    or mask cannot be read, or no image has a like other side.
    """
    records = [located(record, manifest) for record in manifests.read(manifest)]
    unknown = [name for name in names if records and name not in records[0].findings]
    if unknown:
        raise DataError(f"{manifest}: no column {unknown[0]!r}; it has {', '.join(records[0].findings)}")
    records = [replace(record, caption=told(record, template)) for record in records]
    made: list[Record] = []
    number = 0
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for record in records:
        if record.split != "train" or not record.mask or record.findings[names[0]] != 1:
            continue
        try:
            clear = healthy(*outline_of(record))
        except ImageError as error:
            raise DataError(f"{manifest}: row {record.row}: {error}") from error
        if clear is None:
            continue
        path = (folder / f"images/{number:05d}.png").absolute()
        with replacing(path) as draft:
            Image.fromarray((clear * 255).round().astype(np.uint8)).save(draft, format="png")
        made += lines(record, path, names, template, number)
        number += 1
    if not number:
        raise DataError(f"{manifest}: no row of split train with {names[0]} and its mask has another side like its own")
    contrasts = dict.fromkeys(name for record in records for name in record.contrasts) | {BEFORE: None}
    manifests.write(folder / "manifest.csv", [*records, *made], tuple(records[0].findings), tuple(contrasts))
    return folder / "manifest.csv", number


def main() -> None:
    """Make the pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--finding", required=True, help="a column of the manifest, of which there are masks")
    parser.add_argument("--kinds", default="", help="columns of its kinds, which go with it: a, b")
    parser.add_argument("--template", default="brain MRI", help="the words that captions open with")
    parser.add_argument("-o", "--out", type=Path, required=True)
    o = parser.parse_args()
    names = [name.strip() for name in [o.finding, *o.kinds.split(",")] if name.strip()]
    path, count = with_pairs(o.manifest, names, o.template, o.out)
    print(f"{count} pairs: {path}")


if __name__ == "__main__":
    main()
