"""Where is the finding? The image is asked what it would look like without it; the difference answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from counterscan.attribution.calibration import Calibration, calibrate
from counterscan.attribution.difference import Region, combine, regions, signed, strength, threshold
from counterscan.attribution.repeats import looks

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone
    from counterscan.backbones.card import Card
    from counterscan.imaging import Picture
    from counterscan.methods import Method, Progress

    Methods = str | Method | Sequence[str | Method | None] | None

__all__ = ["Attribution", "Calibration", "Region", "attribute", "calibrate"]


@dataclass(frozen=True, eq=False)
class Attribution:
    """Where removing a finding changes an image.

    ``map`` (H, W) is the mean signed difference, counterfactual minus factual, at native size, before weak changes are
    left out of the image; ``spread`` its standard
    deviation over repeats and methods, its uncertainty; ``mask`` where its
    :func:`~counterscan.attribution.difference.strength` exceeds ``threshold``: what null edits of the same image change, and
    what removing the finding changes in all but a share ``rate`` of images that do not have it (``None`` where nothing is
    promised: see :func:`attribute`). ``present`` is False when no region is left: the model sees no such finding here.
    ``attention`` (H, W) in [0, 1], where it was asked for, is what the finding's words draw: see
    :func:`~counterscan.attribution.words.word_map`.
    """

    factual: Picture
    finding: str
    map: NDArray[np.float32]
    spread: NDArray[np.float32]
    mask: NDArray[np.bool_]
    threshold: float
    regions: list[Region]
    present: bool
    evaluations: int
    seconds: float
    seed: int
    model: str
    fingerprint: str
    rate: float | None = None
    attention: NDArray[np.float32] | None = None

    @property
    def agreement(self) -> float | None:
        """Mean attention inside the mask over that of the whole image; above 1 the two opinions agree. None without either."""
        if self.attention is None or not self.mask.any():
            return None
        return float(self.attention[self.mask].mean() / max(self.attention.mean(), 1e-12))

    @property
    def uncertainty(self) -> float | None:
        """Mean ``spread`` inside the mask, as a share of the change there. None of one counterfactual, or without a mask."""
        if not (self.spread.any() and self.mask.any()):
            return None
        return float(self.spread[self.mask].mean() / max(np.abs(self.map[self.mask]).mean(), 1e-12))

    def _repr_html_(self) -> str:
        from PIL.Image import Resampling

        from counterscan.drawing import as_image, colour, difference_scale, overlay
        from counterscan.result import as_html

        image, found = self.factual.unit(), np.where(self.mask, self.map, 0)
        pair = as_image(np.hstack([colour(image), overlay(image, found, difference_scale(self.map))]))
        pair.thumbnail((960, 480), Resampling.LANCZOS)
        places = ", ".join(str(region.box) for region in self.regions)
        facts: dict[str, Any] = {
            "finding": self.finding,
            "answer": "present" if self.present else "not seen",
            "regions": places,
            "false-positive rate": "none promised" if self.rate is None else f"{100 * self.rate:g} %",
        }
        facts |= {"model": self.model, "seed": self.seed, "evaluations": self.evaluations}
        return as_html(pair, f"the image, and where {self.finding} is", facts)

    def save(self, folder: str | Path, stem: str, formats: Sequence[str] = ("png",)) -> dict[str, str]:
        """Write into ``folder``; returns the names by kind.

        ``png``: heat map, mask and overlay, and spread and attention where there are any. ``nifti``: the same values without
        the overlay, in the source's geometry where it has one.
        ``dicom-seg``: the mask as a DICOM segmentation, of a DICOM source (needs ``counterscan[dicom]``).

        Raises:
            WordsError: another format.
            ImageError: a DICOM segmentation of an image that is no DICOM file, or without the finding: it may not be empty.
        """
        from counterscan.attribution.maps import save_attribution

        return save_attribution(self, Path(folder), stem, formats)


CARD_RATE = 0.05  # of ``Card.null_change``


def attribute(
    image: Any,
    *,
    finding: str,
    repeats: int = 1,
    method: Methods = None,
    model: str | Path | Backbone = "chest-nih",
    seed: int = 0,
    calibration: Calibration | None = None,
    rate: float = CARD_RATE,
    attention: bool = False,
    progress: Progress | None = None,
) -> Attribution:
    """Find a finding by removing it ``repeats`` times, with seeds ``seed``, ``seed + 1``, …, by each of the methods; each time
    after the first from a frame that is moved by a few pixels (see :mod:`counterscan.attribution.repeats`).

    ``calibration`` (see :func:`calibrate`) sets the threshold so that a share ``rate`` of images without the finding are
    taken for ones with it. Without it the model's card does, at 5 %, for what it was calibrated with: one removal by the
    model's default method as it is. Of anything else no rate is known, and only null edits set the threshold.
    ``attention`` asks for a second opinion.

    Raises:
        WordsError: an unknown finding, fewer than one repeat, a calibration of another finding, model, method or number of
            repeats, or one on too few images for the rate; another rate than 5 % without a calibration; for a second
            opinion, a model without attention to words.
    """
    from counterscan.attribution.words import DEPTHS, word_map
    from counterscan.editing import as_backbone, as_picture, edit

    picture, backbone = as_picture(image), as_backbone(model)
    methods = several(method, backbone.card)
    limit, stated = promise(finding, repeats, methods, backbone, calibration, rate)
    total = (repeats + 1) * len(methods)

    def part(k: int) -> Progress:
        return lambda done, steps: progress(k * steps + done, total * steps) if progress else None

    heard = word_map(picture, finding=finding, model=backbone, seed=seed) if attention else None
    (seen,) = looks([picture], finding, methods, repeats, backbone, seed, part)
    results = [look.result for look in seen]
    source = results[0].edit.source
    null = [
        edit(picture, source=source, target=source, method=one, model=backbone, seed=seed, progress=part(k))
        for k, one in enumerate(methods, len(results))
    ]
    limit = max(threshold([signed(one) for one in null]), limit)
    mean, spread = combine([look.map for look in seen])
    mask = strength(mean) > limit
    found = regions(mask, mean, picture.spacing_mm)
    return Attribution(
        picture, finding, mean, spread, mask, limit, found, bool(found),
        evaluations=sum(r.evaluations for r in results + null) + len(DEPTHS) * attention,
        seconds=sum(r.seconds for r in results + null),
        seed=seed, model=results[0].model, fingerprint=results[0].fingerprint, rate=stated, attention=heard,
    )  # fmt: skip


def promise(
    finding: str, repeats: int, method: Methods, model: Backbone, calibration: Calibration | None, rate: float
) -> tuple[float, float | None]:
    """The change that is no evidence of a finding, and the share of images without it that exceed it: 0 and ``None`` where
    neither a calibration nor the model's card tells. Raises what :func:`attribute` does of these words, before any work.
    """
    from counterscan.errors import WordsError
    from counterscan.language import resolve

    name = resolve(remove=(finding,), card=model.card).changes[0].finding
    methods = several(method, model.card)
    if calibration is not None:
        fits(calibration, name, model, repeats, told(methods, model.card))
        return calibration.threshold(rate), rate
    if rate != CARD_RATE:
        raise WordsError(f"a false-positive rate of {rate:g} is promised by a calibration; give one, or {CARD_RATE:g}")
    known = model.card.null_change.get(name)
    if known is None or repeats != 1 or methods != several(None, model.card):
        return 0.0, None
    return known, CARD_RATE


def fits(calibration: Calibration, finding: str, model: Backbone, repeats: int, methods: Sequence[str]) -> None:
    """Raises ``WordsError`` that says in what a calibration was made otherwise than these removals."""
    from counterscan.errors import WordsError

    facts = [
        ("finding", calibration.finding, finding),
        ("model", calibration.fingerprint, model.fingerprint),
        ("methods", ", ".join(calibration.methods), ", ".join(methods)),
        ("repeats", calibration.repeats, repeats),
        ("choice of frames", calibration.frames, repeats > 1),
    ]
    for what, then, now in facts:
        if then != now:
            raise WordsError(f"the calibration is of another {what} ({then!r}, not {now!r}); calibrate anew")


def several(method: Methods, card: Card) -> list[Method]:
    """One method, or as many as are given, with the settings that suit the model."""
    from counterscan.errors import WordsError
    from counterscan.methods import suited

    given = method if isinstance(method, Sequence) and not isinstance(method, str) else [method]
    if not given:
        raise WordsError("no method: name one, or None for the model's own")
    return [suited(card, one) if one is None or isinstance(one, str) else one for one in given]


def told(methods: Sequence[Method], card: Card) -> tuple[str, ...]:
    """The methods as a calibration tells them: by name, with all settings where they are not those that suit the model."""
    from counterscan.methods import names, suited

    known = names()

    def spelled(one: Method) -> str:
        return one.name if one.name not in known or one == suited(card, one.name) else repr(one)

    return tuple(dict.fromkeys(map(spelled, methods)))
