"""The chest world: frontal radiographs from a structural causal model, with exact counterfactuals.

Causes run from patient (sex, habitus) and acquisition (AP, PA) to findings to devices to the image. All noise is
exogenous and lives in the case's seed, so ``intervene`` redraws the same patient, the same lesion places, the same
photons, with only the asked findings changed. No real patient is involved: the images are computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter, zoom

from counterscan.language.phrase import phrase, prompt
from counterscan.worlds.chest_findings import DRAW
from counterscan.worlds.chest_scene import SIDES, ZONES, Anatomy, Present, build
from counterscan.worlds.findings import changed, drawn, spelled
from counterscan.worlds.geometry import Array, Frame

SIDED = (
    "pleural effusion",
    "consolidation",
    "lung nodule",
    "pneumothorax",
    "atelectasis",
    "pacemaker",
    "chest port",
    "central line",
)
PLACED = ("consolidation", "lung nodule", "atelectasis")
DEVICES = ("pacemaker", "chest port", "central line", "ecg electrodes", "endotracheal tube")
DISEASES = tuple(name for name in DRAW if name not in DEVICES)
FINDINGS = DISEASES + DEVICES
_SIZES = dict.fromkeys(("pleural effusion", "pneumothorax", "lung nodule"), ("small", "moderate", "large"))
_GRADES = dict.fromkeys(
    ("cardiomegaly", "consolidation", "pulmonary edema", "atelectasis"), ("mild", "moderate", "severe")
)
SEVERITIES: Mapping[str, tuple[str, ...]] = MappingProxyType({**_SIZES, **_GRADES})
VISIBLE = 0.02
"""A pixel belongs to the true change mask when its noise-free intensity changes by more than this."""


@dataclass(frozen=True)
class Mechanism:
    """How findings come about. ``prevalence`` gives P(finding); AP views (sicker patients) multiply it by ``ap_odds``.

    ``agree[(child, parent)] = r`` ties a finding to a cause (a finding, ``"ap"`` or ``"female"``): the child equals
    the parent with probability r. This is how spurious correlations are planted for studies.
    """

    prevalence: Mapping[str, float] = field(default_factory=lambda: MappingProxyType(dict.fromkeys(FINDINGS, 0.22)))
    agree: Mapping[tuple[str, str], float] = field(default_factory=lambda: MappingProxyType({}))
    ap: float = 0.4
    female: float = 0.5
    ap_odds: float = 1.25


@dataclass(frozen=True)
class Case:
    """One radiograph and its causes. ``image`` and the noise-free ``clean`` are float32 (H, W) in [0, 1]."""

    anatomy: Anatomy
    findings: Mapping[str, Present]
    age: int
    image: Array
    clean: Array

    @property
    def view(self) -> str:
        """``"AP"`` or ``"PA"``."""
        return "AP" if self.anatomy.ap else "PA"

    @property
    def sex(self) -> str:
        """``"female"`` or ``"male"``."""
        return "female" if self.anatomy.female else "male"

    @property
    def caption(self) -> str:
        """The terse form: every finding with side, place and severity; nothing negated."""
        return prompt(
            [words(n, p) for n, p in self.findings.items()],
            template="world chest radiograph",
            view=self.view,
            sex=self.sex,
        )


def severity_word(name: str, severity: float) -> str | None:
    """The word for a severity in [0, 1], or ``None`` for findings without one."""
    steps = SEVERITIES.get(name)
    return steps[min(int(severity * 3), 2)] if steps else None


def words(name: str, present: Present) -> str:
    """``"small left pleural effusion"``."""
    return phrase(name, side=present.side, place=present.place, severity=severity_word(name, present.severity))


def sample(rng: np.random.Generator | int, *, size: int = 256, mechanism: Mechanism | None = None) -> Case:
    """Draw one case.

    Args:
        rng: a NumPy generator (advanced by one draw) or a seed; equal seeds give equal cases on any machine.
        size: pixels a side, at least 32.
        mechanism: prevalences and correlations; the default has independent findings.
    """
    seed = int(rng.integers(2**62)) if isinstance(rng, np.random.Generator) else int(rng)
    mechanism = mechanism or Mechanism()
    cause = np.random.default_rng([seed, 1])
    female, ap = bool(cause.random() < mechanism.female), bool(cause.random() < mechanism.ap)
    anatomy = _anatomy(seed, female, ap, size)
    there = drawn(
        FINDINGS,
        mechanism.prevalence,
        mechanism.agree,
        lambda name: np.random.default_rng([seed, 2, *name.encode()]).random(),
        known={"female": female, "ap": ap},
        odds=mechanism.ap_odds if ap else 1.0,
    )
    findings = {name: attributes(anatomy, name) for name in there}
    return _render(anatomy, findings, age=int(cause.integers(18, 91)))


def intervene(case: Case, changes: Mapping[str, bool | Present] | None = None, **named: bool | Present) -> Case:
    """The exact counterfactual: the same patient and noise with some findings set.

    Args:
        case: the factual.
        changes: finding -> ``False`` (absent), ``True`` (present, with the side, place and severity that this
            patient's own noise gives it) or a :class:`Present`. Keywords do the same, with ``_`` for spaces.

    Raises:
        WordsError: a finding this world does not have.
    """
    new = changed(
        "chest", FINDINGS, case.findings, spelled(changes, named), lambda name: attributes(case.anatomy, name)
    )
    return _render(case.anatomy, new, case.age)


def change_mask(case: Case, other: Case) -> NDArray[np.bool_]:
    """The true change mask, bool (H, W): where the noise-free intensities differ visibly."""
    return np.abs(case.clean - other.clean) > VISIBLE


def attributes(anatomy: Anatomy, name: str) -> Present:
    """Side, place and severity that this patient's exogenous noise gives a finding, present or not."""
    rng = anatomy.rng("attributes " + name)
    side = str(rng.choice(list(SIDES), p=_side_odds(name))) if name in SIDED else None
    place = str(rng.choice(list(ZONES))) if name in PLACED else None
    return Present(side, place, float(rng.random()))


def _side_odds(name: str) -> tuple[float, float]:
    return {"pacemaker": (0.75, 0.25), "chest port": (0.35, 0.65), "central line": (0.35, 0.65)}.get(name, (0.5, 0.5))


def _anatomy(seed: int, female: bool, ap: bool, size: int) -> Anatomy:
    rng = np.random.default_rng([seed, 3])
    frame = Frame(
        size,
        shift=(0.04 * rng.standard_normal(), -0.02 + 0.05 * rng.standard_normal()),
        zoom=float(np.clip(1.02 + 0.06 * rng.standard_normal() + (0.02 if ap else 0), 0.9, 1.2)),
        tilt=0.035 * rng.standard_normal(),
    )
    return Anatomy(
        seed=seed,
        female=female,
        ap=ap,
        width=float(np.clip(0.66 - 0.03 * female + 0.035 * rng.standard_normal(), 0.56, 0.76)),
        habitus=float(np.clip(1.0 + 0.15 * rng.standard_normal(), 0.7, 1.5)),
        inspiration=float((-0.07 if ap else 0.03) + 0.045 * rng.standard_normal()),
        rotation=0.07 * float(rng.standard_normal()),
        heart=float(np.clip(0.97 + 0.07 * rng.standard_normal(), 0.8, 1.12)),
        frame=frame,
    )


def _render(anatomy: Anatomy, findings: Mapping[str, Present], age: int) -> Case:
    attenuation = build(anatomy, findings, DRAW).attenuation()
    clean, image = _expose(anatomy, attenuation)
    return Case(anatomy, MappingProxyType(dict(findings)), age, image, clean)


def _expose(anatomy: Anatomy, attenuation: Array) -> tuple[Array, Array]:
    """From attenuation to the noise-free and the noisy radiograph: scatter, blur, photons, display curve, markers."""
    rng, size = anatomy.rng("exposure"), anatomy.frame.size
    primary = np.exp(-np.clip(attenuation, 0, 14)).astype(np.float32)
    primary = gaussian_filter(primary, 0.0022 * size * rng.uniform(0.7, 1.6), truncate=3)
    small = primary[:: max(size // 64, 1), :: max(size // 64, 1)]
    veil = gaussian_filter(np.minimum(small, 0.35), 0.09 * small.shape[0])
    scatter = zoom(veil, size / small.shape[0], order=1, mode="nearest", grid_mode=True)[:size, :size]
    exposed = primary + (0.05 if anatomy.ap else 0.035) * rng.uniform(0.7, 1.5) * scatter + 0.002
    dose = rng.uniform(1.2e-5, 5e-5) * 256 / size
    photons = anatomy.rng("photons").standard_normal((size, size)).astype(np.float32)
    noisy = np.maximum(exposed + np.sqrt(dose * exposed) * photons, 1e-4)
    low, high = (
        rng.uniform(0.25, 0.65) + 0.4 * (anatomy.habitus - 1),
        rng.uniform(3.7, 4.5) + 1.6 * (anatomy.habitus - 1),
    )
    gamma, veto = rng.uniform(0.8, 1.15), _collimation(anatomy, rng)
    text = _burned_in(anatomy, rng)

    def display(x: Array) -> Array:
        shown = np.clip((-np.log(x) - low) / (high - low), 0, None) ** gamma
        shown = shown / (1 + shown**6) ** (1 / 6) * 1.03  # a soft shoulder, as film and display tables have
        return np.clip(np.maximum(shown * veto, text), 0, 1).astype(np.float32)

    return display(exposed), display(noisy)


def _collimation(anatomy: Anatomy, rng: np.random.Generator) -> Array:
    """1 inside the collimated field, 0 outside; most fields are wider than the image."""
    size = anatomy.frame.size
    field_ = np.ones((size, size), np.float32)
    for side in range(4):
        border, on = abs(rng.normal(0, 0.035)), rng.random() < 0.22
        if on:
            rows = np.arange(size, dtype=np.float32) / size
            slope = 0.02 * rng.standard_normal()
            edge = np.rot90(np.clip((rows[:, None] - border - slope * (rows[None] - 0.5)) * size, 0, 1), side)
            field_ *= edge
    return field_


def _burned_in(anatomy: Anatomy, rng: np.random.Generator) -> Array:
    """The lead side marker and small text, as overlay intensities in [0, 1]."""
    size = anatomy.frame.size
    canvas = Image.new("L", (size, size))
    draw = ImageDraw.Draw(canvas)
    letter = "L" if rng.random() < 0.8 else "R"
    x = rng.uniform(0.87, 0.94) if letter == "L" else rng.uniform(0.04, 0.1)
    y, tone, scale = rng.uniform(0.02, 0.2), int(rng.uniform(200, 255)), rng.uniform(0.05, 0.075)
    draw.text((x * size, y * size), letter, fill=tone, font=ImageFont.load_default(scale * size))
    if rng.random() < 0.5:
        tag = "".join(rng.choice(list("ABCDEGHJKMNPRSTW"), 2))
        draw.text((x * size, (y + scale) * size), tag, fill=tone, font=ImageFont.load_default(max(0.03 * size, 4)))
    if anatomy.ap and rng.random() < 0.6:
        at = (rng.uniform(0.03, 0.8) * size, rng.uniform(0.88, 0.95) * size)
        draw.text(at, "PORTABLE", fill=tone, font=ImageFont.load_default(max(0.028 * size, 4)))
        draw.text((at[0], at[1] - 0.05 * size), "AP", fill=tone, font=ImageFont.load_default(max(0.028 * size, 4)))
    return gaussian_filter(np.asarray(canvas, np.float32) / 255, 0.0015 * size)


def resized(case: Case, size: int) -> Case:
    """The same case on a detector of another pixel count (its quantum noise is that detector's own)."""
    anatomy = replace(case.anatomy, frame=replace(case.anatomy.frame, size=size))
    return _render(anatomy, case.findings, case.age)
