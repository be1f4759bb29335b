"""The colon's 3-D scene: a folded tube seen by a wide-angle camera inside it, found by marching along rays.

Lengths are in tube radii (25 mm); z runs along the bowel. Everything is analytic (sums of plane waves and bells), so any
number of pixels shows the same bowel. A point set is an array (3, N).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import minimum_filter

from counterscan.worlds.geometry import Array

MILLIMETRES = 25.0  # per unit of length
NEAR, FAR = 0.03, 6.0  # where marching begins and ends, in the dark
STRIDE, STEPS, CLOSE = 0.6, 22, 0.006
"""A fold's flank is steep, so a step is shorter than the distance; a ray ends when closer than this share of its length."""

Distance = Callable[[Array], Array]
"""(3, N) points -> (N,) distance to the nearest surface, positive in the lumen."""


def stream(seed: int, name: str) -> np.random.Generator:
    """The noise of one part, independent of every other part's."""
    return np.random.default_rng([seed, *name.encode()])


def dot(vector: Array, p: Array) -> Array:
    """(N,) of a vector (3,) with the points (3, N); written out, since a library's last digits depend on the machine."""
    a, b, c = (np.float32(x) for x in vector)
    return a * p[0] + b * p[1] + c * p[2]


@dataclass(frozen=True)
class Waves:
    """Band-limited solid noise of about unit variance: ``sum_i cos(k_i . p + phase_i) * gain``."""

    k: Array  # (n, 3)
    phase: Array  # (n,)

    @classmethod
    def draw(cls, rng: np.random.Generator, wavelength: float, n: int = 10) -> Waves:
        """Directions uniform on the sphere, wavelengths within a third of the one asked for."""
        k = rng.standard_normal((n, 3))
        k *= 2 * np.pi / (wavelength * rng.uniform(0.75, 1.35, (n, 1))) / np.linalg.norm(k, axis=1, keepdims=True)
        return cls(k.astype(np.float32), rng.uniform(0, 2 * np.pi, n).astype(np.float32))

    def __call__(self, p: Array) -> Array:
        """(N,) values at the points (3, N)."""
        value = np.zeros(p.shape[1], np.float32)
        for angle in self._angles(p):
            value += np.cos(angle, out=angle)
        return value * np.float32(np.sqrt(2 / len(self.phase)))

    def gradient(self, p: Array) -> Array:
        """(3, N)."""
        slope = np.zeros(p.shape, np.float32)
        for (a, b, c), angle in zip(self.k, self._angles(p), strict=True):
            np.sin(angle, out=angle)
            slope[0] -= a * angle
            slope[1] -= b * angle
            slope[2] -= c * angle
        return slope * np.float32(np.sqrt(2 / len(self.phase)))

    def _angles(self, p: Array) -> Iterator[Array]:
        """One wave at a time, which needs little memory."""
        for (a, b, c), phase in zip(self.k, self.phase, strict=True):
            angle = a * p[0]
            angle += b * p[1]
            angle += c * p[2]
            angle += phase
            yield angle


@dataclass(frozen=True)
class Camera:
    """An equidistant fisheye: the angle to the axis grows linearly, by ``field`` radians from centre to the frame's edge."""

    place: Array  # (3,)
    turn: Array  # (3, 3) from camera to bowel; camera x is right, y down, z forward
    field: float

    @classmethod
    def draw(cls, seed: int) -> Camera:
        """Off the middle of the lumen and looking along it or at the wall."""
        rng = stream(seed, "camera")
        yaw, pitch = np.clip(rng.normal(0, 0.55, 2), -1.3, 1.3)
        roll = rng.uniform(0, 2 * np.pi)
        off = 0.6 * np.sqrt(rng.random())
        towards = rng.uniform(0, 2 * np.pi)
        place = np.array([off * np.cos(towards), off * np.sin(towards), 0.0], np.float32)
        return cls(
            place, (_about(2, roll) @ _about(1, yaw) @ _about(0, pitch)).astype(np.float32), rng.uniform(1.0, 1.2)
        )

    def rays(self, u: Array, v: Array) -> Array:
        """Unit directions (3, N) in the bowel through the frame's points (N,), each in about [-1, 1]."""
        radius = np.sqrt(u * u + v * v) + np.float32(1e-6)
        angle = radius * np.float32(self.field)
        out = np.sin(angle) / radius
        ray = np.stack([u * out, v * out, np.cos(angle)])
        return np.stack([dot(row, ray) for row in self.turn])

    def seen(self, p: Array) -> Array:
        """Where in the frame (2, N) the points (3, N) appear."""
        x, y, z = (dot(row, p - self.place[:, None]) for row in self.turn.T)
        across = np.hypot(x, y) + 1e-9
        return np.stack([x, y]) / across * (np.arctan2(across, z) / self.field)


