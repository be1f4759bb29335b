"""The chest's 3-D scene: analytic solids seen by parallel rays, summed to an attenuation map (Beer-Lambert exponent).

Lengths are in frame units (the detector is 2 wide); attenuation coefficients are per frame unit and chosen so that the
mediastinum reaches an exponent of about 4. ``side`` is +1 for the patient's left (image right) and -1 for the right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from counterscan.worlds.geometry import Array, Frame, ellipsoid, ramp, smooth_noise, spline, tube

TISSUE, BONE, METAL = 4.0, 8.5, 60.0
SIDES = {"left": 1, "right": -1}
ZONES = {"upper": -0.34, "middle": -0.06, "lower": 0.2}


@dataclass(frozen=True)
class Anatomy:
    """Exogenous anatomy and acquisition of one patient: drawn once, untouched by any intervention."""

    seed: int
    female: bool
    ap: bool
    width: float  # half-width of the rib cage
    habitus: float  # soft-tissue thickness, 1 = average
    inspiration: float  # how far the diaphragm is below its mean, frame units
    rotation: float  # radians about the vertical axis
    heart: float  # transverse heart scale, 1 = average
    frame: Frame

    def rng(self, name: str) -> np.random.Generator:
        """The stream of one part, independent of every other part's, so that interventions leave the rest alone."""
        return np.random.default_rng([self.seed, *name.encode()])

    def lean(self, depth: float) -> float:
        """Lateral displacement of a structure ``depth`` in front of the rotation axis."""
        return float(np.sin(self.rotation) * depth)


@dataclass(frozen=True)
class Lung:
    """One lung field. ``across`` is 0 at the medial and 1 at the lateral border; ``air`` the chord through it."""

    side: int
    across: Array
    air: Array
    dome: Array  # depth below the silhouette of the diaphragm, > 0 below it


@dataclass
class Scene:
    """Accumulators of one rendering, all float32 (H, W)."""

    anatomy: Anatomy
    u: Array
    v: Array
    lungs: dict[int, Lung]
    body: Array
    air: Array  # lung air still in place
    soft: Array  # soft tissue added inside air-filled space
    bone: Array
    metal: Array

    def attenuation(self) -> Array:
        """The exponent of Beer-Lambert's law."""
        tissue = np.maximum(self.body - 0.82 * self.air, 0) + self.soft
        return TISSUE * tissue + BONE * self.bone + METAL * self.metal

    def line(self, path: np.ndarray, radius: float | np.ndarray, strength: float = 1.0, hollow: float = 0.0) -> None:
        """A radio-opaque line on the metal layer."""
        layer = np.zeros_like(self.metal)
        tube(self.anatomy.frame, layer, path, radius, hollow)
        self.metal += strength * layer


@dataclass(frozen=True)
class Present:
    """A finding that is there: side (or None), zone (or None) and severity in [0, 1]."""

    side: str | None
    place: str | None
    severity: float


def wall(anatomy: Anatomy, v: Array) -> Array:
    """Inner half-width of the rib cage at height v."""
    up = np.clip(0.4 - v, 0, 1.3)
    return anatomy.width * (1 - 0.36 * up**2.3 - 0.05 * np.clip(v - 0.4, 0, 1))


def lung(anatomy: Anatomy, u: Array, v: Array, side: int) -> Lung:
    """One lung: lateral wall, rounded apex, and a diaphragm whose dome is a paraboloid in depth as well."""
    rng = anatomy.rng(f"lung{side}")
    apex = -0.66 + 0.05 * rng.standard_normal() - 0.02 * side
    turn = 1 + 0.5 * side * np.sin(anatomy.rotation)
    medial = 0.095 + 0.05 * np.clip(v + 0.1, 0, 1) + (0.02 if side < 0 else 0.0)
    rounding = np.sqrt(np.clip(1 - np.clip((apex + 0.36 - v) / 0.36, 0, 1) ** 2.1, 0, 1))
    lateral = medial + (wall(anatomy, v) * turn - medial) * np.maximum(rounding, 1e-3)
    across = (side * u - medial) / (lateral - medial)
    profile = np.sqrt(np.clip(1 - np.square(np.square(2 * np.clip(across, -1, 2) - 1)), 0, 1))
    air = (0.62 * profile * rounding * (v > apex)).astype(np.float32)
    top = 0.36 + anatomy.inspiration + 0.03 * (side > 0) + 0.015 * rng.standard_normal()
    dome = (
        v
        - top
        - (0.34 + 0.1 * rng.random()) * np.maximum(across - 0.42, 0) ** 2
        - 0.08 * np.maximum(0.42 - across, 0) ** 2
    )
    blocked = np.sqrt(np.clip(dome, 0, None) / 1.1)
    air = np.maximum(air - 2 * np.minimum(air / 2, blocked), 0)
    return Lung(side, across.astype(np.float32), air.astype(np.float32), dome.astype(np.float32))


