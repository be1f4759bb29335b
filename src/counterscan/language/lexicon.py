"""From text to a row of understood words: findings, sides, places, severities, verbs and negations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from counterscan.language.spelling import ARTICLES, key, stem
from counterscan.language.vocabulary import names


@dataclass(frozen=True)
class Word:
    """A stretch of text that means one thing. ``kind`` is a key of ``WORDS``, ``"finding"`` or ``"unknown"``."""

    kind: str
    value: str
    text: str


# kind -> value -> the words that mean it. Longer words win over shorter ones, findings over everything of their length.
WORDS: dict[str, dict[str, str]] = {
    "side": {
        "left": "left, leftward, lt, l, left sided, left side",
        "right": "right, rightward, rt, r, right sided, right side",
        "bilateral": """
            bilateral, bilaterally, both lungs, both sides, either side, bibasal, bibasilar, biapical
        """,
    },
    "place": {
        "upper": """
            upper, upper zone, upper lobe, upper field, apical, apex, apices, top, superior, lung apex
        """,
        "middle": """
            middle, mid, middle zone, mid zone, midzone, middle lobe, lingula, lingular, perihilar, mid lung
        """,
        "lower": """
            lower, lower zone, lower lobe, lower field, basal, base, basilar, bottom, inferior, lung base,
            costophrenic, costophrenic angle, costophrenic sulcus, costophrenic recess
        """,
    },
    "severity": {
        "0": """
            tiny, slight, slightly, minimal, minimally, trace, minor, subtle, small, mild, mildly, little, faint
        """,
        "1": "moderate, moderately, medium, medium sized, moderate sized, intermediate",
        "2": """
            large, big, massive, gross, grossly, severe, severely, huge, extensive, marked, markedly, major, giant,
            substantial, serious, extreme, advanced, very large
        """,
    },
    "degree": {
        "up": "larger, bigger, worse, greater, more severe, more extensive, denser",
        "down": "smaller, milder, better, less severe, less extensive, fainter",
    },
    "verb": {
        "remove": """
            remove, removing, removal of, delete, deleting, erase, erasing, take out, taking out, take,
            take away, take off, get rid of, getting rid of, eliminate, eliminating, clear, clear up, drain,
            resolve, heal, cure, treat, lose, hide, subtract, omit, exclude, extract, strip, strip out, withdraw,
            drop, minus, replace, replacing, instead of, in place of, rather than, in lieu of
        """,
        "add": """
            add, adding, insert, inserting, introduce, introducing, plus, implant, place, put, put in, give,
            superimpose
        """,
        "have": """
            with, show, showing, shows, simulate, create, draw, have, has, having, had, develop, make, making,
            render, generate, imagine, include, including, contain, containing, become, instead
        """,
        "keep": """
            keep, keeping, leave, leaving, preserve, preserving, retain, retaining, except, except for, apart from,
            other than, spare, maintain, aside from, ignore, leave in place, but keep, not without, never without
        """,
        "up": """
            increase, increasing, worsen, worsening, enlarge, enlarging, progress, exacerbate, intensify, amplify,
            aggravate, grow
        """,
        "down": """
            reduce, reducing, decrease, decreasing, improve, improving, lessen, shrink, shrinking, diminish, ease,
            minimize, minimise
        """,
        "set": "change, touch, modify, affect, set, turn, convert, alter, adjust",
    },
    "no": {"no": "no, without, free of, free from, negative for, absence of, sans, w o, none, neither, nor, lacking"},
    "not": {"not": "not, never, dont, doesnt, didnt, isnt, shouldnt, cannot, no longer"},
    "gone": {
        "gone": """
            absent, resolved, gone, has resolved, been removed, has been removed, have been removed, was removed,
            not seen, not present, not identified, not visible, taken out, removed, taken away, deleted, erased,
            disappear, disappeared, vanish, vanished, eliminated, cleared, drained
        """
    },
    "healthy": {
        "all": """
            healthy, normal, normal chest, healthy chest, healthy lung, normal lung, normal chest radiograph, no
            finding, no abnormality, no acute abnormality, nothing abnormal, no disease
        """,
    },
    "all": {
        "all": """
            all finding, all abnormality, all abnormal finding, every finding, every abnormality, everything,
            anything, abnormality, all pathology, pathology, disease, all disease, finding, abnormal finding,
            rest, other, everything else, anything else, all other finding
        """,
    },
    "sound": {
        "cardiomegaly": """
            normal heart, normal heart size, normal size heart, normal sized heart, heart normal, heart size normal,
            heart normal size, heart is normal, heart size is normal, heart of normal size, heart to normal size,
            heart back to normal, heart back to normal size, heart normal sized, heart in normal size, heart
            smaller, smaller heart, shrink heart, reduce heart, reduce heart size, reduce size of heart, heart not
            enlarged, heart is not enlarged, heart size is within normal limit, normal cardiac size, normal cardiac
            silhouette, cardiac silhouette is normal, normalize heart, normalise heart, normalize heart size,
            normalise heart size
        """,
        "endotracheal tube": "extubate, extubated, extubating",
    },
    "grown": {
        "cardiomegaly": "enlarge heart, increase heart size, increase heart, increase size of heart",
        "endotracheal tube": "intubate, intubating",
    },
    "stop": {"and": "and, or, then, also", "but": "but, however, while, whereas, yet"},
    "at": {"at": "in, on, at, within, over, of, to, from, into, near, inside, onto, along, overlying"},
    "filler": {
        "filler": """
            patient, person, image, radiograph, xray, x ray, film, picture, scan, slice, mri, chest, brain, head, please, can,
            could, you, would, i, want, like, be, is, are, was, were, there, any, some, all, every, each, just, as, if, it,
            them, they, he, she, him, me, us, same, what, how, look, appear, seen, visible, evidence, sign, size,
            sized, side, sided, lung, hemithorax, thorax, zone, lobe, field, area, region, new, only, completely,
            fully, entirely, totally, now, out, away, off, both, so, do, does, did, should, must, will, may, let,
            needs, need, so that, up, down, again, who, which, by, for, one, set, set of, pair of, present, found,
            noted, identified, demonstrated, been, has been, have been, kindly, otherwise, exactly,
            unchanged, intact, alone, place, situ, frontal, pa, ap, male, female, man, woman, in place, in situ,
            amount, amount of, degree of, put, too
        """,
    },
}
LONGEST = 7


PUNCTUATION = frozenset(".,;:&")


@lru_cache(maxsize=16)
def _table(known: tuple[str, ...]) -> dict[tuple[str, ...], tuple[str, str]]:
    """Compared words -> (kind, value); the value of a finding is its words."""
    table: dict[tuple[str, ...], tuple[str, str]] = {}
    for kind, values in reversed(WORDS.items()):
        for value, text in values.items():
            table.update(dict.fromkeys((key(words) for words in text.split(",")), (kind, value)))
    findings = names() | {key(name) for name in known}
    return table | {words: ("finding", " ".join(words)) for words in findings}


def read(text: str, known: Sequence[str] = ()) -> list[Word]:
    """The text as understood words, the longest that fit first. Articles are dropped; the rest may be ``"unknown"``."""
    table = _table(tuple(known))
    spelled = [w for w in re.findall(r"[^\W_]+|[.,;:&]", text.replace("'", "").lower()) if w not in ARTICLES]
    stems = [stem(w) for w in spelled]
    row: list[Word] = []
    i = 0
    while i < len(stems):
        if stems[i] in PUNCTUATION:
            row.append(Word("stop", stems[i], stems[i]))
            i += 1
            continue
        for n in range(min(LONGEST, len(stems) - i), 0, -1):
            if found := table.get(tuple(stems[i : i + n])):
                break
        kind, value = found or ("unknown", spelled[i])
        row.append(Word(kind, value, " ".join(spelled[i : i + n])))
        i += n
    return row


@lru_cache(maxsize=1)
def single_words() -> tuple[str, ...]:
    """Every word that is understood, for spelling hints."""
    return tuple(sorted({word for words in _table(()) for word in words}))
