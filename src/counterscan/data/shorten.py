"""Reports shortened to what a text encoder takes in: never within a finding, and never without the negation of one.

Encoders cut a text at their length (77 tokens for CLIP), often between "no" and what it denies. Here whole sentences are
chosen, those with findings first; if not all of these fit, clauses of them. Nothing is reworded but that a clause out of a
list is given the "no" that stood before the list; and each clause is read again, so that it says what it said there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from counterscan.language.captions import Mention, mentions
from counterscan.language.vocabulary import VOCABULARY

Fits = Callable[[str], bool]
SENTENCE = re.compile(r"(?<=[.!?;])(?<!\bDr\.)(?<!\bMr\.)(?<!\bMs\.)(?<!\bvs\.)(?<!\bapprox\.)(?<!^\d\.)(?<!\s\d\.)\s+")
NUMBER = re.compile(r"(?:^|(?<=\s))\(?\d{1,2}[.)]\s+")
BREAK = re.compile(r"(\s*,\s*(?:and|or|but)?\s+|\s+(?:and|or|but|with)\s+)", re.IGNORECASE)
HEDGE = re.compile(
    r"\b(possib\w*|probab\w*|may|might|could|can ?not|question\w*|suspect\w*|suspicio\w*|versus|vs|likely|unlikely|suggest\w*"
    r"|concern\w*|consider\w*|differential|rule|exclud\w*|represent\w*|equivocal|borderline|if|definite\w*)\b|\?",
    re.IGNORECASE,
)
DENIAL = re.compile(r"\b(no|not|without|nor|neither|negative|absent|free)\b", re.IGNORECASE)


def shorten(text: str, fits: Fits, known: Sequence[str] = ()) -> str:
    """The text itself if it ``fits``, else as much of it as does: present findings first, then denied ones, then the rest.

    What is kept stays in its order. A sentence that weighs possibilities is kept whole or not at all. ``known`` are findings
    beyond the vocabulary's. Where not even one clause fits, nothing is left.
    """
    text = " ".join(text.split())
    if fits(text):
        return text
    sentences = [s for part in SENTENCE.split(NUMBER.sub("", text)) if (s := part.strip(" .;"))]
    known = tuple(known)
    said = [facts(sentence, known) for sentence in sentences]
    chosen = _choose(sentences, [_rank(found) for found in said], fits)
    if all(i in chosen for i, found in enumerate(said) if found):
        return _joined(sentences[i] for i in sorted(chosen))
    clauses = [clause for sentence in sentences for clause in _clauses(sentence, known)]
    chosen = _choose(clauses, [_rank(facts(clause, known)) for clause in clauses], fits)
    return _joined(clauses[i] for i in sorted(chosen))


@lru_cache(65536)  # reports repeat their sentences
def facts(text: str, known: tuple[str, ...] = ()) -> tuple[Mention, ...]:
    """What a text says of the vocabulary's findings and of those ``known`` besides."""
    return mentions(text, (*(finding.name for finding in VOCABULARY), *known) if known else ())


def _rank(found: Sequence[Mention]) -> int:
    return 2 if not found else 0 if any(mention.present for mention in found) else 1


def _choose(units: Sequence[str], ranks: Sequence[int], fits: Fits) -> set[int]:
    """The units that fit together, taken by rank and then in order."""
    chosen: set[int] = set()
    for i in sorted(range(len(units)), key=lambda i: (ranks[i], i)):
        if fits(_joined(units[k] for k in sorted({*chosen, i}))):
            chosen.add(i)
    return chosen


def _joined(units: Iterable[str]) -> str:
    return " ".join(f"{unit[0].upper()}{unit[1:]}." for unit in units)


def _clauses(sentence: str, known: tuple[str, ...]) -> list[str]:
    """The sentence in parts with a finding each, which together say the same; or the sentence, where that cannot be had."""
    whole = facts(sentence, known)
    if len(whole) < 2 or HEDGE.search(sentence):
        return [sentence]
    pieces = BREAK.split(sentence)
    parts = [pieces[0]]
    for gap, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        if facts(parts[-1], known) and facts(piece, known):
            parts.append(piece)
        else:
            parts[-1] += gap + piece
    out, count = [], 0
    for part in parts:
        here = whole[count : count + len(facts(part, known))]
        count += len(here)
        negated = here and not any(mention.present for mention in here)
        out.append(f"no {part}" if negated and not DENIAL.search(part) else part)
    if re.search(r"\bor\b", sentence, re.IGNORECASE) and any(mention.present for mention in whole):
        return [sentence]  # "pneumonia or atelectasis" is not both
    return out if tuple(m for part in out for m in facts(part, known)) == whole else [sentence]