def body(anatomy: Anatomy, u: Array, v: Array) -> Array:
    """Chord through torso, shoulders, neck, arms and breasts (union by maximum, breasts added)."""
    rng, frame = anatomy.rng("body"), anatomy.frame
    fat = 0.1 + 0.12 * (anatomy.habitus - 0.8)
    outer = anatomy.width + fat + 0.05 * np.clip(v, -0.2, 1) * (anatomy.habitus - 0.9)
    out = np.abs(u)
    slope = 0.3 + 0.12 * rng.random() + (0.08 if anatomy.ap else 0.0)
    top = -0.95 + slope * (1 - np.exp(-np.clip(out - 0.14, 0, None) / 0.22)) + 0.1 * np.clip(out - 0.6, 0, None)
    skin = ramp(v - top, 0.05)
    torso = (0.66 + 0.36 * ramp(v + 0.4, 0.4)) * np.sqrt(np.clip(1 - (out / outer) ** 5, 0, 1)) * skin
    neck = 0.6 * np.sqrt(np.clip(1 - (out / 0.22) ** 2.5, 0, 1))
    shoulder = (
        0.56
        * np.sqrt(np.clip(1 - (out / 1.12) ** 6, 0, 1))
        * skin
        * ramp(-0.12 - v - 0.25 * np.clip(out - 0.6, 0, 1), 0.22)
    )
    total = np.maximum(np.maximum(torso, neck), shoulder).astype(np.float32)
    for side in (-1, 1):
        arm = (side * (anatomy.width + fat + (0.17 if anatomy.ap else 0.25)), 0.2)
        window, chord = ellipsoid(frame, u, v, arm, (0.14, 1.0, 0.2), -side * (0.1 if anatomy.ap else 0.2))
        total[window] = np.maximum(total[window], chord)
    total *= (0.8 + 0.2 * anatomy.habitus) * (0.94 + 0.1 * np.clip(v, -0.6, 1))
    if anatomy.female:
        size = rng.uniform(0.2, 0.3)
        for side in (-1, 1):
            at = (side * rng.uniform(0.36, 0.45) + anatomy.lean(0.4), rng.uniform(0.18, 0.36))
            window, chord = ellipsoid(frame, u, v, at, (size * 1.1, size * 1.1, 0.07), 0.0, 2.2)
            total[window] += chord * ramp(v[window] - at[1] + 0.02, 0.2)
    return total


def skeleton(scene: Scene) -> None:
    """Vertebrae, ribs (posterior arcs bright, anterior arcs faint), clavicles, scapulae and humeral heads."""
    a, u, v, frame = scene.anatomy, scene.u, scene.v, scene.anatomy.frame
    rng = a.rng("bone")
    spine = u - a.lean(-0.35) - 0.02 * np.sin(2.2 * v + rng.uniform(0, 6)) * rng.uniform(0, 1)
    pitch, phase = rng.uniform(0.13, 0.15), rng.uniform(0, 1)
    disc = 0.6 + 0.4 * np.cos(2 * np.pi * (v / pitch + phase)).clip(-1, 0.6)
    scene.bone += 0.055 * np.sqrt(np.clip(1 - (np.abs(spine) / 0.085) ** 4, 0, 1)) * disc
    gap, first = rng.uniform(0.112, 0.128), -0.62 + 0.03 * rng.standard_normal()
    layer = np.zeros_like(scene.bone)
    for side in (-1, 1):
        for i in range(11):
            _rib(layer, scene, side, first + gap * i, i)
        head = (side * 0.07 + a.lean(0.3), -0.53 + (0.0 if a.ap else 0.05) + 0.02 * rng.standard_normal())
        lift = rng.uniform(0.1, 0.16) * (0.6 if a.ap else 1.0)
        path = spline(
            [
                head,
                (head[0] + side * 0.17, head[1] - 0.2 * lift),
                (side * 0.42, head[1] - lift),
                (side * 0.62, head[1] - lift),
            ]
        )
        tube(frame, layer, path, np.linspace(0.04, 0.028, len(path)), 0.72)
        _scapula(layer, scene, side, rng)
    scene.bone += layer


