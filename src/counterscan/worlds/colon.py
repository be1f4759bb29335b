"""The colon world: endoscopy pictures (RGB) of a 3-D scene from a structural causal model, with exact counterfactuals.

A folded tube with vessels and wet highlights is lit and seen from inside, as by a colonoscope; polyps grow out of its wall
and instruments reach into it. All noise belongs to the case's seed: ``intervene`` sees the same bowel from the same
place, under the same exposure and sensor noise, with only the asked findings changed. No real patient is involved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from counterscan.language.phrase import phrase, prompt
from counterscan.worlds import colon_light
from counterscan.worlds.chest_scene import Present
from counterscan.worlds.colon_objects import COLOURS, Polyp, Rod, depths_with, forceps, grow, grown, snare
from counterscan.worlds.colon_scene import MILLIMETRES, NEAR, Camera, Wall, depths, march, normals, stream
from counterscan.worlds.findings import changed, drawn, spelled
from counterscan.worlds.geometry import Array

PARIS: Mapping[str, str] = MappingProxyType({"sessile polyp": "is", "pedunculated polyp": "ip", "flat polyp": "iia"})
"""The polyps and their type by the Paris classification."""
INSTRUMENTS = ("biopsy forceps", "polyp snare")
FINDINGS = (*PARIS, *INSTRUMENTS, "box artefact")
SIDES: Mapping[str, int] = MappingProxyType({"left": -1, "right": 1})
PLACES: Mapping[str, int] = MappingProxyType({"upper": -1, "lower": 1})
"""Sides and places are the image's: a polyp lies there, an instrument comes in from there."""
SIZES = ("small", "moderate", "large")
SMALLEST, LARGEST = 3.0, 30.0  # mm across, at severity 0 and 1
USUAL: Mapping[str, float] = MappingProxyType({**dict.fromkeys(FINDINGS, 0.25), **dict.fromkeys(INSTRUMENTS, 0.18)})
VISIBLE = 0.02
"""A pixel belongs to the true change mask when a noise-free colour changes by more than this."""


