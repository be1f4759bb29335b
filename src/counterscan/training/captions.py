"""Training captions drawn afresh at every step: findings kept, dropped or explicitly denied, never contradicted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from counterscan.language.phrase import phrase, prompt

DEVICES = ("pacemaker", "chest port", "central line", "ecg electrodes", "endotracheal tube")


@dataclass(frozen=True)
class Row:
    """What is known of one image. ``present`` holds (finding, side, place, severity); ``absent`` the denied findings.

    A finding in neither is unknown (an uncertain label, say) and is never mentioned.
    """

    template: str
    present: tuple[tuple[str, str | None, str | None, str | None], ...]
    absent: tuple[str, ...]
    view: str | None = None
    sex: str | None = None

    def group_denied(self, before: Iterable[str]) -> bool:
        """Whether "no support devices" tells this image from one that has the findings ``before``."""
        names, before = {name for name, *_ in self.present}, set(before)
        devices = {"support devices", *DEVICES}
        return names.isdisjoint(devices) and not before.isdisjoint(DEVICES) and before - {*DEVICES} == names


@dataclass(frozen=True)
class CaptionSettings:
    """Probabilities: of an empty caption, of a full one (else little is said); in a full one of mentioning a present or an
    absent finding; and of each attribute.
    """

    drop: float = 0.1
    full: float = 0.6
    mention: float = 0.8
    deny: float = 0.14
    side: float = 0.75
    place: float = 0.7
    severity: float = 0.6
    view: float = 0.7
    sex: float = 0.5


def caption(row: Row, rng: np.random.Generator, settings: CaptionSettings, must: frozenset[str] = frozenset()) -> str:
    """One caption of the row; every word in it is true of the image. What ``must`` names is mentioned for certain."""
    if not must and rng.random() < settings.drop:
        return ""
    # often little is said, as in an edit: then the picture alone tells the rest
    mention, deny = (settings.mention, settings.deny) if rng.random() < settings.full else (0.0, 0.0)

    def maybe(word: str | None, chance: float) -> str | None:
        return word if rng.random() < chance else None

    phrases = [
        phrase(
            name,
            side=maybe(side, settings.side),
            place=maybe(place, settings.place),
            severity=maybe(grade, settings.severity),
        )
        for name, side, place, grade in row.present
        if name in must or rng.random() < mention
    ]
    phrases += [phrase(name, absent=True) for name in row.absent if name in must or rng.random() < deny]
    if not must or mention:
        phrases += _group(row, rng)
    order = rng.permutation(len(phrases))
    return prompt(
        [phrases[i] for i in order],
        template=row.template,
        view=maybe(row.view, settings.view * bool(mention)),
        sex=maybe(row.sex, settings.sex * bool(mention)),
    )


def twin_caption(row: Row, twin: Row, rng: np.random.Generator, settings: CaptionSettings) -> str:
    """A caption of ``twin`` that names whatever sets it apart from ``row``."""
    before, after = ({name: rest for name, *rest in r.present} for r in (row, twin))
    differs = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    if twin.group_denied(before) and rng.random() < 0.5:
        return prompt([phrase("support devices", absent=True)], template=twin.template)
    return caption(twin, rng, settings, frozenset(differs))


def _group(row: Row, rng: np.random.Generator) -> list[str]:
    """The collective term: "support devices" where any is present, "no support devices" where all are known absent."""
    if any(name in DEVICES for name, *_ in row.present):
        return ["support devices"] if rng.random() < 0.25 else []
    if all(name in row.absent for name in DEVICES):
        return ["no support devices"] if rng.random() < 0.3 else []
    return []


def vocabulary(rows: Sequence[Row], extra: Sequence[str] = ()) -> list[str]:
    """Every word that the captions of these rows can hold, sorted."""
    texts = {word for row in rows for fact in row.present for part in fact if part for word in part.split()}
    texts |= {word for row in rows for name in row.absent for word in name.split()}
    texts |= {word for row in rows for part in (row.template, row.view, row.sex) if part for word in part.split()}
    return sorted({word.lower() for word in texts | set(extra) | {"no", "support", "devices"}})
