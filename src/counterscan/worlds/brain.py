"""The brain world: axial MRI slices in four contrasts from a structural causal model, with exact healthy twins.

A head is drawn from analytic shapes and band-limited noise (so any number of pixels shows the same patient): scalp, skull,
a folded cortex, white matter, ventricles, deep grey nuclei. Lesions replace tissue and push it aside. Each tissue has an
intensity a contrast; a smooth receive field and Rician noise complete the image. All noise belongs to the case's seed, so
``intervene`` redraws the same head under the same noise. No real patient is involved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from counterscan.language.phrase import phrase, prompt
from counterscan.worlds.chest_scene import Present
from counterscan.worlds.findings import changed, drawn, spelled
from counterscan.worlds.geometry import Array, Frame, ramp

FINDINGS = ("glioma", "meningioma", "white matter lesions")
BROADER = MappingProxyType({"lesion": FINDINGS})
"""What a model may know them all by."""
CONTRASTS = ("T1", "T1c", "T2", "FLAIR")
LOBES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"frontal": (0.3, -0.42), "temporal": (0.5, 0.04), "parietal": (0.36, 0.34), "occipital": (0.2, 0.56)}
)
"""Where a lobe's lesions are centred, (lateral, towards the back), in units of half the image's side."""
SIZES = ("small", "moderate", "large")
VISIBLE = 0.02
"""A pixel belongs to the true change mask when a noise-free contrast changes by more than this."""

# Tissue -> intensities of T1, T1c, T2, FLAIR, as after the usual scaling to the 99th percentile
TISSUE = {
    "air": (0.0, 0.0, 0.0, 0.0),
    "scalp": (0.82, 0.84, 0.6, 0.55),
    "skull": (0.08, 0.08, 0.05, 0.06),
    "csf": (0.16, 0.16, 0.95, 0.12),
    "grey": (0.47, 0.49, 0.58, 0.54),
    "white": (0.68, 0.69, 0.4, 0.42),
    "nuclei": (0.52, 0.54, 0.5, 0.48),
    "oedema": (0.44, 0.45, 0.8, 0.82),
    "core": (0.4, 0.45, 0.7, 0.68),
    "rim": (0.45, 0.95, 0.62, 0.66),
    "necrosis": (0.24, 0.25, 0.88, 0.4),
    "meningioma": (0.5, 0.92, 0.6, 0.62),
    "plaque": (0.5, 0.51, 0.72, 0.82),
}


@dataclass(frozen=True)
class Mechanism:
    """``prevalence`` gives P(finding); ``agree[(child, parent)] = r`` makes the child equal the parent with probability r."""

    prevalence: Mapping[str, float] = field(default_factory=lambda: MappingProxyType(dict.fromkeys(FINDINGS, 0.35)))
    agree: Mapping[tuple[str, str], float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Case:
    """One slice and its causes. ``image`` and the noise-free ``clean`` are float32 (H, W, 4) in [0, 1], contrasts as in
    ``CONTRASTS``; ``lesion`` bool (H, W) is where a finding's own tissue lies (core, rim, oedema, plaques).
    """

    seed: int
    size: int
    findings: Mapping[str, Present]
    age: int
    sex: str
    image: Array
    clean: Array
    lesion: NDArray[np.bool_]

    @property
    def view(self) -> str:
        """Always ``"axial"``."""
        return "axial"

    @property
    def caption(self) -> str:
        """The terse form: every finding with side, place and size."""
        return prompt([words(n, p) for n, p in self.findings.items()], template="world brain mri", sex=self.sex)


def severity_word(name: str, severity: float) -> str | None:
    """The word for a severity in [0, 1]."""
    return SIZES[min(int(severity * 3), 2)]


def words(name: str, present: Present) -> str:
    """``"large left frontal glioma"``."""
    return phrase(name, side=present.side, place=present.place, severity=severity_word(name, present.severity))


def sample(rng: np.random.Generator | int, *, size: int = 128, mechanism: Mechanism | None = None) -> Case:
    """Draw one case; equal seeds give equal cases on any machine. ``rng`` is a generator (advanced by one draw) or a seed."""
    seed = int(rng.integers(2**62)) if isinstance(rng, np.random.Generator) else int(rng)
    mechanism = mechanism or Mechanism()
    there = drawn(FINDINGS, mechanism.prevalence, mechanism.agree, lambda name: _rng(seed, "present " + name).random())
    return _render(seed, size, {name: attributes(seed, name) for name in there})


def intervene(case: Case, changes: Mapping[str, bool | Present] | None = None, **named: bool | Present) -> Case:
    """The exact counterfactual: the same head, field and noise with some findings set to absent, present or a ``Present``.

    Raises:
        WordsError: a finding this world does not have.
    """
    new = changed("brain", FINDINGS, case.findings, spelled(changes, named), lambda name: attributes(case.seed, name))
    return _render(case.seed, case.size, new)


def change_mask(case: Case, other: Case) -> NDArray[np.bool_]:
    """The true change mask, bool (H, W): where the noise-free intensities of any contrast differ visibly."""
    changed: NDArray[np.bool_] = np.abs(case.clean - other.clean).max(axis=2) > VISIBLE
    return changed


def attributes(seed: int, name: str) -> Present:
    """Side, lobe and size that this patient's exogenous noise gives a finding, present or not."""
    rng = _rng(seed, "attributes " + name)
    side, place, severity = str(rng.choice(["left", "right"])), str(rng.choice(list(LOBES))), float(rng.random())
    return Present(None, None, severity) if name == "white matter lesions" else Present(side, place, severity)