def _rib(layer: Array, scene: Scene, side: int, v0: float, i: int) -> None:
    """One rib: the posterior arc from the spine to the lateral wall, and the anterior arc back to the cartilage."""
    a = scene.anatomy
    rng = a.rng(f"rib{side}{i}")
    reach = float(wall(a, np.array(v0 + 0.1))) * (0.55 if i == 0 else 0.8 if i == 1 else 1.0) + 0.02
    half = 0.021 + 0.002 * rng.standard_normal()
    drop = 0.05 + 0.012 * i + 0.008 * rng.standard_normal()

    def arc(first: float, top: float, bottom: float, chord: Callable[[Array, Array], Array]) -> None:
        """Draw ``chord(share of the way to the wall, v)`` in the window beyond the share ``first``."""
        ends = side * (0.05 + first * (reach - 0.05)), side * (reach + 0.05)
        window = a.frame.box(min(ends), max(ends), top, bottom)
        x, y = side * scene.u[window], scene.v[window]
        s = np.clip((x - 0.05) / (reach - 0.05), 0, 1)
        inside = (x > 0.05) & (x < reach + 0.01)
        layer[window] = np.maximum(layer[window], chord(s, y) * inside)

    def posterior(s: Array, y: Array) -> Array:
        at = v0 + drop * s**1.3 - 0.07 * np.sin(np.pi * np.clip(s * 1.05, 0, 1)) + 0.1 * s**7
        return _band(y - at, half) * 0.045 * (1 + 0.9 * s**5)

    def anterior(s: Array, y: Array) -> Array:
        at = turn + slope * (1 - s) ** 0.9 * 1.1 - 0.06 * np.clip(s - 0.85, 0, 1)
        return _band(y - at, half * 1.15) * 0.027 * ramp(s - end, 0.03)

    arc(0.0, v0 - 0.07 - 1.2 * half, v0 + drop + 0.1 + 1.2 * half, posterior)
    if 1 <= i <= 7:
        turn, slope, end = v0 + drop + 0.1, 0.16 + 0.025 * i, 0.42 + 0.03 * rng.standard_normal()
        first = end - 0.03
        arc(first, turn - 0.01 - 1.2 * half, turn + 1.1 * slope * (1 - first) ** 0.9 + 1.2 * half, anterior)


def _band(distance: Array, half: float) -> Array:
    """Chord of a hollow tube seen along its length: brighter at its cortical borders; 0 to about 1."""
    q = np.clip(np.abs(distance) / half, 0, 1) ** 2
    return 1.35 * np.sqrt(1 - q) - 0.85 * np.sqrt(np.clip(1 - q / 0.6, 0, 1)) * (q < 0.6)


def _scapula(layer: Array, scene: Scene, side: int, rng: np.random.Generator) -> None:
    a, frame = scene.anatomy, scene.anatomy.frame
    x = side * (a.width + (-0.1 if a.ap else 0.02) + 0.02 * rng.standard_normal())
    window, chord = ellipsoid(frame, scene.u, scene.v, (x, -0.3), (0.12, 0.3, 0.016), -side * 0.3, 3.0)
    layer[window] = np.maximum(layer[window], chord)
    tube(frame, layer, spline([(x - side * 0.1, -0.5), (x - side * 0.02, -0.25), (x + side * 0.05, -0.02)]), 0.014, 0.4)
    window, chord = ellipsoid(frame, scene.u, scene.v, (side * 0.8, -0.56), (0.1, 0.11, 0.03), 0.0, 2.5)
    layer[window] = np.maximum(layer[window], chord)
    tube(frame, layer, spline([(side * 0.82, -0.5), (side * 0.9, -0.1), (side * 0.97, 0.4)]), 0.05, 0.8)


def centre(scene: Scene, enlargement: float) -> None:
    """Heart, great vessels and airways: they displace air; the airway takes tissue away."""
    a, u, v, frame = scene.anatomy, scene.u, scene.v, scene.anatomy.frame
    rng = a.rng("heart")
    scale = a.heart * (1.14 if a.ap else 1.0) * enlargement
    base = 0.3 + a.inspiration * 0.9
    x = 0.1 + a.lean(0.25) + 0.14 * (scale - 1)
    solids = [
        ((x, base - 0.06), (0.27 * scale, 0.25 * (0.6 + 0.4 * scale), 0.3), 0.55),
        ((x - 0.13, base - 0.04), (0.19 * (0.5 + 0.5 * scale), 0.24, 0.26), 0.1),
        ((0.01 + a.lean(0.1), -0.18), (0.135, 0.42, 0.28), 0.0),
    ]
    knob = rng.uniform(0.8, 1.25)
    solids += [
        ((0.115 * knob + a.lean(0.1), -0.27), (0.078 * knob, 0.095, 0.2), 0.0),
        ((0.09, -0.02), (0.13, 0.21, 0.2), 0.25),
    ]
    for c, axes, tilt in solids:
        window, chord = ellipsoid(frame, u, v, c, axes, tilt, 2.3)
        scene.air[window] = np.maximum(scene.air[window] - 1.6 * chord, 0)
    aorta = np.zeros_like(scene.air)
    tube(frame, aorta, spline([(0.12, -0.25), (0.13 + a.lean(-0.2), 0.0), (0.08 + a.lean(-0.2), 0.4)]), 0.06)
    scene.soft += 0.35 * aorta
    lumen = np.zeros_like(scene.air)
    carina = (0.01 + a.lean(0.05), -0.22)
    tube(frame, lumen, spline([(0.0, -1.1), (0.0 + a.lean(0.1), -0.6), carina]), 0.045)
    tube(frame, lumen, spline([carina, (-0.12, -0.08)]), 0.032)
    tube(frame, lumen, spline([carina, (0.14, -0.1)]), 0.03)
    scene.soft -= 1.1 * lumen
    window, chord = ellipsoid(
        frame, u, v, (0.3, 0.56 + a.inspiration), (rng.uniform(0.07, 0.2), rng.uniform(0.05, 0.12), 0.11), 0.2
    )
    scene.soft[window] -= rng.uniform(0.2, 1.0) * chord * (scene.lungs[1].dome[window] > 0.04)


