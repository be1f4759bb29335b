"""How each finding and device changes the chest's scene. One function each: ``draw(scene, present) -> None``."""

from __future__ import annotations

import numpy as np

from counterscan.worlds.chest_scene import SIDES, ZONES, Lung, Present, Scene
from counterscan.worlds.geometry import Array, ellipsoid, ramp, smooth_noise, spline, tube


def _lung(scene: Scene, present: Present) -> Lung:
    return scene.lungs[SIDES[present.side or "left"]]


def _fill(scene: Scene, share: Array) -> None:
    """Replace the given share (0 to 1) of the air by water-density tissue."""
    scene.air *= 1 - np.clip(share, 0, 1)


def _spot(scene: Scene, present: Present, rng: np.random.Generator) -> tuple[float, float]:
    """A place inside the asked zone of the asked lung, in patient coordinates."""
    side = SIDES[present.side or "left"]
    v = ZONES[present.place or "middle"] + 0.04 * rng.standard_normal()
    return side * (0.2 + (0.26 if v > -0.2 else 0.16) * rng.uniform(0.25, 0.95)), v


def effusion(scene: Scene, present: Present) -> None:
    """Fluid with a meniscus that climbs along the lateral wall; its posterior film veils the base above the level."""
    rng, lung = scene.anatomy.rng("effusion"), _lung(scene, present)
    level = 0.36 + scene.anatomy.inspiration - 0.02 - 0.62 * present.severity
    climb = (0.1 + 0.1 * rng.random()) * np.clip(lung.across, 0, 1.1) ** 3
    depth = scene.v - level + climb
    inside = (lung.across > -0.2) & (lung.across < 1.2)
    _fill(scene, inside * (0.93 * ramp(depth, 0.035) + 0.22 * ramp(depth + 0.16, 0.12) * (depth < 0.2)))


def consolidation(scene: Scene, present: Present) -> None:
    """Patchy airspace filling with soft, irregular borders."""
    rng, side = scene.anatomy.rng("consolidation"), SIDES[present.side or "left"]
    u0, v0 = _spot(scene, present, rng)
    a = 0.13 + 0.11 * present.severity
    q = ((scene.u - u0) / a) ** 2 + ((scene.v - v0) / (a * rng.uniform(0.8, 1.2))) ** 2
    shape = np.exp(-0.9 * q) * (
        1 + 0.38 * smooth_noise(rng, scene.u, scene.v, 26) + 0.2 * smooth_noise(rng, scene.u, scene.v, 60)
    )
    _fill(scene, (0.55 + 0.3 * present.severity) * ramp(shape - 0.42, 0.34) * (side * scene.u > 0))


def nodule(scene: Scene, present: Present) -> None:
    """A solid sphere with a slightly lobulated edge."""
    rng = scene.anatomy.rng("nodule")
    u0, v0 = _spot(scene, present, rng)
    r = 0.035 + 0.05 * present.severity
    window, chord = ellipsoid(
        scene.anatomy.frame, scene.u, scene.v, (u0, v0), (r, r * rng.uniform(0.85, 1.1), 0.05 + r), 0.0, 2.3
    )
    scene.soft[window] += 0.75 * chord


def pneumothorax(scene: Scene, present: Present) -> None:
    """Air between wall and lung, widest at the apex: a thin pleural line, no vessels beyond it."""
    rng, lung = scene.anatomy.rng("pneumothorax"), _lung(scene, present)
    share = (0.1 + 0.4 * present.severity) * (1 + 0.1 * rng.standard_normal())
    height = np.clip((0.35 - scene.v) / 0.95, 0, 1)
    border = 1 - share * (0.45 + 0.9 * height**1.5)
    apex = scene.v + 0.66 - 1.1 * share * np.clip(lung.across, 0, 1)
    beyond = np.maximum(ramp(lung.across - border, 0.012), ramp(-apex, 0.012)) * (lung.air > 0)
    scene.soft *= 1 - beyond
    scene.soft -= 0.09 * np.minimum(lung.air, 0.5) * beyond
    kept = (1 - beyond) * (lung.air > 0)
    scene.soft += 0.05 * present.severity * np.minimum(lung.air, 0.5) * kept
    scene.soft += 0.075 * np.clip(4 * beyond * (1 - beyond), 0, 1) * np.clip(lung.air / 0.15, 0, 1)


