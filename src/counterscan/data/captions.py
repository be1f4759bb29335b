"""Captions for a manifest: of its labels, in the terms that models are edited with, or of its reports, shortened."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from counterscan.data.manifest import Record
from counterscan.data.shorten import Fits, facts, shorten
from counterscan.errors import ModelError, WordsError
from counterscan.language.captions import Mention, report
from counterscan.language.phrase import phrase, prompt
from counterscan.language.vocabulary import VOCABULARY

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HEALTHY = frozenset({"no finding", "normal", "healthy"})
NAMES = frozenset(finding.name for finding in VOCABULARY)
NEVER = 1 << 20  # what a tokenizer that has no limit of its own says is larger


@dataclass(frozen=True)
class Wording:
    """How captions are made.

    ``source``: of the ``labels``, of the ``captions`` that are there (reports among them), or ``auto``: of the caption where
    there is one. Of labels, every present finding is named, and an absent one is denied at the rate ``deny``; what is unknown
    is not mentioned, what is uncertain not (``ignore``) or as "possible" (``words``). ``paraphrase`` is the share told in
    the words of radiograph reports instead of the ``template``'s. ``view`` and ``person`` (age and sex) are told if asked.
    """

    source: Literal["auto", "captions", "labels"] = "auto"
    template: str = "chest radiograph"
    uncertain: Literal["ignore", "words"] = "ignore"
    deny: float = 0.14
    paraphrase: float = 0.0
    view: bool = False
    person: bool = False

    def __post_init__(self) -> None:
        for name in ("deny", "paraphrase"):
            if not 0 <= getattr(self, name) <= 1:
                raise WordsError(f"{name} {getattr(self, name)}: a rate from 0 to 1")


@dataclass
class Told:
    """What captioning did: rows, how many are without words, were shortened, and of these lost a present finding."""

    rows: int = 0
    empty: int = 0
    shortened: int = 0
    lost: int = 0


def captioned(
    records: Iterable[Record], wording: Wording, *, seed: int = 0, fits: Fits | None = None, told: Told | None = None
) -> Iterator[Record]:
    """The records with new captions. Each row's words depend on the seed and its number only; ``told`` is added up."""
    told = told if told is not None else Told()
    for record in records:
        text = whole = words(record, wording, np.random.default_rng([seed, record.row]))
        if fits is not None and not fits(whole):
            text = words(record, wording, np.random.default_rng([seed, record.row]), fits)
            text = text if fits(text) else shorten(text, fits, _beyond(record))
            told.shortened += 1
            told.lost += not _present(whole, record) <= _present(text, record)
        told.rows += 1
        told.empty += not text
        yield replace(record, caption=text)


def words(record: Record, wording: Wording, rng: np.random.Generator, fits: Fits | None = None) -> str:
    """One caption of a record. Of labels that do not fit in, denials are left out first, then the last findings."""
    if wording.source == "captions" or (wording.source == "auto" and record.caption):
        return _with_person(record, wording) if record.caption else ""
    labels = {name: value for name, value in record.findings.items() if name.lower() not in HEALTHY}
    told = [(name, True) for name, value in labels.items() if value == 1]
    if wording.uncertain == "words":
        told += [(f"possible {name}", True) for name, value in labels.items() if value == -1]
    told += [(name, False) for name, value in labels.items() if value == 0 and rng.random() < wording.deny]
    tell = _paraphrase if rng.random() < wording.paraphrase else _terse
    order = int(rng.integers(2**32))
    while True:
        text = (tell if told else _terse)(record, wording, told, np.random.default_rng(order))
        if fits is None or not told or fits(text):
            return text
        told.pop()


def encoder_of(model: str | Path, *, offline: bool = False) -> Fits:
    """Whether a text fits the model's text encoder whole; of several encoders, the shortest.

    ``model`` is a built-in one, a diffusers folder, a folder of a tokenizer alone, or a hub id.
    """
    from counterscan import backbones

    folder = backbones.locate(model, offline=offline)
    places = [p for p in sorted(folder.glob("tokenizer*")) if p.is_dir()] or [folder]
    tests = [_test(place) for place in places]
    return lambda text: all(test(text) for test in tests)


def _test(folder: Path) -> Callable[[str], bool]:
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: has no tokenizer that opens ({type(error).__name__})") from error
    longest = int(tokenizer.model_max_length)
    if longest > NEVER:
        return lambda text: True
    return lambda text: len(tokenizer(text, truncation=False, verbose=False)["input_ids"]) <= longest


def _terse(record: Record, wording: Wording, told: list[tuple[str, bool]], rng: np.random.Generator) -> str:
    """``"chest radiograph, PA, 61 year old female: cardiomegaly, no pneumothorax."``

    Denials come last: "no pneumothorax, cardiomegaly" would be read as two of them.
    """
    mixed = sorted((told[i] for i in rng.permutation(len(told))), key=lambda fact: not fact[1])
    phrases = [phrase(name, absent=not present) for name, present in mixed]
    view, person = record.view if wording.view else None, _person(record) if wording.person else None
    return prompt(phrases, template=wording.template, view=view, sex=person)


def _paraphrase(record: Record, wording: Wording, told: list[tuple[str, bool]], rng: np.random.Generator) -> str:
    seen = [Mention(name, True) for name, present in told if present]
    view = record.view if wording.view and record.view in ("PA", "AP") else None
    text = report(seen, [name for name, present in told if not present], rng, view)
    person = _person(record) if wording.person else ""
    return f"{person[0].upper()}{person[1:]}. {text}" if person else text


def _with_person(record: Record, wording: Wording) -> str:
    view = record.view if wording.view and record.view not in re.findall(r"\w+", record.caption) else ""
    head = ", ".join(part for part in (view, _person(record) if wording.person else "") if part)
    return f"{head[0].upper()}{head[1:]}. {record.caption}" if head else record.caption


def _person(record: Record) -> str:
    """``"61 year old female"``, as far as it is known."""
    age = f"{record.age:.0f} year old" if record.age is not None else ""
    return " ".join(part for part in (age, record.sex) if part)


def _present(text: str, record: Record) -> set[str]:
    return {found.finding for found in facts(text, _beyond(record)) if found.present}


def _beyond(record: Record) -> tuple[str, ...]:
    return tuple(name for name in record.findings if name not in NAMES)
