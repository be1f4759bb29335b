"""Words in, edits out."""

from __future__ import annotations

from counterscan.language.captions import Mention, mentions, report
from counterscan.language.instruction import parse
from counterscan.language.phrase import phrase, prompt
from counterscan.language.resolve import REGIONS, resolve
from counterscan.language.vocabulary import VOCABULARY, Finding, lookup

__all__ = [
    "REGIONS",
    "VOCABULARY",
    "Finding",
    "Mention",
    "lookup",
    "mentions",
    "parse",
    "phrase",
    "prompt",
    "report",
    "resolve",
]
