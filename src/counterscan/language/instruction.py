"""Instructions in plain English: "add a small left pleural effusion", "without the chest port", "as if healthy"."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from counterscan.errors import WordsError
from counterscan.language.lexicon import Word, read, single_words
from counterscan.language.naming import ATTRIBUTES, NEW, Named, gather
from counterscan.language.vocabulary import finding, lookup, nearest

if TYPE_CHECKING:
    from counterscan.types import Change

EXAMPLE = "for example 'add a small left pleural effusion', 'remove the pacemaker' or 'as if healthy'"
# What a negated verb asks for. "Do not add" asks for nothing: nothing is added unless it is asked for.
NEGATED = {"remove": "keep", "keep": "remove", "have": "remove", "add": "nothing", "up": "keep", "down": "keep"}


@dataclass(frozen=True)
class Request:
    """What was asked: findings to take out, put in, leave alone, or change only in degree, in the order of the text.

    ``everything`` asks for a healthy image: every finding that the model knows goes, except what is to be kept.
    """

    remove: tuple[Named, ...] = ()
    add: tuple[Named, ...] = ()
    keep: tuple[Named, ...] = ()
    regrade: tuple[Named, ...] = ()
    everything: bool = False


@dataclass
class _Reading:
    """The state of reading one instruction from left to right.

    ``mode`` is what is asked of the next finding. ``negated`` lasts from a negation to the next finding ("do not add or
    remove the pacemaker" negates both verbs), ``excepted`` from "but" to the next verb. ``recent`` are the findings
    since the last verb, which "disappear" and the like reach back to.
    """

    known: Sequence[str]
    mode: str = ""
    negated: bool = False
    excepted: bool = False
    everything: bool = False
    recent: list[Named] = field(default_factory=list)
    found: dict[str, list[Named]] = field(default_factory=dict)

    def put(self, what: str, named: Named) -> None:
        row = self.found.setdefault(what, [])
        if named not in row:
            row.append(named)

    def turn(self, mode: str, *, negated: bool) -> None:
        """Begin a clause."""
        self.mode, self.negated, self.excepted, self.recent = mode, negated, False, []


def understand(text: str, known: Sequence[str] = ()) -> Request:
    """The request that an instruction makes of a model that knows the findings ``known`` (none: any words).

    Raises:
        WordsError: a word is not understood, it is not said what to do with a finding, or nothing is asked.
    """
    words = exchanged(spelled_all(read(text, known)))
    if known:
        _refuse_unknown(words, known)
    else:
        words = invent(words)
    reading = _Reading(known)
    for item in gather(words, known):
        if isinstance(item, Named):
            _take(reading, item)
        else:
            _steer(reading, item)
    for named in reading.found.pop("", []):
        raise WordsError(f"say whether to add or to remove {named.phrase!r}, {EXAMPLE}")
    remove, add, keep, regrade = (tuple(reading.found.get(what, ())) for what in ("remove", "add", "keep", "regrade"))
    if not (remove or add or regrade or reading.everything):
        raise WordsError(f"the instruction {text!r} asks for no change: say what to add or remove, {EXAMPLE}")
    return Request(remove, add, keep, regrade, reading.everything)


def parse(text: str, known: Sequence[str] = ()) -> tuple[Change, ...]:
    """The changes that an instruction asks for: removals first, then additions and changes of degree.

    ``parse("remove the pacemaker and add mild cardiomegaly")`` gives ``Change("pacemaker", "remove")`` and
    ``Change("cardiomegaly", "add", severity="mild")``. Raises ``WordsError`` as ``understand`` does.
    """
    from counterscan.language.resolve import resolve

    return resolve(instruct=text, findings=known).changes


def _steer(reading: _Reading, word: Word) -> None:
    """A control word: it sets what is asked of the findings that follow, or is itself a request."""
    if word.kind == "verb":
        mode = NEGATED.get(word.value, "keep") if reading.negated else word.value
        reading.turn(mode, negated=reading.negated)
    elif word.kind == "no":
        reading.turn("remove", negated=True)
    elif word.kind == "not":
        reading.turn(NEGATED.get(reading.mode, "remove"), negated=True)
    elif word.value == "but":
        reading.excepted = True
    elif word.kind == "gone":
        for named in reading.recent:
            for row in (reading.found.get(what, []) for what in ("add", "")):
                if named in row:
                    row.remove(named)
                    reading.put("remove", named)
    elif word.kind in ("sound", "grown"):
        wanted = "remove" if word.kind == "sound" else "add"
        if reading.mode != "keep":  # "keep the heart normal" asks for no change
            reading.put(NEGATED[wanted] if reading.negated else wanted, Named(lookup(word.value, reading.known).name))
    elif word.kind in ("healthy", "all"):
        _ask_everything(reading, word)


def _ask_everything(reading: _Reading, word: Word) -> None:
    if word.kind == "all" and reading.mode in ("keep", "nothing"):
        return  # "leave the rest as it is" asks for no change
    if reading.negated if word.kind == "healthy" else reading.mode != "remove":
        raise WordsError(f"cannot do that to {word.text!r}: name the finding, {EXAMPLE}")
    reading.everything = True


def _take(reading: _Reading, named: Named) -> None:
    """A finding under the verb before it."""
    mode, reading.negated = reading.mode, False
    if mode == "remove" and reading.excepted:  # "remove everything but the pacemaker"
        mode = "keep"
    degree = mode if mode in ("up", "down") else named.degree
    plain = replace(named, degree=None)
    reading.recent.append(plain)
    if mode in ("", "remove", "keep", "nothing"):
        reading.put(mode, plain)
    elif degree or mode == "set":
        reading.put("regrade", plain if plain.severity else replace(plain, severity=_extreme(plain, degree)))
    else:
        reading.put("add", plain)


def _extreme(named: Named, degree: str | None) -> str:
    """The severity word at the end of the scale that ``degree`` points to."""
    steps = finding(named.finding).severities
    if not steps:
        raise WordsError(f"{named.finding} has no severity that could change: add or remove it")
    if degree is None:
        raise WordsError(f"say how the {named.finding} should be: {', '.join(steps)}")
    return steps[-1] if degree == "up" else steps[0]


def _refuse_unknown(words: Sequence[Word], known: Sequence[str]) -> None:
    for word in words:
        if word.kind == "unknown":
            near = nearest(word.text, known) or difflib.get_close_matches(word.text, single_words(), n=3, cutoff=0.8)
            near = [name for name in near if name != word.text]  # a word that means something elsewhere in a sentence
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise WordsError(f"did not understand the word {word.text!r}: {hint}the model knows {', '.join(known)}")


def spelled_all(words: Sequence[Word]) -> list[Word]:
    """The words, where "all" before an exception is everything ("remove all but the port"); before a name it tells nothing."""
    excepts = [after.text == "but" or (after.kind, after.value) == ("verb", "keep") for after in words[1:]]
    pairs = zip(words, [*excepts, False], strict=False)
    return [Word("all", "all", word.text) if excepted and word.text == "all" else word for word, excepted in pairs]


def exchanged(words: Sequence[Word]) -> list[Word]:
    """The words, where what follows "by" or "for" after "replace" is to be there: "replace the port by a pacemaker"."""
    row: list[Word] = []
    replacing = False
    for word in words:
        if word.kind == "verb":
            replacing = word.text.startswith("replac")
        if replacing and word.text in ("by", "for"):
            word, replacing = Word("verb", "have", word.text), False
        row.append(word)
    return row


def invent(words: Sequence[Word]) -> list[Word]:
    """For a model that takes any words: each stretch between control words that holds an unknown word is a finding."""
    row: list[Word] = []
    stretch: list[Word] = []
    for word in (*words, Word("stop", ".", ".")):
        if word.kind in (*ATTRIBUTES, "at", "filler", "unknown", "finding"):
            stretch.append(word)
            continue
        if any(w.kind == "unknown" for w in stretch):
            while stretch[0].kind in ("at", "filler"):
                row.append(stretch.pop(0))
            stretch = [Word("finding", NEW, " ".join(w.text for w in stretch))]
        row += [*stretch, word]
        stretch = []
    return row
