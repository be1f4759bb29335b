"""What a colon can hold: polyps, which grow out of the wall, and instruments, which are bundles of straight rods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from counterscan.worlds.colon_scene import NEAR, Camera, Distance, Waves, dot, march
from counterscan.worlds.geometry import Array, ramp

LUMPS = {"sessile polyp": 0.08, "pedunculated polyp": 0.08, "flat polyp": 0.07}  # of the radius, times 1 to 2
COLOURS = {
    "pink": (0.86, 0.68, 0.72),
    "red": (0.86, 0.5, 0.48),
    "pink and red": (0.86, 0.6, 0.62),
    "pink and white": (0.88, 0.82, 0.88),
    "pink and yellow": (0.88, 0.82, 0.62),
}
"""A polyp's colour as a factor on the mucosa's red, green and blue."""

TOUCH = 1e-3  # a point is a polyp's when the wall alone would be farther than this


@dataclass(frozen=True)
class Polyp:
    """An ellipsoid with lumps: ``axes`` (3, 3) has its half-axes' directions as rows, ``lengths`` (3,) go with them.

    ``foot`` is where the stalk leaves the wall; without a stalk it is the centre. ``blend`` is how softly all merge.
    """

    centre: Array
    axes: Array
    lengths: Array
    foot: Array
    stalk: float
    blend: float
    lumps: Waves
    height: float
    colour: str
    texture: Waves

    @cached_property
    def middle(self) -> Array:
        """(3,), halfway between head and foot."""
        return (self.centre + self.foot) / 2

    @cached_property
    def reach(self) -> float:
        """No part of the polyp is farther than this from its middle."""
        return float(np.linalg.norm(self.centre - self.foot) / 2 + 1.3 * self.lengths.max() + self.blend)

    def head(self, p: Array) -> Array:
        """(N,) distance of the points (3, N) to the head."""
        from_centre = p - self.centre[:, None]
        scaled = np.stack([dot(row / length, from_centre) for row, length in zip(self.axes, self.lengths, strict=True)])
        level = np.sqrt((scaled * scaled).sum(0)) + np.float32(1e-6)
        lump = np.float32(self.height) * self.lumps(scaled / level)
        return (level - 1 - lump) * np.float32(self.lengths.min())

    def distance(self, p: Array) -> Array:
        """(N,) distance to head and stalk."""
        head = self.head(p)
        if self.stalk == 0:
            return head
        along = self.centre - self.foot
        s = np.clip(dot(along / (along @ along), p - self.foot[:, None]), 0, 1)
        off = p - self.foot[:, None] - along[:, None] * s
        waist = np.float32(self.stalk) * (1 + np.float32(0.7) * np.square(2 * s - 1) ** 2)
        return merge(head, np.sqrt((off * off).sum(0)) - waist, self.blend)


def merge(a: Array, b: Array, width: float) -> Array:
    """The smaller of two distances, with a fillet of this width between them."""
    h = np.clip(0.5 + (b - a) / np.float32(2 * width), 0, 1)
    return b + (a - b) * h - np.float32(width) * h * (1 - h)


def grown(wall: Distance, polyps: Sequence[Polyp]) -> Distance:
    """The wall with polyps on it."""

    def distance(p: Array) -> Array:
        gap = wall(p)
        for polyp in polyps:
            away = np.sqrt(np.square(p - polyp.middle[:, None]).sum(0)) - np.float32(polyp.reach)
            near = np.flatnonzero(away < 0.1)
            np.minimum(gap, away, out=gap, where=away >= 0.1)
            gap[near] = merge(gap[near], polyp.distance(p[:, near]), polyp.blend)
        return gap

    return distance


def depths_with(polyps: Sequence[Polyp], wall: Distance, camera: Camera, rays: Array, empty: Array) -> Array:
    """How far along the rays (3, N) wall or polyps are, where the wall alone is at ``empty`` (N,): equal to it bit for bit
    for every ray that meets no polyp.
    """
    entry = empty.copy()
    for polyp in polyps:
        to = polyp.middle - camera.place
        middle = (rays * to[:, None]).sum(0)
        half = polyp.reach**2 - (np.square(to).sum() - middle**2)
        meets = (half > 0) & (middle > 0)
        entry[meets] = np.minimum(entry[meets], np.clip(middle[meets] - np.sqrt(half[meets]), NEAR, None))
    inside = np.flatnonzero(entry < empty)
    surface = grown(wall, polyps)
    found = march(entry[inside], camera.place, rays[:, inside], surface)
    there = camera.place[:, None] + rays[:, inside] * found
    out = empty.copy()
    out[inside] = np.where(wall(there) - surface(there) > TOUCH, found, empty[inside])
    return out


def grow(
    kind: str, radius: float, foot: Array, normal: Array, head: Array, rng: np.random.Generator, colour: str
) -> Polyp:
    """A polyp of ``radius`` on the wall at ``foot`` (3,); ``head`` (3,) is where the end of its stalk is, if it has one."""
    side = np.cross(normal, rng.standard_normal(3))
    side /= np.linalg.norm(side)
    axes = np.stack([side, np.cross(normal, side), normal])
    stretch = rng.uniform(0.85, 1.2)
    amount = LUMPS[kind] * rng.uniform(0.6, 2.0) * (0.6 + min(radius, 0.4) / 0.4)
    stalk, centre = 0.0, foot
    if kind == "flat polyp":
        lengths = radius * np.array([1.25 * stretch, 1.1 / stretch, 0.33])
    elif kind == "sessile polyp":
        lengths = radius * np.array([stretch, 1 / stretch, rng.uniform(0.75, 1.0)])
        centre = foot + normal * lengths[2] * 0.45
    else:
        lengths = radius * np.array([0.9 * stretch, 0.9 / stretch, 1.0])
        stalk = 0.3 * radius
        centre = head
    lumps = Waves.draw(rng, rng.uniform(0.9, 2.2), 7)
    texture = Waves.draw(rng, max(0.24 * radius, 0.03), 10)
    f = np.float32
    return Polyp(centre.astype(f), axes.astype(f), lengths.astype(f), foot.astype(f), stalk, 0.16 * radius + 0.012, lumps,
                 amount, colour, texture)  # fmt: skip


@dataclass(frozen=True)
class Rod:
    """A straight round piece of an instrument. ``stripes`` is the pitch of a metal coil, 0 for none; ``shine`` 0 is
    plastic and 1 metal; ``colour`` the reflectance of red, green and blue.
    """

    start: Array
    end: Array
    radius: float
    colour: tuple[float, float, float]
    shine: float = 0.0
    stripes: float = 0.0


def hit(rod: Rod, place: Array, rays: Array, pixel: float) -> tuple[Array, Array, Array, Array]:
    """How rays (3, N) from ``place`` meet a rod: depth, coverage in [0, 1], how squarely in [0, 1], place along it; each (N,).

    Rods thinner than a pixel (``pixel`` in radians) keep their integral.
    """
    along = rod.end - rod.start
    from_start = place - rod.start
    a, b = along @ along, dot(along, rays)
    c, d = along @ from_start, dot(from_start, rays)
    s = np.clip((c - b * d) / np.maximum(a - b * b, 1e-9), 0, 1)
    t = np.maximum(b * s - d, 1e-3)
    s = np.clip((b * t + c) / a, 0, 1)
    off = from_start[:, None] + rays * t - along[:, None] * s
    miss = np.sqrt((off * off).sum(0))
    width = np.float32(0.6 * pixel) * t
    cover = ramp(rod.radius - miss + (width - rod.radius) * (rod.radius < width), width)
    cover *= np.minimum(rod.radius / width, 1)
    square = np.sqrt(np.clip(1 - np.square(miss / np.maximum(rod.radius, width)), 0, 1))
    return t - rod.radius * square, cover, square, s * np.float32(np.sqrt(a))


def forceps(mouth: Array, tip: Array, rng: np.random.Generator) -> list[Rod]:
    """Biopsy forceps: a coiled or coated shaft, two open jaws and the needle between them."""
    f = np.float32
    along = (tip - mouth) / np.linalg.norm(tip - mouth)
    across = np.cross(along, rng.standard_normal(3))
    across /= np.linalg.norm(across)
    steel, coated = (0.72, 0.72, 0.7), rng.random() < 0.45
    sheath = [(0.3, 0.45, 0.75), (0.85, 0.87, 0.92), (0.35, 0.33, 0.5)][int(rng.integers(3))] if coated else steel
    radius, open_ = 0.055, rng.uniform(0.25, 0.8)
    collar = tip - along * 0.16
    rods = [
        Rod(mouth, collar.astype(f), radius, sheath, 0.15 if coated else 1.0, 0.0 if coated else 0.035),
        Rod(collar.astype(f), tip.astype(f), 0.85 * radius, steel, 1.0),
    ]
    for sign in (-1, 1):
        way = along + sign * np.tan(open_) * across
        way /= np.linalg.norm(way)
        elbow = tip + way * 0.06
        bent = way - 0.5 * sign * across * open_
        cup = elbow + bent / np.linalg.norm(bent) * 0.07
        rods += [Rod(tip.astype(f), elbow.astype(f), 0.024, steel, 1.0),
                 Rod(elbow.astype(f), cup.astype(f), 0.034, steel, 1.0)]  # fmt: skip
    return rods


def snare(mouth: Array, tip: Array, rng: np.random.Generator) -> list[Rod]:
    """A polypectomy snare: a plastic sheath and a loop of wire out of its end."""
    f = np.float32
    along = (tip - mouth) / np.linalg.norm(tip - mouth)
    across = np.cross(along, rng.standard_normal(3))
    across /= np.linalg.norm(across)
    colour = [(0.92, 0.93, 0.95), (0.88, 0.92, 0.96), (0.62, 0.74, 0.92)][int(rng.integers(3))]
    collar = tip - along * 0.03
    length, half = rng.uniform(0.2, 0.55), rng.uniform(0.07, 0.16)
    turn = np.linspace(0, 2 * np.pi, 17)
    reach, aside = (1 - np.cos(turn)) / 2 * length, np.sin(turn) * half * np.sin(turn / 2) ** 0.5
    loop = tip + reach[:, None] * along + aside[:, None] * across
    wire = [Rod(p.astype(f), q.astype(f), 0.008, (0.8, 0.8, 0.78), 1.0) for p, q in pairwise(loop)]
    return [Rod(mouth, collar.astype(f), 0.06, colour), Rod(collar.astype(f), tip.astype(f), 0.062, (0.97,) * 3), *wire]