def edema(scene: Scene, present: Present) -> None:
    """Perihilar haze of both lungs with a patchy and a lineal component; the vessels thicken in the scene itself."""
    rng = scene.anatomy.rng("edema")
    radius = np.hypot((np.abs(scene.u) - 0.2) / 0.3, (scene.v - 0.02) / 0.42)
    haze = np.exp(-0.8 * radius**2) * (
        1 + 0.22 * smooth_noise(rng, scene.u, scene.v, 20) + 0.16 * smooth_noise(rng, scene.u, scene.v, 55)
    )
    _fill(scene, (0.22 + 0.4 * present.severity) * haze + 0.05)


def atelectasis(scene: Scene, present: Present) -> None:
    """One to three plate-like bands in the asked zone."""
    rng, side = scene.anatomy.rng("atelectasis"), SIDES[present.side or "left"]
    u0, v0 = _spot(scene, present, rng)
    layer = np.zeros_like(scene.air)
    for i in range(1 + int(2.99 * present.severity)):
        angle, length = side * (0.25 * rng.standard_normal() - 0.15), rng.uniform(0.17, 0.3)
        c, s = length * np.cos(angle), length * np.sin(angle)
        v = v0 + 0.07 * i
        path = spline([(u0 - c / 2, v - s / 2), (u0, v + 0.015 * rng.standard_normal()), (u0 + c / 2, v + s / 2)])
        width = (0.011 + 0.012 * present.severity) * np.sin(np.linspace(0.35, np.pi - 0.25, len(path)))
        tube(scene.anatomy.frame, layer, path, width)
    scene.soft += np.minimum(4.5 * layer, 0.16 + 0.06 * present.severity) * np.clip(scene.air / 0.2, 0, 1)


def _vein(side: int, start: tuple[float, float], lean: float) -> list[tuple[float, float]]:
    """Way-points of subclavian vein, brachiocephalic vein and superior vena cava from a start near the shoulder."""
    cross = [(side * 0.22, -0.56), (side * 0.07, -0.47)] if side < 0 else [(0.22, -0.55), (0.05, -0.46), (-0.05, -0.4)]
    return [start, *cross, (-0.09 + lean, -0.33), (-0.1 + lean, -0.12)]


def pacemaker(scene: Scene, present: Present) -> None:
    """A generator in the upper chest wall with one or two leads to atrium and ventricle."""
    a, rng, side = scene.anatomy, scene.anatomy.rng("pacemaker"), SIDES[present.side or "left"]
    at = (side * rng.uniform(0.42, 0.52), -0.42 + 0.05 * rng.standard_normal())
    tilt, size = rng.uniform(-0.5, 0.5), rng.uniform(0.085, 0.11)
    window, chord = ellipsoid(a.frame, scene.u, scene.v, at, (size, size * 0.85, 0.02), tilt, 3.2)
    scene.metal[window] += 0.8 * chord
    header = (at[0] - side * 0.5 * size, at[1] - 0.8 * size)
    window, chord = ellipsoid(a.frame, scene.u, scene.v, header, (size * 0.45, size * 0.35, 0.012), tilt, 3.0)
    scene.metal[window] += 0.5 * chord
    for lead in range(1 + (rng.random() < 0.6)):
        bow = 0.02 * lead
        way = _vein(side, header, a.lean(0.05) + bow)
        end = (
            [(-0.1 + bow, 0.18), (0.02, 0.34), (0.2 + 0.05 * rng.random(), 0.32)]
            if lead == 0
            else [(-0.13, 0.08), (-0.17, 0.0)]
        )
        path = spline([*way, *[(x, y + a.inspiration) for x, y in end]], 160)
        scene.line(path, 0.0065, 0.9)
        scene.line(path[-6:], 0.012, 1.0)
        scene.line(path[-14:-11], 0.011, 1.0)


