"""Pairs from masks: a finding that is outlined in one image is laid into another that lacks it.

    python -m counterscan.training.paste MANIFEST --finding polyp --template endoscopy -o PAIRS

The image WITHOUT it is real, and is the target that removal learns (``data.before: before`` in a training config). Borders are
feathered, and the patch takes over the colour around the place it comes to, as Poisson blending does (Pérez et al. 2003), by
smooth interpolation of the difference along its border. ``PAIRS/manifest.csv`` has all rows of the manifest and, of the split
``train``, those of the pairs. The same seed makes the same pairs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from counterscan.data import manifest as manifests
from counterscan.data.manifest import Record, located
from counterscan.errors import DataError, ImageError
from counterscan.imaging import read
from counterscan.imaging.files import replacing
from counterscan.imaging.masks import mask_of
from counterscan.language.phrase import phrase, prompt

Array = NDArray[np.float32]
BEFORE = "before"  # the column path_before
LARGEST = 0.25  # of the image: what is larger leaves no place to move to
SMALLEST = 30  # pixels
MARGIN = 0.35  # of the finding's size, around it
DARK = 0.12  # brightness below which there is no tissue, but the rim of the picture
TRIES, ATTEMPTS = 30, 20  # places in an image, and images a pair


def patch_of(
    image: Array, mask: NDArray[np.bool_], rng: np.random.Generator, most: int, turned: bool = True
) -> tuple[Array, Array] | None:
    """The outlined part of ``image`` (H, W, C) with a margin and its mask (h, w), resized at random, and turned by right angles
    and mirrored unless it is to stay upright; ``None`` where it is then larger than ``most`` pixels, or too small to be seen.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    margin = int(MARGIN * max(np.ptp(rows), np.ptp(columns))) + 3
    here = tuple(slice(max(at[0] - margin, 0), at[-1] + margin + 1) for at in (rows, columns))
    turn, flip = (int(rng.integers(4)), bool(rng.integers(2))) if turned else (0, False)
    scale = rng.uniform(0.7, 1.3)
    cut, shape = (np.rot90(x[here], turn)[:, :: -1 if flip else 1] for x in (image, mask.astype(np.float32)))
    zoom = (scale, scale, 1)
    small, mask_ = ndimage.zoom(cut, zoom, order=1), np.clip(ndimage.zoom(shape, scale, order=1), 0, 1)
    return (small, mask_) if max(mask_.shape) <= most and (mask_ > 0.5).sum() >= SMALLEST else None


def lay(image: Array, patch: Array, mask: Array, rng: np.random.Generator) -> Array | None:
    """``image`` (H, W, C) in [0, 1] with the ``patch`` (h, w, C) where its ``mask`` (h, w) is, at a random place that shows
    tissue; ``None`` where none is found.
    """
    h, w = mask.shape
    size = float(np.sqrt((mask > 0.5).sum()))
    alpha = softened(mask, size)
    for _ in range(TRIES):
        y, x = int(rng.integers(image.shape[0] - h + 1)), int(rng.integers(image.shape[1] - w + 1))
        if (out := lay_at(image, patch, alpha, y, x, max(0.4 * size, 3), DARK)) is not None:
            return out
    return None


def lay_at(image: Array, patch: Array, alpha: Array, top: int, left: int, reach: float, dark: float) -> Array | None:
    """``image`` (H, W, C) with as much of ``patch`` as ``alpha`` (h, w) says at a place; ``None`` where more than a trace of that
    place is below the brightness ``dark``.
    """
    here = slice(top, top + alpha.shape[0]), slice(left, left + alpha.shape[1])
    if (image[here].mean(2)[alpha > 0.05] < dark).mean() > 0.02:
        return None
    out = image.copy()
    out[here] = blended(image[here], patch, alpha, reach)
    return out


def softened(mask: Array, size: float) -> Array:
    """How much of a patch is taken, (h, w) in [0, 1]: its mask, grown and feathered by shares of its ``size``; 0 at the rim."""
    grown = ndimage.binary_dilation(mask > 0.5, iterations=max(int(0.06 * size), 2))
    alpha: Array = ndimage.gaussian_filter(grown.astype(np.float32), max(0.05 * size, 1.5))
    alpha[[0, -1]] = alpha[:, [0, -1]] = 0
    return alpha


def blended(ground: Array, patch: Array, alpha: Array, reach: float) -> Array:
    """``ground`` (h, w, C) with as much of ``patch`` as ``alpha`` (h, w) says, in the colours that ground has along the border;
    their difference there is spread by a Gaussian of ``reach`` pixels.
    """
    band = (alpha * (1 - alpha))[..., None]  # the border, inside and outside
    weight = ndimage.gaussian_filter(band, (reach, reach, 0)) + 1e-6
    shift = ndimage.gaussian_filter((ground - patch) * band, (reach, reach, 0)) / weight
    return ground + alpha[..., None] * (np.clip(patch + shift, 0, 1) - ground)


def pixels(path: Path) -> Array:
    """An image (H, W, 3) in [0, 1]; grey is repeated."""
    unit = read(path).unit().astype(np.float32)
    return np.repeat(unit[..., None], 3, axis=2) if unit.ndim == 2 else unit


def outline_of(record: Record) -> tuple[Array, NDArray[np.bool_]]:
    """The image of a record and where its finding is."""
    image = pixels(Path(record.path))
    return image, mask_of(Path(record.mask), image.shape[:2])