def _about(axis: int, angle: float) -> Array:
    i, j = ((1, 2), (0, 2), (0, 1))[axis]
    turn = np.eye(3)
    turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    return turn


@dataclass(frozen=True)
class Wall:
    """A bent tube with half-moon folds. ``folds`` (n, 7): depth, height, thickness, tilt, where around it is highest
    (cosine, sine), and how much of the way around it reaches.
    """

    bend: tuple[float, float]
    folds: Array
    triangle: Array  # cosine and sine of the three-sidedness that the muscle bands give, times its amount
    relief: Waves

    @classmethod
    def draw(cls, seed: int) -> Wall:
        """Folds every 10 to 24 mm; some bowels are nearly smooth, some deeply folded."""
        rng = stream(seed, "wall")
        deep = rng.uniform(0.14, 0.46)
        rows, z = [], rng.uniform(0.3, 0.9)
        while z < 5.5:
            around, height = rng.uniform(0, 2 * np.pi), deep * rng.uniform(0.5, 1.3)
            rows.append((z, height, rng.uniform(0.06, 0.12) + 0.2 * height, rng.normal(0, 0.16),
                         np.cos(around), np.sin(around), rng.uniform(-0.3, 1.1)))  # fmt: skip
            z += rng.uniform(0.4, 0.95)
        bend = rng.uniform(0.05, 0.4) * np.array([np.cos(a := rng.uniform(0, 2 * np.pi)), np.sin(a)])
        phase = rng.uniform(0, 2 * np.pi)
        triangle = rng.uniform(0.0, 0.13) * np.array([np.cos(phase), np.sin(phase)])
        relief = Waves.draw(rng, rng.uniform(0.7, 1.1), 5)
        return cls((float(bend[0]), float(bend[1])), np.array(rows, np.float32), triangle.astype(np.float32), relief)

    def distance(self, p: Array) -> Array:
        """Radius of the wall less the point's own, (N,): at most the distance times the flank's slope."""
        z = p[2]
        bent = np.square(np.clip(z, 0, 4)) / 2 + 4 * np.clip(z - 4, 0, None)
        x, y = p[0] - np.float32(self.bend[0]) * bent, p[1] - np.float32(self.bend[1]) * bent
        r = np.sqrt(x * x + y * y) + np.float32(1e-6)
        c, s = x / r, y / r
        radius = 1 + self.triangle[0] * c * (c * c - 3 * s * s) + self.triangle[1] * s * (3 * c * c - s * s)
        radius += np.float32(0.035) * self.relief(p)
        for depth, height, thick, tilt, fc, fs, reach in self.folds:
            bell = z - depth
            bell -= (tilt * fs) * c
            bell += (tilt * fc) * s
            bell *= 1 / thick
            bell *= bell
            bell += 1
            bell *= bell
            around = fc * c
            around += fs * s
            around += reach
            np.clip(around, 0, 1, out=around)
            around *= height
            around /= bell
            radius -= around
        return radius - r


def march(start: Array, place: Array, rays: Array, distance: Distance) -> Array:
    """How far from ``place`` (3,) along each of the rays (3, N) a surface is, (N,), at most ``FAR``; looked for from ``start``
    (N,) on.
    """
    t = start.copy()
    left, on, at = np.arange(len(t)), rays, start
    for step in range(STEPS):
        gap = distance(place[:, None] + on * at)
        at = at + np.float32(STRIDE) * gap
        t[left] = at
        if step % 2:
            going = (np.abs(gap) > CLOSE * at) & (at < FAR)
            left, on, at = left[going], on[:, going], at[going]
            if not len(left):
                break
    return np.clip(t, NEAR, FAR)


def depths(camera: Camera, u: Array, v: Array, distance: Distance) -> Array:
    """March a grid of pixels (H, W): every second one from the camera, all from just before what their neighbours met."""
    coarse = camera.rays(u[::2, ::2].ravel(), v[::2, ::2].ravel())
    met = march(np.full(coarse.shape[1], NEAR, np.float32), camera.place, coarse, distance).reshape(u[::2, ::2].shape)
    before = np.float32(0.93) * minimum_filter(met, 3, mode="nearest").repeat(2, 0).repeat(2, 1)
    start = before[: u.shape[0], : u.shape[1]].ravel()
    return march(start, camera.place, camera.rays(u.ravel(), v.ravel()), distance)


def normals(p: Array, distance: Distance, step: float = 0.012) -> Array:
    """Unit normals (3, N) into the lumen, from differences over ``step``."""
    e = np.float32(step)
    corners = np.array([(1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)], np.float32)
    slope = np.zeros_like(p)
    for corner in corners:
        slope += corner[:, None] * distance(p + e * corner[:, None])
    return slope / (np.sqrt((slope * slope).sum(0)) + np.float32(1e-9))