def _rng(seed: int, name: str) -> np.random.Generator:
    """The stream of one part, independent of every other part's."""
    return np.random.default_rng([seed, *name.encode()])


def _waves(rng: np.random.Generator, u: Array, v: Array, wavelength: float, count: int = 14) -> Array:
    """Band-limited noise (H, W) of about unit variance: a sum of plane waves, the same at any resolution."""
    out = np.zeros(u.shape, np.float32)
    for _ in range(count):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        k = 2 * np.pi / (wavelength * rng.uniform(0.75, 1.35))
        a, b = np.float32(k * np.cos(angle)), np.float32(k * np.sin(angle))  # double precision would halve the speed
        out += np.cos(a * u + b * v + np.float32(phase))
    return out * np.float32(np.sqrt(2 / count))


def _render(seed: int, size: int, findings: Mapping[str, Present]) -> Case:
    rng = _rng(seed, "head")
    frame = Frame(size, (0.02 * rng.standard_normal(), 0.02 * rng.standard_normal()), 1 + 0.03 * rng.standard_normal(),
                  0.05 * rng.standard_normal())  # fmt: skip
    width, length, level = 0.7 + 0.03 * rng.standard_normal(), 0.86 + 0.03 * rng.standard_normal(), rng.random()
    age, female = int(rng.integers(18, 86)), bool(rng.random() < 0.5)
    u, v = frame.grid()
    weights = _lesions(seed, findings, u, v, width, length)
    x, y = _pushed(seed, findings, u, v, width)
    clean = _tissue(seed, x, y, width, length, level, age, 2.5 / size)
    for name, weight in weights:
        clean += weight[..., None] * (np.array(TISSUE[name], np.float32) - clean)
    clean = np.clip(clean * _contrast(seed) * _field(seed, u, v)[..., None], 0, 1).astype(np.float32)
    noise = _rng(seed, "noise")
    sigma = noise.uniform(0.008, 0.025) * (size / 128) ** 0.5
    parts = noise.standard_normal((2, *clean.shape)).astype(np.float32) * np.float32(sigma)
    image = np.clip(np.hypot(clean + parts[0], parts[1]), 0, 1).astype(np.float32)
    lesion = np.zeros((size, size), bool)
    for _, weight in weights:
        lesion |= weight > 0.5
    sex = "female" if female else "male"
    return Case(seed, size, MappingProxyType(dict(findings)), age, sex, image, clean, lesion)