def opened(record: Record, manifest: Path) -> tuple[Array, NDArray[np.bool_]]:
    """:func:`outline_of` a row; ``DataError`` names the one that cannot be read."""
    try:
        return outline_of(record)
    except ImageError as error:
        raise DataError(f"{manifest}: row {record.row}: {error}") from error


def usable(mask: NDArray[np.bool_]) -> bool:
    """Whether an outline can be laid elsewhere: neither empty, nor too large, nor cut off by the border of its image."""
    rim = np.concatenate([mask[[0, -1]].ravel(), mask[:, [0, -1]].ravel()])
    return 0 < mask.mean() < LARGEST and not rim.any()


def lines(real: Record, laid: Path, source: Record, finding: str, template: str, number: int) -> list[Record]:
    """The rows of one pair: with the finding to without it; every second time the other way too; of every four times once both
    kept as they are, and once a real one kept.
    """

    def row(record: Record, after: str, before: str, present: bool) -> Record:
        words = prompt([phrase(finding, absent=not present)], template=template)
        findings = {**dict.fromkeys(record.findings), finding: int(present)}
        return replace(record, path=after, caption=words, mask="", findings=findings, contrasts={BEFORE: before})

    with_it, without = str(laid), real.path
    out = [row(real, without, with_it, False)]
    if number % 2 == 0:
        out.append(row(real, with_it, without, True))
    if number % 4 == 0:
        out += [row(real, without, without, False), row(real, with_it, with_it, True)]
    if number % 4 == 3:
        out.append(row(source, source.path, source.path, True))
    return out


def pairs(
    manifest: Path, records: Sequence[Record], finding: str, template: str, folder: Path, count: int, seed: int
) -> list[Record]:
    """Write ``count`` pasted images into ``folder``; returns the rows of their pairs, and of real findings that are kept.

    The records' paths are whole ones. ``DataError`` where the ``manifest`` has too little to paste, no room for it, or an image
    or mask that cannot be read.
    """
    rng = np.random.default_rng(seed)
    out: list[list[Record]] = []
    without, outlined = material(manifest, records, finding)
    for _ in range(ATTEMPTS * count):
        if len(out) == count:
            break
        target, source = (some[int(rng.integers(len(some)))] for some in (without, outlined))
        try:
            ground, (image, mask) = pixels(Path(target.path)), outline_of(source)
        except ImageError as error:
            raise DataError(f"{manifest}: row {target.row} or {source.row}: {error}") from error
        found = patch_of(image, mask, rng, min(ground.shape[:2])) if usable(mask) else None
        laid = None if found is None else lay(ground, *found, rng)
        if laid is None:
            continue
        out.append(lines(target, saved(laid, folder, len(out)), source, finding, template, len(out)))
    if len(out) < count:
        why = "masks may be empty, too large or cut off by the border, or the images dark"
        raise DataError(f"{manifest}: {finding} could be laid into {len(out)} of {count} images only; {why}")
    return [row for some in out for row in some]


def saved(image: Array, folder: Path, number: int) -> Path:
    """Write an image (H, W, C) in [0, 1] as the numbered PNG of a folder; its whole path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = numbered(folder, number)
    with replacing(path) as draft:
        Image.fromarray((image * 255).round().astype(np.uint8)).save(draft, format="png")
    return path


def numbered(folder: Path, number: int) -> Path:
    """Where :func:`saved` puts an image."""
    return (folder / f"{number:05d}.png").absolute()


def listed(folder: Path, records: Sequence[Record], made: Sequence[Record]) -> Path:
    """Write ``folder/manifest.csv`` of the rows of a manifest and those of pairs made of it; its path."""
    contrasts = dict.fromkeys(name for record in records for name in record.contrasts) | {BEFORE: None}
    manifests.write(folder / "manifest.csv", [*records, *made], tuple(records[0].findings), tuple(contrasts))
    return folder / "manifest.csv"


def material(manifest: Path, records: Sequence[Record], finding: str) -> tuple[list[Record], list[Record]]:
    """The real train images without the finding, and those with it and a mask."""
    if records and finding not in records[0].findings:
        raise DataError(f"{manifest}: no column {finding!r}; it has {', '.join(records[0].findings)}")
    train = [record for record in records if record.split == "train" and BEFORE not in record.contrasts]
    without = [record for record in train if record.findings.get(finding) == 0]
    outlined = [record for record in train if record.findings.get(finding) == 1 and record.mask]
    if not without or not outlined:
        missing = f"without {finding}" if not without else f"with {finding} and its mask"
        raise DataError(f"{manifest}: no row of split train is of an image {missing}; both are needed")
    return without, outlined


def with_pairs(manifest: Path, finding: str, template: str, folder: Path, count: int, seed: int) -> Path:
    """Write ``folder/manifest.csv``: the rows of ``manifest``, and those of ``count`` pasted images. Returns its path."""
    records = [located(record, manifest) for record in manifests.read(manifest)]
    made = pairs(manifest, records, finding, template, folder / "images", count, seed)
    return listed(folder, records, made)


def main() -> None:
    """Make the pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--finding", required=True, help="a column of the manifest, of which there are masks")
    parser.add_argument("--template", default="chest radiograph", help="the words that captions open with")
    parser.add_argument("-n", "--count", type=int, default=700)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    o = parser.parse_args()
    path = with_pairs(o.manifest, o.finding, o.template, o.out, o.count, o.seed)
    print(f"{o.count} pairs: {path}")


if __name__ == "__main__":
    main()