def vessels(scene: Scene, prominence: float) -> None:
    """Three generations of branching vessels from each hilum, and the lung's fine texture."""
    a, frame = scene.anatomy, scene.anatomy.frame
    layer = np.zeros_like(scene.air)
    branches: dict[float, list[list[np.ndarray]]] = {}
    for side in (-1, 1):
        rng = a.rng(f"vessel{side}")
        root = np.array([side * 0.15 + a.lean(0.05), -0.09 + 0.03 * (side < 0)])
        window, chord = ellipsoid(frame, scene.u, scene.v, root + (side * 0.03, 0.03), (0.07, 0.12, 0.05), side * 0.25)
        layer[window] = np.maximum(layer[window], chord)
        for angle in np.linspace(-1.25, 1.35, 8) + 0.12 * rng.standard_normal(8):
            _branch(branches, rng, root, angle, side, 0.36, 0.019, 3)
    # all of one generation at once: a hundred calls took half of a rendering's time
    for radius, curves in branches.items():
        paths = spline(np.swapaxes(np.array(curves), 0, 1), 16).swapaxes(0, 1)
        tube(frame, layer, paths, np.linspace(radius, 0.45 * radius, 16))
    fill = np.clip(scene.air / 0.25, 0, 1)
    texture = 0.012 * smooth_noise(a.rng("texture"), scene.u, scene.v, 70) + 0.012 * smooth_noise(
        a.rng("mist"), scene.u, scene.v, 9
    )
    scene.soft += fill * (prominence * layer * 1.5 + texture)


def _branch(
    found: dict[float, list[list[np.ndarray]]],
    rng: np.random.Generator,
    root: np.ndarray,
    angle: float,
    side: int,
    length: float,
    radius: float,
    left: int,
) -> None:
    """Add the control points of a vessel and its branches to those of the same radius."""
    bend = 0.25 * rng.standard_normal()
    mid = root + 0.5 * length * np.array([side * np.cos(angle), np.sin(angle)])
    tip = mid + 0.5 * length * np.array([side * np.cos(angle + bend), np.sin(angle + bend)])
    found.setdefault(radius, []).append([root, mid, tip])
    if left > 1:
        for split in (-0.45, 0.4):
            start = mid if split > 0 else tip
            turn = angle + bend * 0.5 + split * rng.uniform(0.6, 1.4)
            _branch(found, rng, start, turn, side, length * 0.62, radius * 0.55, left - 1)


def build(
    anatomy: Anatomy, findings: Mapping[str, Present], draw: Mapping[str, Callable[[Scene, Present], None]]
) -> Scene:
    """The scene of one patient with the given findings; each finding's drawing function acts on the scene in order."""
    u, v = anatomy.frame.grid()
    lungs = {side: lung(anatomy, u, v, side) for side in (-1, 1)}
    zero = np.zeros_like(u)
    air = lungs[-1].air + lungs[1].air
    scene = Scene(anatomy, u, v, lungs, body(anatomy, u, v), air, zero.copy(), zero.copy(), zero.copy())
    heart = findings.get("cardiomegaly")
    centre(scene, 1.22 + 0.4 * heart.severity if heart else 1.0)
    edema = findings.get("pulmonary edema")
    vessels(scene, 1.0 + (0.4 + 0.5 * edema.severity if edema else 0.0))
    skeleton(scene)
    for name, function in draw.items():
        if name in findings:
            function(scene, findings[name])
    return scene
