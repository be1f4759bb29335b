"""Findings as they are named in text, with the side, place and severity that belong to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from counterscan.errors import WordsError
from counterscan.language.lexicon import Word
from counterscan.language.phrase import phrase
from counterscan.language.vocabulary import Finding, finding, lookup

ATTRIBUTES = ("side", "place", "severity", "degree")
PASSED = ("at", "filler", "unknown")
NEW = "new"  # the value of a finding word that is no vocabulary's: its text is its name


@dataclass(frozen=True)
class Named:
    """A finding named in text. ``degree`` is ``"up"`` or ``"down"`` for a comparative ("larger")."""

    finding: str
    side: str | None = None
    place: str | None = None
    severity: str | None = None
    degree: str | None = None

    @property
    def phrase(self) -> str:
        """The terse form, ``"small left pleural effusion"``."""
        return phrase(self.finding, side=self.side, place=self.place, severity=self.severity)


def gather(words: Sequence[Word], known: Sequence[str] = (), *, strict: bool = True) -> list[Word | Named]:
    """Join each finding with its attributes, before it ("small left") or after ("on the left"); pass control words on.

    Not ``strict``: attributes that do not fit and findings the model lacks are passed over, as free text demands.

    Raises:
        WordsError: an attribute that no finding owns or its finding does not have, or two of one kind.
    """
    owned: dict[int, list[Word]] = {}
    for i, word in enumerate(words):
        if word.kind in ATTRIBUTES:
            owner = _owner(words, i)
            if owner is not None:
                owned.setdefault(owner, []).append(word)
            elif strict:
                raise WordsError(f"{word.text!r} belongs to no finding: name the finding it describes")
    row: list[Word | Named] = []
    for i, word in enumerate(words):
        if word.kind == "finding":
            try:
                found = finding(word.text) if word.value == NEW else lookup(word.text, known)
                row.append(_name(found, owned.get(i, ()), strict))
            except WordsError:
                if strict:
                    raise
        elif word.kind not in ATTRIBUTES and word.kind not in PASSED:
            row.append(word)
    return row


def _owner(words: Sequence[Word], at: int) -> int | None:
    """The index of the finding that the attribute at index ``at`` describes."""
    before = _reach(words, range(at - 1, -1, -1))
    after = _reach(words, range(at + 1, len(words)))
    if before is None or after is None:
        return after if before is None else before
    between = {word.kind for word in words[before:at]}
    if "stop" in between:  # "effusion, left pneumothorax" but "effusion, left sided, pneumothorax"
        ends = any(word.kind == "stop" for word in words[at:after])
        return before if ends else after
    if "at" in between or any(word.kind == "stop" for word in words[at:after]):
        return before  # "effusion on the left with pneumothorax"
    return after


def _reach(words: Sequence[Word], indices: Iterable[int]) -> int | None:
    """The first finding along ``indices``, before a verb, a negation or the end of the sentence."""
    for i in indices:
        if words[i].kind == "finding":
            return i
        if words[i].kind not in (*ATTRIBUTES, *PASSED, "stop") or words[i].value in (".", ";"):
            return None
    return None


def _name(named: Finding, attributes: Iterable[Word], strict: bool) -> Named:
    """A finding with its attributes, each of them checked against what the finding admits."""
    values: dict[str, str] = {}
    for word in attributes:
        try:
            value = _admit(named, word)
            if word.kind == "side" and values.get("side", value) != value:
                raise _one_side(named)
            if values.get(word.kind, value) != value:
                raise WordsError(f"two values for the {word.kind} of {named.name}: keep one, not also {word.text!r}")
        except WordsError:
            if strict:
                raise
            continue
        if value is not None:
            values[word.kind] = value
    return Named(named.name, **values)


def _admit(named: Finding, word: Word) -> str | None:
    """The canonical value of an attribute; ``None`` where it goes without saying."""
    if word.kind == "side":
        if not named.sides:
            raise WordsError(f"{named.name} has no side: leave out {word.text!r}")
        if word.value == "bilateral":
            raise _one_side(named)
    if word.kind == "place" and word.value not in named.places:
        if word.value in named.natural:
            return None
        choice = f"it can be {', '.join(named.places)}" if named.places else f"leave out {word.text!r}"
        raise WordsError(f"{named.name} has no place {word.text!r}: {choice}")
    if word.kind in ("severity", "degree") and not named.severities:
        raise WordsError(f"{named.name} has no severity: leave out {word.text!r}")
    return named.severities[int(word.value)] if word.kind == "severity" else word.value


def _one_side(named: Finding) -> WordsError:
    name = named.name
    return WordsError(f"give one side at a time: ask for 'left {name}' and 'right {name}' as two changes")