def _tissue(seed: int, u: Array, v: Array, width: float, length: float, level: float, age: int, soft: float) -> Array:
    """Noise-free intensities (H, W, 4) of the healthy head. ``level`` 0 is low (small ventricles), 1 high in the head."""
    rng = _rng(seed, "anatomy")
    radius = np.sqrt((u / width) ** 2 + (v / length) ** 2) * (1 + 0.012 * _waves(rng, u, v, 0.9))
    depth = (1 - radius) * width  # distance below the skin, roughly

    def above(x: Array, edge: float, scale: float = 1.0) -> Array:
        return ramp(x - np.float32(edge), soft * scale)

    image = np.zeros((*u.shape, 4), np.float32)

    def paint(name: str, weight: Array) -> None:
        image.__iadd__(weight[..., None] * (np.array(TISSUE[name], np.float32) - image))

    paint("scalp", above(depth, 0.0))
    paint("skull", above(depth, 0.035 + 0.012 * rng.random()))
    paint("csf", above(depth, 0.095))
    atrophy = np.clip((age - 50) / 60, 0, 0.6)
    folds = _waves(rng, u, v, 0.2) * 0.6 + _waves(rng, u, v, 0.11) * 0.5
    cortex = depth - 0.11 - 0.02 * atrophy
    paint("grey", above(cortex, 0.0))
    ridge = np.abs(_waves(rng, u, v, 0.24)) + 2.6 * np.clip(cortex - 0.11, 0, 1)
    sulci = above(-ridge, -(0.16 + 0.12 * atrophy), 2.0) * above(cortex, 0.0)
    paint("white", above(cortex, 0.075) * above(0.09 + 0.055 * folds + (cortex - 0.13), 0.02))
    paint("csf", 0.9 * sulci)
    fissure = above(-np.abs(u + 0.01 * _waves(rng, u, v, 0.5)), -0.012) * above(np.abs(v), 0.3 * (1 - 0.4 * level))
    paint("csf", fissure * above(depth, 0.1) * 0.85)
    scale = (0.8 + 0.5 * atrophy + 0.25 * rng.random()) * (1.1 - 0.5 * abs(level - 0.45))
    for side in (-1, 1):
        for du, dv, ru, rv in ((0.2, -0.02, 0.075, 0.17), (0.31, 0.06, 0.06, 0.2), (0.105, 0.1, 0.085, 0.12)):
            inside = 1 - np.sqrt(((side * u - du) / ru) ** 2 + ((v - dv) / rv) ** 2)
            paint("nuclei", above(inside * ru, 0.0, 1.5) * float(level < 0.75))
        bend = side * u - (0.085 + 0.22 * (v + 0.02) ** 2) * scale
        horn = 1 - np.sqrt((bend / (0.055 * scale)) ** 2 + ((v + 0.02) / (0.34 * scale)) ** 2)
        paint("csf", above(horn * 0.05, 0.0))
    third = 1 - np.sqrt((u / 0.018) ** 2 + ((v - 0.12) / 0.1) ** 2)
    paint("csf", above(third * 0.018, 0.0) * float(level < 0.6))
    return image


def _centre(seed: int, name: str, present: Present, width: float) -> tuple[float, float, float]:
    """(u, v, radius) of a lesion; the patient's left is on the image's right."""
    rng = _rng(seed, "place " + name)
    lateral, back = LOBES[present.place or "frontal"]
    sign = 1 if present.side == "left" else -1
    radius = 0.07 + 0.13 * present.severity
    jitter = 0.05 * rng.standard_normal(2).clip(-1.5, 1.5)
    u, v = sign * lateral * width / 0.7 + jitter[0], back + jitter[1]
    if name == "meningioma":  # sits on the skull: out along the ray from the centre
        reach = np.hypot(u / width, v / 0.86)
        u, v, radius = u * 0.76 / reach, v * 0.76 / reach, 0.8 * radius
    return float(u), float(v), float(radius)


