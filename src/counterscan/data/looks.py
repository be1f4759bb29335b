"""What images look like in small: near-duplicates, and radiographs that are inverted or rotated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from counterscan.data.manifest import Record

SMALL = 16
BANDS, NEAR = 16, 12  # of 256 bits: hashes that differ in fewer than 16 share one of 16 bands
STEP = 0.02  # of the contrast: smaller steps, as in a black border, are noise
MOST = 64  # images compared in one band: a band that more share, as of black borders, tells nothing
ENOUGH = 20  # radiographs of one view, for their median to be its usual look
MIDDLE = slice(2, -2)  # without the borders, which are bright in some radiographs
MARGIN = 0.3  # of correlations; about 6 in 1000 sound radiographs are named, 95 in 100 turned or inverted ones found
FINE, BLUR, ALIKE = 128, 2.0, 0.7  # correlation of details: copies 0.88 or more, brains of two people 0.53 or less
TRIED = 5  # twins by hash that are compared in detail
VIEWS = frozenset({"PA", "AP", "L", "LL", "LATERAL"})
Found = tuple[str, int, str, str]
Compare = Callable[[str, str], bool]


class Look(NamedTuple):
    """A difference hash of 256 bits and a grey thumbnail uint8 (16, 16)."""

    hash: bytes
    thumb: NDArray[np.uint8]


def look(image: NDArray[np.float32]) -> Look:
    """The look of an image (H, W) or (H, W, 3) in [0, 1]."""
    return Look(difference_hash(image), np.round(thumbnail(image) * 255).astype(np.uint8))


def thumbnail(image: NDArray[np.float32], height: int = SMALL, width: int = SMALL) -> NDArray[np.float32]:
    """Area-averaged grey (height, width) of an image (H, W) or (H, W, 3)."""
    from PIL import Image

    grey = image.mean(-1) if image.ndim == 3 else image
    picture = Image.fromarray(np.ascontiguousarray(grey, dtype=np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX))


def difference_hash(image: NDArray[np.float32]) -> bytes:
    """256 bits: whether each cell of a 16 x 17 thumbnail is brighter than the one before it; contrast does not matter.

    Among 300 radiographs and 300 endoscopies, copies of 0.6 the size, other contrast and JPEG quality 70 differ in at most
    10 bits, other images in at least 15.
    """
    small = thumbnail(image, SMALL, SMALL + 1)
    return np.packbits(small[:, 1:] > small[:, :-1] + STEP * np.ptp(small)).tobytes()


def details(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """What of an image (H, W) or (H, W, 3) is finer than its shape: (128, 128), mean 0, deviation 1."""
    from scipy.ndimage import gaussian_filter

    small = thumbnail(image, FINE, FINE)
    return _standard(small - gaussian_filter(small, BLUR))


def copies(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    """Whether two images share their details, as copies do; registered brains or posed chests share the shape only."""
    return float((details(first) * details(second)).mean()) >= ALIKE


@dataclass
class Looks:
    """Collects what images look like, row by row, then names the odd ones."""

    rows: list[tuple[int, str, str, int]] = field(default_factory=list)  # row, split, view, hash of the patient
    paths: list[str] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)

    def add(self, record: Record, seen_as: Look) -> None:
        """Remember how a record's image looks."""
        self.rows.append((record.row, record.split, record.view.upper(), hash(record.patient or record.row)))
        self.paths.append(record.path)
        self.looks.append(seen_as)

    def problems(self, same: Compare) -> Iterator[Found]:
        """(kind, row, text, path) of every duplicate and of every radiograph that stands otherwise than its view does.

        ``same`` says of two paths whether their images are copies; it is asked where the hashes nearly agree.
        """
        yield from self._duplicates(same)
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for i, (_, _, view, _) in enumerate(self.rows):
            if view in VIEWS:
                groups[view].append(i)
        for members in groups.values():
            if len(members) >= ENOUGH:
                yield from self._misplaced(members)

    def _duplicates(self, same: Compare) -> Iterator[Found]:
        """Two images of one patient in one split may look alike: slices of a volume do."""
        bits = [int.from_bytes(seen.hash, "big") for seen in self.looks]
        width = 256 // BANDS // 8
        bands: defaultdict[tuple[int, bytes], list[int]] = defaultdict(list)
        for i, seen in enumerate(self.looks):
            keys = [(b, seen.hash[b * width : (b + 1) * width]) for b in range(BANDS)]
            near = {j for key in keys for j in bands[key][-MOST:]}
            row, split, _, patient = self.rows[i]
            twins = [
                j
                for j in near
                if (bits[i] ^ bits[j]).bit_count() <= NEAR and (self.rows[j][3] != patient or self.rows[j][1] != split)
            ]
            for key in keys:
                bands[key].append(i)
            twins.sort(key=lambda j: (self.rows[j][1] == split, j))  # one in another split is the one that matters
            first = next((j for j in twins[:TRIED] if same(self.paths[i], self.paths[j])), None)
            if first is not None:
                kind = "duplicate" if self.rows[first][1] == split else "duplicate across splits"
                yield kind, row, f"looks like row {self.rows[first][0]}", self.paths[i]

    def _misplaced(self, members: list[int]) -> Iterator[Found]:
        stack = np.stack([self.looks[i].thumb[MIDDLE, MIDDLE] for i in members]).astype(np.float32)
        usual = _standard(np.median(stack, axis=0))
        for i, thumb in zip(members, stack, strict=True):
            turned = [float((_standard(np.rot90(thumb, k)) * usual).mean()) for k in range(4)]
            row, _, view, _ = self.rows[i]
            if -turned[0] > max(MARGIN, max(turned) + MARGIN):
                yield "inverted", row, f"dark and bright are exchanged against the other {view} images", self.paths[i]
            elif (k := int(np.argmax(turned))) and turned[k] > turned[0] + MARGIN:
                text = f"stands as the other {view} images when turned by {90 * k} degrees"
                yield "rotated", row, text, self.paths[i]


def _standard(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean 0, deviation 1."""
    return (image - image.mean()) / (image.std() + 1e-6)
