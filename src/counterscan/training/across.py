"""Pairs from masks and kinds: what is outlined in one image is laid into a like image that has another kind of it.

    python -m counterscan.training.across MANIFEST --kinds "meningioma, glioma, pituitary tumour" \
        --template "brain MRI" -n 2500 -o PAIRS

For data without healthy images. A slice with a glioma has no meningioma, so it is the real image WITHOUT one, and the target that
removal learns (``data.before: before`` in a training config); what is denied is denied by its own name. An image is laid into one
of the :data:`NEIGHBOURS` that look most like it, and so show the same plane and level, upright and near where it was there.
``PAIRS/manifest.csv`` has all rows of the manifest and, of the split ``train``, the pairs'. The same seed makes the same pairs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from counterscan.data import manifest as manifests
from counterscan.data.manifest import Record, located
from counterscan.errors import DataError
from counterscan.imaging.resize import fit
from counterscan.training.mirror import IMAGES, Array, laid, lines
from counterscan.training.paste import ATTEMPTS, listed, material, opened, saved

NEIGHBOURS = 20
SIDE = 32  # pixels of the thumbnails that are compared


def thumbnail(image: Array) -> Array:
    """``image`` (H, W, C) as a unit vector of ``SIDE`` by ``SIDE`` pixels, of mean 0."""
    small = fit(image.mean(2), SIDE)[0].ravel()
    small = small - small.mean()
    return (small / max(float(np.linalg.norm(small)), 1e-6)).astype(np.float32)


def across(
    manifest: Path, records: Sequence[Record], kinds: Sequence[str], template: str, folder: Path, count: int, seed: int
) -> list[Record]:
    """Write ``count`` images that have two kinds into ``folder``; returns the rows of their pairs, every kind as often.

    The records' paths are whole ones. ``DataError`` where the ``manifest`` has no image without one of the ``kinds``, none with
    it and its mask, too few with room for it, or an image or mask that cannot be read.
    """
    rng = np.random.default_rng(seed)
    choices = {}
    looks: dict[str, Array] = {}
    for kind in kinds:
        without, outlined = material(manifest, records, kind)
        hosts = [record for record in without if record.mask]  # what else they have must not be laid over
        if not hosts:
            raise DataError(f"{manifest}: no row of split train has a mask, but no {kind}")
        choices[kind] = hosts, outlined
        for record in [*hosts, *outlined]:
            if record.path not in looks:
                looks[record.path] = thumbnail(opened(record, manifest)[0])
    made: list[list[Record]] = []
    for _ in range(ATTEMPTS * count):
        if len(made) == count:
            break
        kind = kinds[len(made) % len(kinds)]
        hosts, sources = choices[kind]
        source = sources[int(rng.integers(len(sources)))]
        like = np.argsort([-float(looks[host.path] @ looks[source.path]) for host in hosts])[:NEIGHBOURS]
        host = hosts[int(rng.choice(like))]
        image, taken = opened(host, manifest)
        both = laid(image, taken, *opened(source, manifest), rng, turned=False)
        if both is not None:
            already = [name for name, value in host.findings.items() if value == 1]
            findings = source.findings | dict.fromkeys(already, 1)
            with_it = replace(source, path=str(saved(both, folder, len(made))), mask="", findings=findings)
            rows = lines(with_it, Path(host.path), [kind], template, len(made))
            made.append([row for row in rows if row.contrasts])
    if len(made) < count:
        raise DataError(f"{manifest}: {len(made)} of {count} findings found room in an image of another kind")
    return [row for rows in made for row in rows]


def with_pairs(manifest: Path, kinds: Sequence[str], template: str, folder: Path, count: int, seed: int) -> Path:
    """Write ``folder/manifest.csv``: the rows of ``manifest``, and those of ``count`` pairs. Returns its path."""
    records = [located(record, manifest) for record in manifests.read(manifest)]
    return listed(folder, records, across(manifest, records, kinds, template, folder / IMAGES, count, seed))


def main() -> None:
    """Make the pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--kinds", required=True, help="columns of the manifest, of which there are masks: a, b")
    parser.add_argument("--template", default="brain MRI", help="the words that captions open with")
    parser.add_argument("-n", "--count", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    o = parser.parse_args()
    kinds = [name.strip() for name in o.kinds.split(",") if name.strip()]
    print(f"{o.count} pairs: {with_pairs(o.manifest, kinds, o.template, o.out, o.count, o.seed)}")


if __name__ == "__main__":
    main()