def _pushed(seed: int, findings: Mapping[str, Present], u: Array, v: Array, width: float) -> tuple[Array, Array]:
    """Where the tissue seen at (u, v) would be without the tumours' mass effect: pulled back towards each of them."""
    for name in ("glioma", "meningioma"):
        if name in findings:
            cu, cv, radius = _centre(seed, name, findings[name], width)
            du, dv = u - cu, v - cv
            distance = np.sqrt(du**2 + dv**2) + 1e-6
            pull = (
                0.35
                * radius
                * np.exp(-((distance / (2.2 * radius)) ** 2))
                * ramp(distance - 0.4 * radius, 0.4 * radius)
            )
            u, v = u - pull * du / distance, v - pull * dv / distance
    return u.astype(np.float32), v.astype(np.float32)


def _lesions(
    seed: int, findings: Mapping[str, Present], u: Array, v: Array, width: float, length: float
) -> list[tuple[str, Array]]:
    """(tissue, weight (H, W) in [0, 1]) of every part of every lesion, to be painted in this order."""
    soft = 2.5 / u.shape[0]
    brain = ramp(0.86 - np.sqrt((u / width) ** 2 + (v / length) ** 2), soft)
    parts: list[tuple[str, Array]] = []
    if "white matter lesions" in findings:
        parts.append(("plaque", _plaques(seed, findings["white matter lesions"], u, v, width, soft) * brain))
    for name in ("glioma", "meningioma"):
        if name not in findings:
            continue
        cu, cv, radius = _centre(seed, name, findings[name], width)
        rng = _rng(seed, "shape " + name)
        rough = 0.22 if name == "glioma" else 0.07
        edge = radius * (1 + rough * _waves(rng, u - cu, v - cv, 2.2 * radius)) - np.sqrt((u - cu) ** 2 + (v - cv) ** 2)
        if name == "meningioma":
            parts.append(
                ("meningioma", ramp(edge, soft) * ramp(0.9 - np.sqrt((u / width) ** 2 + (v / length) ** 2), soft))
            )
            continue
        spread = edge + radius * (0.45 + 0.35 * rng.random()) * (1 + 0.5 * _waves(rng, u, v, 0.3))
        parts += [("oedema", 0.9 * ramp(spread, 3 * soft) * brain), ("core", ramp(edge, soft) * brain)]
        thick = 0.3 * radius * (1 + 0.4 * _waves(rng, u, v, 0.25))
        parts += [
            ("rim", ramp(edge, soft) * ramp(thick - edge, soft) * brain),
            ("necrosis", ramp(edge - thick, soft) * brain),
        ]
    return parts


def _plaques(seed: int, present: Present, u: Array, v: Array, width: float, soft: float) -> Array:
    """Small ovals around the ventricles and in the white matter; more with severity."""
    rng = _rng(seed, "plaques")
    weight = np.zeros(u.shape, np.float32)
    for k in range(12):
        side, around = rng.choice([-1, 1]), rng.uniform(-0.42, 0.42)
        du, dv = side * (0.16 + 0.2 * rng.random()) * width / 0.7, around
        ru, rv = 0.018 + 0.03 * rng.random(), 0.018 + 0.03 * rng.random()
        if k < 3 + 9 * present.severity:
            oval = 1 - np.sqrt(((u - du) / ru) ** 2 + ((v - dv) / rv) ** 2)
            weight = np.maximum(weight, 0.9 * ramp(oval * min(ru, rv), soft))
    return weight


def _contrast(seed: int) -> Array:
    """How strongly each contrast came out, (4,)."""
    return _rng(seed, "contrast").normal(1, 0.05, 4).clip(0.85, 1.12).astype(np.float32)


def _field(seed: int, u: Array, v: Array) -> Array:
    """The smooth receive field (H, W) about 1."""
    a = 0.06 * _rng(seed, "field").standard_normal(5)
    field_: Array = np.exp(a[0] * u + a[1] * v + a[2] * u * v + a[3] * (u**2 - 0.3) + a[4] * (v**2 - 0.3))
    return field_.astype(np.float32)
