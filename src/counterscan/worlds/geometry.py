"""Shapes on a detector: path lengths of rays through analytic solids, in a patient frame that is free of the pixel size.

Frame: u runs from -1 (image left, the patient's right) to +1, v from -1 (top) to +1 (bottom). Lengths are in the same
unit; every function returns float32 path lengths (H, W) or adds them in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

Array = NDArray[Any]  # float32 unless said otherwise


@dataclass(frozen=True)
class Frame:
    """A square detector of ``size`` pixels seeing the patient shifted, zoomed and tilted in the plane (radians)."""

    size: int
    shift: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    tilt: float = 0.0

    def grid(self) -> tuple[Array, Array]:
        """Patient coordinates (u, v) of every pixel centre, each float32 (size, size)."""
        axis = ((np.arange(self.size) + 0.5) / self.size * 2 - 1).astype(np.float32)
        x, y = axis[None] - self.shift[0], axis[:, None] - self.shift[1]
        c, s = np.cos(self.tilt) / self.zoom, np.sin(self.tilt) / self.zoom
        return (c * x + s * y).astype(np.float32), (-s * x + c * y).astype(np.float32)

    def pixels(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Patient points (N, 2) as (column, row) pixel positions (N, 2)."""
        c, s = np.cos(self.tilt) * self.zoom, np.sin(self.tilt) * self.zoom
        x = c * points[:, 0] - s * points[:, 1] + self.shift[0]
        y = s * points[:, 0] + c * points[:, 1] + self.shift[1]
        return (np.stack([x, y], 1) + 1) * (self.size / 2) - 0.5

    def box(self, u0: float, u1: float, v0: float, v1: float) -> tuple[slice, slice]:
        """The (rows, columns) window that covers a patient rectangle; may be empty."""
        p = self.pixels(np.array([(u0, v0), (u1, v0), (u0, v1), (u1, v1)]))
        low = np.clip(np.floor(p.min(0)) - 1, 0, self.size).astype(int)
        high = np.clip(np.ceil(p.max(0)) + 2, 0, self.size).astype(int)
        return slice(low[1], high[1]), slice(low[0], high[0])


def ramp(x: Array, width: float) -> Array:
    """Smooth step: 0 below -width, 1 above +width (a cubic, so its slope is continuous)."""
    t = np.clip(x / (2 * width) + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def ellipsoid(
    frame: Frame,
    u: Array,
    v: Array,
    centre: Any,
    axes: Sequence[float],
    tilt: float = 0.0,
    power: float = 2.0,
) -> tuple[tuple[slice, slice], Array]:
    """Chord through a (super-)ellipsoid with semi-axes (a, b, depth): ``2 depth sqrt(1 - q)``; returns (window, chord)."""
    a, b, depth = axes
    reach = float(np.hypot(a, b)) if tilt else 0.0
    ru, rv = (reach or a), (reach or b)
    window = frame.box(centre[0] - ru, centre[0] + ru, centre[1] - rv, centre[1] + rv)
    x, y = u[window] - centre[0], v[window] - centre[1]
    c, s = np.cos(tilt), np.sin(tilt)
    p, q = np.abs((c * x + s * y) / a), np.abs((-s * x + c * y) / b)
    level = p * p + q * q if power == 2.0 else p**power + q**power
    return window, (2 * depth * np.sqrt(np.clip(1 - level, 0, 1))).astype(np.float32)


def spline(points: Sequence[Any] | NDArray[np.floating], n: int = 64) -> NDArray[np.float64]:
    """A Catmull-Rom curve through the control points (K, 2), resampled to ``n`` points (n, 2); or, with more axes, through
    control points (K, ..., 2) to (n, ..., 2).
    """
    p = np.asarray(points, float)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, len(p) - 3, n)
    i = np.minimum(t.astype(int), len(p) - 4)
    f = (t - i).reshape(-1, *[1] * (p.ndim - 1))
    a, b, c, d = p[i], p[i + 1], p[i + 2], p[i + 3]
    return 0.5 * (2 * b + (c - a) * f + (2 * a - 5 * b + 4 * c - d) * f**2 + (3 * b - 3 * c + d - a) * f**3)


def tube(
    frame: Frame, out: Array, path: NDArray[np.floating], radius: float | NDArray[np.floating], hollow: float = 0.0
) -> None:
    """Write the chord of a tube along ``path`` (N, 2), or of K of them (K, N, 2), into ``out`` by maximum; ``hollow`` in [0, 1)
    is the lumen's share.

    The radius may taper along the path. Tubes thinner than a pixel keep their integral: they are drawn one pixel wide
    with a proportionally shorter chord, so that a thin lead looks alike at every resolution.
    """
    pixel = 2 / (frame.size * frame.zoom)
    paths = path.reshape(-1, *path.shape[-2:])
    along = np.concatenate([paths, np.broadcast_to(radius, paths.shape[:-1])[..., None]], -1)
    points = _resample(along, 0.5 * pixel)
    r = points[:, 2] / pixel
    wide = np.maximum(r, 0.9)
    xy = frame.pixels(points[:, :2])
    reach = int(np.ceil(wide.max()))
    cell = np.round(xy).astype(int)[..., None] + np.arange(-reach, reach + 1)
    dx2, dy2 = ((cell - xy[..., None]) ** 2).swapaxes(0, 1)
    d2 = dy2[:, :, None] + dx2[:, None]
    outer = np.sqrt(np.clip(wide[:, None, None] ** 2 - d2, 0, None))
    inner = np.sqrt(np.clip((hollow * wide[:, None, None]) ** 2 - d2, 0, None)) if hollow else 0.0
    chord = 2 * pixel * (outer - inner) * (np.minimum(r, 0.9) / 0.9)[:, None, None] ** 2
    inside = (cell >= 0) & (cell < frame.size)
    ok = inside[:, 1, :, None] & inside[:, 0, None] & (chord > 0)
    at = cell[:, 1, :, None] * frame.size + cell[:, 0, None]
    np.maximum.at(out.reshape(-1), at[ok], chord[ok].astype(np.float32))


def _resample(paths: NDArray[np.floating], step: float) -> NDArray[np.float64]:
    """Points (P, C) about ``step`` apart on K polylines (K, N, C), whose first two coordinates measure the way."""
    length = np.hypot(*np.diff(paths[..., :2], axis=1).transpose(2, 0, 1))
    arc = np.concatenate([np.zeros((len(paths), 1)), np.cumsum(length, 1)], 1)
    n = np.maximum((arc[:, -1] / step).astype(int), 2)
    k = np.repeat(np.arange(len(paths)), n)
    j = np.arange(len(k)) - np.repeat(np.cumsum(n) - n, n)
    at = j * (arc[:, -1] / (n - 1))[k]
    i = (at[:, None] >= arc[k, 1:-1]).sum(1)
    share = (at - arc[k, i]) / (arc[k, i + 1] - arc[k, i])
    return paths[k, i] + share[:, None] * (paths[k, i + 1] - paths[k, i])


def smooth_noise(rng: np.random.Generator, u: Array, v: Array, cells: int) -> Array:
    """Unit-variance-like smooth noise with ``cells`` cells across the frame, anchored to the patient, float32 (H, W)."""
    table = rng.standard_normal((cells + 4, cells + 4)).astype(np.float32)
    at = np.stack([(v + 1.2) * (cells / 2.4) + 1, (u + 1.2) * (cells / 2.4) + 1])
    return map_coordinates(table, at, order=1 if cells > 40 else 2, mode="nearest", output=np.float32, prefilter=False)