@dataclass(frozen=True)
class Mechanism:
    """``prevalence`` gives P(finding); ``agree[(child, parent)] = r`` makes the child equal the parent with probability r."""

    prevalence: Mapping[str, float] = field(default_factory=lambda: USUAL)
    agree: Mapping[tuple[str, str], float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Case:
    """One picture and its causes. ``image`` and the noise-free ``clean`` are float32 (H, W, 3) in [0, 1], red, green, blue;
    ``lesion`` bool (H, W) is where a polyp is seen; ``text`` whether letters are laid over the picture.
    """

    seed: int
    size: int
    findings: Mapping[str, Present]
    image: Array
    clean: Array
    lesion: NDArray[np.bool_]
    text: bool

    @property
    def view(self) -> str:
        """Always ``"colonoscopy"``."""
        return "colonoscopy"

    @property
    def caption(self) -> str:
        """The terse form: every finding with size, side and place."""
        return prompt([words(n, p) for n, p in self.findings.items()], template="world colonoscopy")

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        """One true sentence a fact, in the style of the ImageCLEFmed MEDVQA-GI prompts."""
        return tuple(f"Generate {text}." for text in _sentences(self))


def severity_word(name: str, severity: float) -> str | None:
    """The word for a severity in [0, 1]; only polyps have sizes."""
    return SIZES[min(int(severity * 3), 2)] if name in PARIS else None


def words(name: str, present: Present) -> str:
    """``"small left upper sessile polyp"``."""
    return phrase(name, side=present.side, place=present.place, severity=severity_word(name, present.severity))


def millimetres(present: Present) -> float:
    """How far across a polyp is asked to be; one that would swallow the camera is drawn smaller."""
    return float(SMALLEST * (LARGEST / SMALLEST) ** present.severity)


def sample(rng: np.random.Generator | int, *, size: int = 128, mechanism: Mechanism | None = None) -> Case:
    """Draw one case; equal seeds give equal cases on any machine. ``rng`` is a generator (advanced by one draw) or a seed."""
    seed = int(rng.integers(2**62)) if isinstance(rng, np.random.Generator) else int(rng)
    mechanism = mechanism or Mechanism()
    there = drawn(
        FINDINGS, mechanism.prevalence, mechanism.agree, lambda name: stream(seed, "present " + name).random()
    )
    return _render(seed, size, {name: attributes(seed, name) for name in there})


def intervene(case: Case, changes: Mapping[str, bool | Present] | None = None, **named: bool | Present) -> Case:
    """The exact counterfactual: the same bowel, view and noise with some findings set to absent, present or a ``Present``.

    Raises:
        WordsError: a finding this world does not have.
    """
    new = changed("colon", FINDINGS, case.findings, spelled(changes, named), lambda name: attributes(case.seed, name))
    return _render(case.seed, case.size, new)


def change_mask(case: Case, other: Case) -> NDArray[np.bool_]:
    """The true change mask, bool (H, W): where a noise-free colour differs visibly."""
    changed: NDArray[np.bool_] = np.abs(case.clean - other.clean).max(axis=2) > VISIBLE
    return changed


def attributes(seed: int, name: str) -> Present:
    """Side, place and size that this case's exogenous noise gives a finding, present or not."""
    rng = stream(seed, "attributes " + name)
    if name == "box artefact":
        return Present(None, None, 0.5)
    if name in PARIS:
        return Present(str(rng.choice(list(SIDES))), str(rng.choice(list(PLACES))), float(rng.random()))
    side, place = [("right", "lower"), ("left", "lower"), ("left", "upper")][int(rng.choice(3, p=[0.65, 0.15, 0.2]))]
    return Present(side, place, 0.5)


def _render(seed: int, size: int, findings: Mapping[str, Present]) -> Case:
    axis = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    u, v = (np.ascontiguousarray(a) for a in np.broadcast_arrays(axis[None], axis[:, None]))
    camera, wall = _empty(seed)[:2]
    gain = _exposure(seed)
    polyps = [_polyp(seed, name, findings[name]) for name in PARIS if name in findings]
    rods = [rod for name in INSTRUMENTS if name in findings for rod in _tool(seed, name, findings[name])]
    surface = grown(wall.distance, polyps)
    rays = camera.rays(u.ravel(), v.ravel())
    t = depths_with(polyps, wall.distance, camera, rays, depths(camera, u, v, wall.distance))
    p = camera.place[:, None] + rays * t
    colour, lesion = _painted(seed, p, wall, polyps)
    light = colon_light.lit(seed, p, rays, t, normals(p, surface), colour, gain)
    front = colon_light.with_rods(light, t, rods, camera.place, rays, gain, 2 * camera.field / size)
    lesion &= np.abs(front - light).max(0) <= VISIBLE  # what an instrument hides is not seen
    opening = colon_light.window(seed, u, v)
    clean = colon_light.display(seed, front.T.reshape(size, size, 3)) * opening[..., None]
    clean, image, shown = _video(seed, clean.astype(np.float32), "box artefact" in findings)
    seen = lesion.reshape(size, size) & (opening > 0.5) & shown
    return Case(seed, size, MappingProxyType(dict(findings)), image, clean, seen, colon_light.has_text(seed))


def _video(seed: int, clean: Array, boxed: bool) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Sensor noise, then what the processor lays over the picture, which has none: clean, noisy, and bool (H, W) where
    the picture is still seen.
    """
    size = clean.shape[0]
    rng = stream(seed, "noise")
    sigma = rng.uniform(0.004, 0.014) * (size / 128) ** 0.5
    grain = rng.standard_normal(clean.shape).astype(np.float32) * np.float32(sigma)
    image = np.clip(clean + grain * np.sqrt(clean), 0, 1)
    shown = np.ones(clean.shape[:2], bool)
    letters = colon_light.text(seed, size)[..., None] if colon_light.has_text(seed) else 0
    rows, columns, pixels = colon_light.box(seed, size)
    for layer in (clean, image):
        np.maximum(layer, letters, out=layer)
        if boxed:
            layer[rows, columns] = pixels
    if boxed:
        shown[rows, columns] = False
    return clean, image, shown


@lru_cache(maxsize=4)
def _empty(seed: int) -> tuple[Camera, Wall, Array, Array]:
    """The bowel without findings, looked at in a grid of places: frame points (2, 64), how far the wall is there (64,)."""
    camera, wall = Camera.draw(seed), Wall.draw(seed)
    at = np.linspace(-0.63, 0.63, 8, dtype=np.float32)
    spots = np.stack([a.ravel() for a in np.meshgrid(at, at)])
    start = np.full(spots.shape[1], NEAR, np.float32)
    return camera, wall, spots, march(start, camera.place, camera.rays(*spots), wall.distance)


def _exposure(seed: int) -> float:
    """The gain that shows the empty bowel well; findings do not move it, or every pixel would change with them."""
    usual = np.quantile(colon_light.falls(_empty(seed)[3]), 0.6)
    return float(stream(seed, "exposure").uniform(0.95, 2.1) / usual)


def _sight(seed: int, name: str, present: Present, wish: float) -> tuple[Array, Array, float]:
    """A place on the empty wall in the finding's quarter of the picture, near ``wish`` away: ray, point (3,), distance."""
    camera, _, spots, t = _empty(seed)
    quarter = np.array([[SIDES[present.side or "right"]], [PLACES[present.place or "lower"]]]) * spots
    chance = stream(seed, "place " + name).normal(0, 0.25, t.shape)
    best = int(np.where((quarter > 0.05).all(0), np.abs(np.log(t / wish)) + chance, np.inf).argmin())
    ray = camera.rays(*spots[:, best : best + 1])[:, 0]
    return ray, camera.place + ray * t[best], float(t[best])


def _grounds(seed: int, name: str, present: Present) -> tuple[float, Array, Array]:
    """A polyp's radius, the ray to it and where it grows; one that would swallow the camera is smaller than asked."""
    stalked = name == "pedunculated polyp"
    radius = millimetres(present) / 2 / MILLIMETRES
    ray, foot, t = _sight(seed, name, present, max(0.9, (4.5 if stalked else 3.5) * radius))
    return min(radius, (0.25 if stalked else 0.38) * t), ray, foot


def _polyp(seed: int, name: str, present: Present) -> Polyp:
    radius, ray, foot = _grounds(seed, name, present)
    wall = _empty(seed)[1]
    rng = stream(seed, "shape " + name)
    colour = str(rng.choice(list(COLOURS), p=[0.45, 0.1, 0.25, 0.12, 0.08]))
    head, normal = foot, normals(foot[:, None], wall.distance, 0.05)[:, 0]
    if name == "pedunculated polyp":  # the head hangs in its quarter; the stalk goes to the wall beside
        head = foot - ray * (radius * rng.uniform(1.2, 1.9))
        way = 0.6 * rng.standard_normal(3) - normal
        way = (way / np.linalg.norm(way)).astype(np.float32)
        length = march(np.full(1, NEAR, np.float32), head, way[:, None], wall.distance)
        foot = head + way * length if length < 3 * radius else foot
    return grow(name, radius, foot, normal, head, rng, colour)


def _tool(seed: int, name: str, present: Present) -> list[Rod]:
    """From beside the lens towards the middle of the picture, ending short of the wall."""
    rng = stream(seed, "tool " + name)
    camera, _, spots, depth = _empty(seed)
    way = np.array([SIDES[present.side or "right"], PLACES[present.place or "lower"]])
    at = (rng.uniform(-0.08, 0.4, 2) * way).astype(np.float32)
    free = depth[np.square(spots - at[:, None]).sum(0).argmin()]
    ray = camera.rays(at[:1], at[1:])[:, 0]
    mouth = camera.turn @ np.array([*(way * rng.uniform(0.13, 0.2, 2)), 0.02])
    tip = camera.place + ray * min(rng.uniform(0.35, 0.85), 0.85 * free)
    draw = forceps if name == "biopsy forceps" else snare
    return draw((camera.place + mouth).astype(np.float32), tip.astype(np.float32), rng)


def _painted(seed: int, p: Array, wall: Wall, polyps: list[Polyp]) -> tuple[Array, NDArray[np.bool_]]:
    """Reflectance (3, N) of the surface at the points (3, N), and where it is a polyp's."""
    colour = colon_light.mucosa(seed, p)
    lesion = np.zeros(p.shape[1], bool)
    plain = colour.mean(1, keepdims=True)
    depth = wall.distance(p) if polyps else p[0]
    for polyp in polyps:
        away = np.square(p - polyp.middle[:, None]).sum(0) / polyp.reach**2
        near = np.flatnonzero(away < 1)
        q = p[:, near]
        gap = polyp.distance(q)
        weight = np.clip(0.5 + (depth[near] - gap) / (2 * polyp.blend), 0, 1)
        shade = 0.3 * np.exp(-np.square(gap / (3 * polyp.blend))) * (1 - weight) * (1 - away[near])
        colour[:, near] *= 1 - shade  # light is scarcer around its foot
        colour[:, near] += weight * (colon_light.skin(polyp, q, plain) - colour[:, near])
        lesion[near] |= weight > 0.5
    return colour, lesion


def _sentences(case: Case) -> list[str]:
    polyps = [name for name in PARIS if name in case.findings]
    tools = [name for name in INSTRUMENTS if name in case.findings]

    def count(n: int, noun: str) -> str:
        return f"no {noun}s" if n == 0 else f"1 {noun}" if n == 1 else f"{n} {noun}s"

    out = ["an image from a colonoscopy procedure", f"an image with {count(len(polyps), 'polyp')}"]
    out += [f"an image with {count(len(polyps), 'finding')}", f"an image with {count(len(tools), 'instrument')}"]
    out += ["an image containing a polyp"] if polyps else []
    out += [f"an image containing {'a ' if name == 'polyp snare' else ''}{name}" for name in tools]
    for name in polyps:
        across = 2 * MILLIMETRES * _grounds(case.seed, name, case.findings[name])[0]
        size = "< 5mm" if across < 5 else "5-10mm" if across <= 10 else "11-20mm" if across <= 20 else ">20mm"
        out += [f"an image with a polyp of size {size}", f"a polyp of type paris {PARIS[name]}"]
    places = [("abnormality", name) for name in polyps] + [("instrument", name) for name in tools]
    for noun, name in places:
        at = case.findings[name]
        out.append(f"an image with an {noun} located in the {at.place}-{at.side}")
    out.append(f"an image {'' if 'box artefact' in case.findings else 'not '}containing a green/black box artefact")
    return [*out, f"an image {'' if case.text else 'not '}containing text"]
