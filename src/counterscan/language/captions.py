"""Reports in varied radiology English, and the reader that finds their findings and negations again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from counterscan.language.lexicon import read
from counterscan.language.naming import Named, gather
from counterscan.language.phrase import phrase

if TYPE_CHECKING:
    import numpy as np


class Fact(Protocol):
    """A present finding with what is known of it; a ``Change`` is one."""

    @property
    def finding(self) -> str: ...
    @property
    def side(self) -> str | None: ...
    @property
    def place(self) -> str | None: ...
    @property
    def severity(self) -> str | None: ...


@dataclass(frozen=True)
class Mention:
    """A finding as a text mentions it; ``present`` is False where the text denies it."""

    finding: str
    present: bool
    side: str | None = None
    place: str | None = None
    severity: str | None = None


# What reports call a finding besides its own name; every word here is in the vocabulary.
SAYINGS: dict[str, tuple[str, ...]] = {
    "pleural effusion": ("effusion", "pleural fluid collection"),
    "cardiomegaly": ("enlargement of the heart", "enlargement of the cardiac silhouette", "cardiac enlargement"),
    "consolidation": ("airspace opacity", "airspace consolidation"),
    "lung nodule": ("pulmonary nodule", "nodule", "nodular opacity"),
    "pulmonary edema": ("interstitial edema", "pulmonary vascular congestion"),
    "atelectasis": ("volume loss",),
    "pacemaker": ("cardiac pacemaker", "permanent pacemaker"),
    "chest port": ("port-a-cath", "port catheter"),
    "central line": ("central venous catheter", "central venous line"),
    "ecg electrodes": ("ECG leads", "monitoring leads", "telemetry leads"),
    "endotracheal tube": ("ET tube", "tracheal tube"),
    "infiltration": ("pulmonary infiltrate",),
}
COUNTED = frozenset(
    """effusion nodule opacity pacemaker port cath catheter line tube mass hernia infiltrate collection cavity fracture
    pneumothorax""".split()
)
PRESENT = (
    "{A}.",
    "There is {a}.",
    "{A} is seen.",
    "{A} is present.",
    "{A} is noted.",
    "The radiograph shows {a}.",
    "Findings include {a}.",
)
ABSENT = ("No {list}.", "There is no {list}.", "No evidence of {list}.", "No {list} is seen.", "Without {list}.")
NORMAL_HEART = ("The heart size is normal.", "Normal heart size.", "The heart is not enlarged.")


def report(
    findings: Sequence[Fact],
    absent: Sequence[str],
    rng: np.random.Generator,
    view: str | None = None,
    sex: str | None = None,
) -> str:
    """A report that names every finding of ``findings`` and denies every one of ``absent``; order and words are drawn.

    Each stated side, place and severity is the finding's own. ``view`` ("PA", "AP") and ``sex`` open the report.
    """
    sentences = [_present(fact, rng) for fact in findings] + _absent(absent, rng)
    order = rng.permutation(len(sentences))
    return " ".join([*_opening(view, sex, rng), *(sentences[i] for i in order)])


def mentions(text: str, known: Sequence[str] = ()) -> tuple[Mention, ...]:
    """The findings that free text mentions, in its order, with negation and attributes; other words are passed over.

    A negation reaches forward to "but" or the end of its sentence ("no effusion or pneumothorax"); "absent", "resolved"
    and "not seen" reach back. ``known`` limits the findings to those of a model.
    """
    row: list[Mention] = []
    denied, first = False, 0
    for item in gather(read(text, known), known, strict=False):
        if isinstance(item, Named):
            row.append(Mention(item.finding, not denied, item.side, item.place, item.severity))
        elif item.kind in ("no", "not"):
            denied = True
        elif item.kind == "verb" and item.value in ("set", "up", "down"):
            denied = False  # "no change in the effusion" has an effusion
        elif item.kind == "sound":
            row.append(Mention(item.value, False))
        elif item.kind == "grown":
            row.append(Mention(item.value, not denied))
        elif item.kind == "gone":
            row[first:] = [Mention(m.finding, False, m.side, m.place, m.severity) for m in row[first:]]
        elif item.value in (".", ";", "but", "however"):
            denied, first = False, len(row)
    return tuple(row)


def _present(fact: Fact, rng: np.random.Generator) -> str:
    name = _pick((fact.finding, *SAYINGS.get(fact.finding, ())), rng)
    side, place, severity = fact.side, fact.place, fact.severity
    if side and rng.random() < 0.5:  # "small nodule in the left upper zone" rather than "small left upper nodule"
        zone = f"{side} {place} {_pick(('zone', 'lobe' if place != 'middle' or side == 'right' else 'zone'), rng)}"
        where = f"in the {zone}" if place else _pick((f"on the {side}", f"on the {side} side"), rng)
        text = f"{phrase(name, severity=severity)} {where}"
    elif side and not place and rng.random() < 0.4:
        text = phrase(name, side=f"{side}-sided", severity=severity)
    else:
        text = phrase(name, side=side, place=place, severity=severity)
    return _sentence(
        _pick(PRESENT, rng), _article(text, name), plural=name.endswith(("leads", "electrodes", "devices"))
    )


def _sentence(pattern: str, text: str, *, plural: bool) -> str:
    if plural:
        pattern = pattern.replace(" is ", " are ")
    return pattern.format(a=text, A=text[0].upper() + text[1:])


def _article(text: str, name: str) -> str:
    """``"a small effusion"``, ``"an ET tube"``, ``"mild cardiomegaly"``."""
    if name.replace("-", " ").split()[-1] not in COUNTED:
        return text
    return f"{'an' if text[0].lower() in 'aeiou' else 'a'} {text}"


def _absent(names: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Denials, one to three findings a sentence."""
    left = [names[i] for i in rng.permutation(len(names))]
    sentences = []
    while left:
        if left[-1] == "cardiomegaly" and rng.random() < 0.4:
            left.pop()
            sentences.append(_pick(NORMAL_HEART, rng))
            continue
        n = int(rng.integers(1, min(3, len(left)) + 1))
        batch = [_pick((name, *SAYINGS.get(name, ())), rng) for name in left[-n:]]
        del left[-n:]
        listed = ", ".join(batch[:-1]) + (" or " if n > 1 else "") + batch[-1]
        sentences.append(_pick(ABSENT, rng).format(list=listed))
    return sentences


def _opening(view: str | None, sex: str | None, rng: np.random.Generator) -> list[str]:
    if not view and not sex:
        return []
    head = _pick((f"{view} chest radiograph", f"Frontal {view} chest radiograph"), rng) if view else "Chest radiograph"
    return [head + (_pick((f" of a {sex} patient", f", {sex}"), rng) if sex else "") + "."]


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
