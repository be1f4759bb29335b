"""How words are compared: without regard to case, plural, hyphens, articles and British spelling."""

from __future__ import annotations

import re

ARTICLES = frozenset("a an the this that these those his her its their my your our".split())


def stem(word: str) -> str:
    """A word in lower case, singular, American: ``"Oedema"`` -> ``"edema"``, ``"masses"`` -> ``"mass"``."""
    word = word.lower().replace("oedema", "edema")
    if len(word) == 2 and word[1] == "s" and word not in ("as", "is", "us"):
        return word[0]  # the last part of "CRT-Ds"
    if len(word) <= 2 or word in ("as", "has", "was", "gas") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith("sses") else word.removesuffix("s")


def key(text: str) -> tuple[str, ...]:
    """The words of a name as they are compared: stemmed, no articles, split at hyphens and underscores."""
    words = re.findall(r"[^\W_]+", text.replace("'", "").lower())
    return tuple(stem(word) for word in words if word not in ARTICLES)
