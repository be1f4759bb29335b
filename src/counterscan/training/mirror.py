r"""Pairs from masks and symmetry: what is outlined on one side gives way to the tissue of the other side.

    python -m counterscan.training.mirror MANIFEST --finding tumour --kinds "glioma, meningioma" \
        --template "brain MRI" -n 1500 -o PAIRS

For data without healthy images, of what is nearly its own mirror image: brains in axial and coronal slices. The image WITH the
finding is real, and is the target that addition learns (``data.before: before`` in a training config). An image is used where
its mirrored self, turned and shifted to fit, is like it outside of the outline (correlation at least ``LIKE``), and where the
outline does not meet its own reflection. Such images are few: ``-n`` more pairs are made by laying in what is outlined in
other images, near where it was. ``PAIRS/manifest.csv`` has all rows of the manifest and, of the split ``train``, the pairs'.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from counterscan.data import manifest as manifests
from counterscan.data.manifest import Record, located
from counterscan.errors import DataError
from counterscan.language.captions import mentions
from counterscan.language.phrase import phrase, prompt
from counterscan.training.paste import (
    BEFORE,
    blended,
    lay_at,
    listed,
    numbered,
    opened,
    patch_of,
    saved,
    softened,
    usable,
)

Array = NDArray[np.float32]
LIKE = 0.7
DARK = 0.08  # brightness below which there is no head
COARSE = 4  # pixels of the image a pixel of the search for the midline
ATTEMPTS = 20  # a pair that is laid together
TURNS = np.arange(-16.0, 17.0, 2.0)  # degrees
SHIFTS = np.arange(-5.0, 5.5, 1.0)  # coarse pixels
ROOM = 6 / 256  # of the image: how far beyond the outline tissue is replaced
NEAR = 0.02  # of the image: how far from where it was a finding is laid
SEPARATOR, IMAGES = " || ", "images"


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


def laid(
    image: Array,
    taken: NDArray[np.bool_],
    source: Array,
    mask: NDArray[np.bool_],
    rng: np.random.Generator,
    turned: bool,
) -> Array | None:
    """``image`` (H, W, C) with what ``mask`` outlines in ``source``, resized at random (and turned and mirrored, if ``turned``),
    within ``NEAR`` of where it was there; ``None`` where that is not within the head, or where something is ``taken`` already.
    """
    found = patch_of(source, mask, rng, min(image.shape[:2]), turned) if usable(mask) else None
    if found is None:
        return None
    patch, shape = found
    centre = np.array(ndimage.center_of_mass(mask)) * np.divide(image.shape[:2], mask.shape)
    at = centre + rng.uniform(-NEAR, NEAR, 2) * image.shape[:2] - np.divide(shape.shape, 2)
    top, left = (int(v) for v in at.round())
    bottom, right = top + shape.shape[0], left + shape.shape[1]
    if top < 0 or left < 0 or bottom > image.shape[0] or right > image.shape[1]:
        return None
    size = float(np.sqrt((shape > 0.5).sum()))
    alpha = softened(shape, size)
    if (taken[top:bottom, left:right] & (alpha > 0.01)).any():
        return None
    return lay_at(image, patch, alpha, top, left, max(0.4 * size, 3), DARK)


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


def with_pairs(
    manifest: Path, names: Sequence[str], template: str, folder: Path, count: int = 0, seed: int = 0
) -> tuple[Path, int]:
    """Write ``folder/manifest.csv`` and the images of its pairs; returns its path, and how many pairs there are.

    ``names`` are the columns of the finding that is outlined and of its kinds; ``count`` pairs more are laid together.
    ``DataError`` where a column is missing, an image or mask cannot be read, or no image has a like other side.
    """
    records = [located(record, manifest) for record in manifests.read(manifest)]
    unknown = [name for name in names if records and name not in records[0].findings]
    if unknown:
        raise DataError(f"{manifest}: no column {unknown[0]!r}; it has {', '.join(records[0].findings)}")
    records = [replace(record, caption=told(record, template)) for record in records]
    outlined = [r for r in records if r.split == "train" and r.mask and r.findings[names[0]] == 1]
    made: list[Record] = []
    clear: list[Array] = []
    for record in outlined:
        without = healthy(*opened(record, manifest))
        if without is not None:
            made += lines(record, saved(without, folder / IMAGES, len(clear)), names, template, len(clear))
            clear.append(without)
    if not clear:
        raise DataError(f"{manifest}: no row of split train with {names[0]} and its mask has another side like its own")
    made += together(clear, outlined, names, template, folder, count, np.random.default_rng(seed), manifest)
    return listed(folder, records, made), len(clear) + count


def together(
    clear: Sequence[Array], outlined: Sequence[Record], names: Sequence[str], template: str, folder: Path, count: int,
    rng: np.random.Generator, manifest: Path,
) -> list[Record]:  # fmt: skip
    """The rows of ``count`` pairs: a healthy image, and the same with what another one has; ``DataError`` without room."""
    out: list[Record] = []
    number = 0
    for _ in range(ATTEMPTS * count):
        if number == count:
            break
        k, record = int(rng.integers(len(clear))), outlined[int(rng.integers(len(outlined)))]
        image, mask = opened(record, manifest)
        with_it = laid(clear[k], np.zeros(clear[k].shape[:2], bool), image, mask, rng, turned=True)
        if with_it is not None:
            path = saved(with_it, folder / IMAGES, len(clear) + number)
            rows = lines(
                replace(record, path=str(path), mask=""), numbered(folder / IMAGES, k), names, template, number
            )
            out += [row for row in rows if row.contrasts]
            number += 1
    if number < count:
        raise DataError(f"{manifest}: {number} of {count} findings found room in the head of a healthy image")
    return out


def main() -> None:
    """Make the pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--finding", required=True, help="a column of the manifest, of which there are masks")
    parser.add_argument("--kinds", default="", help="columns of its kinds, which go with it: a, b")
    parser.add_argument("--template", default="brain MRI", help="the words that captions open with")
    parser.add_argument("-n", "--count", type=int, default=0, help="pairs more, laid together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    o = parser.parse_args()
    names = [name.strip() for name in [o.finding, *o.kinds.split(",")] if name.strip()]
    path, count = with_pairs(o.manifest, names, o.template, o.out, o.count, o.seed)
    print(f"{count} pairs: {path}")


if __name__ == "__main__":
    main()
