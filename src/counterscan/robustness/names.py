"""Which output or column a word means: names of classifiers and manifests are as various as what people ask for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from counterscan.errors import WordsError
from counterscan.language.spelling import key
from counterscan.language.vocabulary import lookup


def meant(word: str, names: Sequence[str]) -> str:
    """The one of ``names`` that a word means: itself, else that of which it is a synonym or another spelling, else itself."""
    if word in names:
        return word
    with suppress(WordsError):
        found = lookup(word, names).name  # an ambiguous word means what is there
        if found in names:
            return found
    wanted = _meaning(word)
    return next((name for name in names if _meaning(name) == wanted), word)


def indistinct(column: str, columns: Sequence[str], known: Sequence[str]) -> list[str]:
    """The other columns for which a model that knows the findings ``known`` has the same word as for ``column``, which is not the
    column's own: what it adds by that word may be any of them.
    """
    word = _called(column, known)
    return [] if word in (None, column) else [c for c in columns if c != column and _called(c, known) == word]


def _called(column: str, known: Sequence[str]) -> str | None:
    try:
        return lookup(column, known).name
    except WordsError:
        return None


def _meaning(word: str) -> tuple[str, ...]:
    try:
        return key(lookup(word).name)
    except WordsError:
        return key(word)