def port(scene: Scene, present: Present) -> None:
    """A reservoir in the chest wall and a thin catheter into the superior vena cava."""
    a, rng, side = scene.anatomy, scene.anatomy.rng("port"), SIDES[present.side or "right"]
    at = (side * rng.uniform(0.34, 0.46), -0.28 + 0.06 * rng.standard_normal())
    r = rng.uniform(0.05, 0.062)
    for scale, sign in ((1.0, 0.55), (0.55, -0.3)):
        window, chord = ellipsoid(a.frame, scene.u, scene.v, at, (r * scale, r * scale * 1.1, 0.014), 0.0, 2.6)
        scene.metal[window] += sign * chord
    path = spline(_vein(side, (at[0], at[1] - r), a.lean(0.05)), 120)
    path = np.concatenate([spline([at, (at[0] + side * 0.02, at[1] - 0.12), tuple(path[20])], 30), path[21:]])
    scene.line(path, 0.0085, 0.4)


def central_line(scene: Scene, present: Present) -> None:
    """A catheter from the jugular vein of one side down to the superior vena cava."""
    a, rng, side = scene.anatomy, scene.anatomy.rng("line"), SIDES[present.side or "right"]
    x = side * rng.uniform(0.13, 0.2)
    mid = [(side * 0.1, -0.52)] if side < 0 else [(0.1, -0.54), (0.02, -0.44)]
    tip = -0.1 + a.lean(0.05)
    path = spline(
        [(x + side * 0.14, -1.0), (x, -0.78), *mid, (tip, -0.34), (tip - 0.01, -0.12 + 0.06 * rng.standard_normal())],
        140,
    )
    scene.line(path, 0.0095, 0.42)


def electrodes(scene: Scene, present: Present) -> None:
    """Three to five ECG electrodes on the skin, each with a snap and a wire that leaves the field."""
    a, rng = scene.anatomy, scene.anatomy.rng("electrodes")
    sites = np.array([(-0.5, -0.5), (0.5, -0.5), (0.56, 0.2), (-0.54, 0.25), (0.1, 0.1)])[: rng.integers(3, 6)]
    exit_side = rng.choice([-1, 1])
    for site in sites + 0.05 * rng.standard_normal(sites.shape):
        window, chord = ellipsoid(a.frame, scene.u, scene.v, site, (0.024, 0.024, 0.011), 0.0, 2.4)
        scene.metal[window] += 0.8 * chord
        window, chord = ellipsoid(a.frame, scene.u, scene.v, site, (0.055, 0.05, 0.0012), 0.0, 3.0)
        scene.metal[window] += 0.9 * chord
        way = site + np.array([exit_side * rng.uniform(0.15, 0.35), rng.uniform(0.05, 0.3)])
        path = spline(
            [
                site,
                way,
                (exit_side * rng.uniform(0.55, 0.9), rng.uniform(0.4, 1.1)),
                (exit_side * 1.3, rng.uniform(0.5, 1.3)),
            ],
            120,
        )
        scene.line(path, 0.007, 0.35)


def tracheal_tube(scene: Scene, present: Present) -> None:
    """A tube in the trachea with its opaque stripe, the tip some way above the carina."""
    a, rng = scene.anatomy, scene.anatomy.rng("ett")
    x, tip = a.lean(0.08), -0.36 + 0.05 * rng.standard_normal()
    path = spline([(0.02 * rng.standard_normal(), -1.1), (x, -0.75), (x + 0.005, tip)], 80)
    scene.line(path, 0.025, 0.13, 0.8)
    scene.line(path + (0.012, 0.0), 0.006, 0.7)


DRAW = {
    "pulmonary edema": edema,
    "consolidation": consolidation,
    "atelectasis": atelectasis,
    "lung nodule": nodule,
    "pneumothorax": pneumothorax,
    "pleural effusion": effusion,
    "cardiomegaly": lambda scene, present: None,  # drawn with the heart itself
    "pacemaker": pacemaker,
    "chest port": port,
    "central line": central_line,
    "ecg electrodes": electrodes,
    "endotracheal tube": tracheal_tube,
}
