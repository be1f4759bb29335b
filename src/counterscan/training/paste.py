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
from counterscan.data.manifest import Record
from counterscan.errors import DataError
from counterscan.imaging.files import replacing
from counterscan.language.phrase import phrase, prompt

Array = NDArray[np.float32]
LARGEST = 0.25  # of the image: what is larger leaves no place to move to
MARGIN = 0.35  # of the finding's size, around it
DARK = 0.12  # brightness below which there is no tissue, but the rim of the picture
TRIES, ATTEMPTS = 30, 20  # places in an image, and images a pair


def patch_of(image: Array, mask: NDArray[np.bool_], rng: np.random.Generator, most: int) -> tuple[Array, Array] | None:
    """The outlined part of ``image`` (H, W, C) with a margin and its mask (h, w), turned, mirrored and resized at random;
    ``None`` where it is then larger than ``most`` pixels.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    margin = int(MARGIN * max(np.ptp(rows), np.ptp(columns))) + 3
    here = tuple(slice(max(at[0] - margin, 0), at[-1] + margin + 1) for at in (rows, columns))
    turn, flip = int(rng.integers(4)), bool(rng.integers(2))
    scale = rng.uniform(0.7, 1.3)
    cut, shape = (np.rot90(x[here], turn)[:, :: -1 if flip else 1] for x in (image, mask.astype(np.float32)))
    zoom = (scale, scale, 1)
    small = ndimage.zoom(cut, zoom, order=1)
    if max(small.shape[:2]) > most:
        return None
    return small, np.clip(ndimage.zoom(shape, scale, order=1), 0, 1)


def lay(image: Array, patch: Array, mask: Array, rng: np.random.Generator) -> Array | None:
    """``image`` (H, W, C) in [0, 1] with the ``patch`` (h, w, C) where its ``mask`` (h, w) is, at a random place that shows
    tissue; ``None`` where none is found.
    """
    h, w = mask.shape
    size = float(np.sqrt((mask > 0.5).sum()))
    grown = ndimage.binary_dilation(mask > 0.5, iterations=max(int(0.06 * size), 2))
    alpha = ndimage.gaussian_filter(grown.astype(np.float32), max(0.05 * size, 1.5))
    alpha[[0, -1]] = alpha[:, [0, -1]] = 0
    band = alpha * (1 - alpha)  # the border, inside and outside
    for _ in range(TRIES):
        y, x = int(rng.integers(image.shape[0] - h + 1)), int(rng.integers(image.shape[1] - w + 1))
        ground = image[y : y + h, x : x + w]
        if (ground.mean(2)[alpha > 0.05] < DARK).mean() > 0.02:
            continue
        reach = max(0.4 * size, 3)
        weight = ndimage.gaussian_filter(band, reach)[..., None] + 1e-6
        shift = ndimage.gaussian_filter((ground - patch) * band[..., None], (reach, reach, 0)) / weight
        out = image.copy()
        out[y : y + h, x : x + w] = ground + alpha[..., None] * (np.clip(patch + shift, 0, 1) - ground)
        return out
    return None


def pixels(path: Path) -> Array:
    """An image (H, W, 3) in [0, 1]."""
    return np.asarray(Image.open(path).convert("RGB"), np.float32) / 255


def lines(record: Record, made: Path, finding: str, template: str, number: int) -> list[Record]:
    """The rows of one pair: with the finding to without it; every second time the other way, every fourth time kept."""

    def row(after: str, before: str, present: bool) -> Record:
        words = prompt([phrase(finding, absent=not present)], template=template)
        findings = {**dict.fromkeys(record.findings), finding: int(present)}
        return replace(record, path=after, caption=words, mask="", findings=findings, contrasts={"before": before})

    real, laid = record.path, str(made)
    out = [row(real, laid, False)]
    if number % 2 == 0:
        out.append(row(laid, real, True))
    if number % 4 == 0:
        out += [row(real, real, False), row(laid, laid, True)]
    return out


def pairs(
    manifest: Path, records: Sequence[Record], finding: str, template: str, folder: Path, count: int, seed: int
) -> list[Record]:
    """Write ``count`` pasted images into ``folder``; returns the rows of their pairs, and of real findings that are kept.

    The records' paths are whole ones. ``DataError`` where the ``manifest`` has too little to paste, or no room for it.
    """
    rng, out = np.random.default_rng(seed), []
    train = [record for record in records if record.split == "train"]
    without = [record for record in train if record.findings.get(finding) == 0]
    outlined = [record for record in train if record.findings.get(finding) == 1 and record.mask]
    if not without or not outlined:
        missing = f"without {finding}" if not without else f"with {finding} and its mask"
        raise DataError(f"{manifest}: no row of split train is of an image {missing}; both are needed")
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(ATTEMPTS * count):
        if len(out) == count:
            break
        target, source = (some[int(rng.integers(len(some)))] for some in (without, outlined))
        ground, image = (pixels(Path(record.path)) for record in (target, source))
        outline = Image.open(source.mask).convert("L")
        mask = np.asarray(outline.resize((image.shape[1], image.shape[0]))) > 127
        if not 0 < mask.mean() < LARGEST:
            continue
        found = patch_of(image, mask, rng, min(ground.shape[:2]))
        laid = None if found is None else lay(ground, *found, rng)
        if laid is None:
            continue
        path = (folder / f"{len(out):05d}.png").absolute()
        with replacing(path) as draft:
            Image.fromarray((laid * 255).round().astype(np.uint8)).save(draft, format="png")
        out.append(lines(target, path, finding, template, len(out)))
        if len(out) % 4 == 0:
            words = prompt([phrase(finding)], template=template)
            out[-1].append(replace(source, caption=words, mask="", contrasts={"before": source.path}))
    if len(out) < count:
        raise DataError(
            f"{manifest}: room for {finding} was found in {len(out)} images only; ask for fewer than {count}"
        )
    return [row for some in out for row in some]


def with_pairs(manifest: Path, finding: str, template: str, folder: Path, count: int, seed: int) -> Path:
    """Write ``folder/manifest.csv``: the rows of ``manifest``, and those of ``count`` pasted images. Returns its path."""

    def absolute(path: str) -> str:
        return str(manifests.resolve(manifest, path)) if path else ""

    records = [replace(r, path=absolute(r.path), mask=absolute(r.mask)) for r in manifests.read(manifest)]
    made = pairs(manifest, records, finding, template, folder / "images", count, seed)
    manifests.write(folder / "manifest.csv", [*records, *made], tuple(records[0].findings), ("before",))
    return folder / "manifest.csv"


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
