"""What a trainer reads: rows of a manifest, drawn in an order that is a function of the seed and the step alone.

Nothing here has a state, so nothing has to be saved: sample ``k`` of a run is the same row with the same words and the
same noise, whatever ran before it and however many processes share the work.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.data.manifest import Record, read, resolve
from counterscan.data.shorten import shorten
from counterscan.errors import DataError, WordsError
from counterscan.training.captions import CaptionSettings, Row, caption
from counterscan.training.config import Captions, Data

SIDES = {"left": "right", "right": "left"}
SIDE = re.compile(r"\b(left|right)", re.IGNORECASE)
SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}


@dataclass(frozen=True)
class Corpus:
    """The rows that are trained on: their files, what is known of each, and its sampling weight (N,), which sum to 1.

    A row has the file of ``path`` and those of its other contrasts, which are the channels of a model that takes as many.
    Rows of ``paired`` have an image before (``data.before``), whose files are those of ``before``; others there have their own.
    ``fit`` makes a caption one that the text encoder takes whole.
    """

    manifest: Path
    files: tuple[tuple[Path, ...], ...]
    rows: tuple[Row, ...]
    captions: tuple[str, ...]
    numbers: tuple[int, ...]
    weights: NDArray[np.float64]
    findings: tuple[str, ...]
    before: tuple[tuple[Path, ...], ...] = ()
    paired: frozenset[int] = frozenset()
    fit: Callable[[str], str] = str

    def __len__(self) -> int:
        return len(self.files)

    def with_before(self) -> Corpus:
        """Where there are pairs, followed by the same rows with the files of the images before; otherwise as it is."""
        if not self.paired:
            return self
        return replace(self, files=self.files + self.before, numbers=self.numbers * 2)

    def where(self, i: int) -> str:
        """How to name row ``i`` in an error."""
        return f"{self.manifest}: row {self.numbers[i]}"


def open_corpus(data: Data) -> Corpus:
    """Read the manifest. ``DataError`` names it and what is missing, every missing thing at once."""
    records = [record for record in read(data.manifest) if not data.split or data.split == record.split]
    if not records:
        if next(read(data.manifest), None) is None:
            raise DataError(f"{data.manifest}: the table has no rows; list images in it")
        raise DataError(
            f"{data.manifest}: no row has the split {data.split!r}; set data.split, or leave it empty for all"
        )
    names = tuple(records[0].findings)
    for field, asked in (("data.balance", data.balance), ("data.captions.findings", data.captions.findings)):
        unknown = [name for name in asked if name not in names]
        if unknown:
            raise WordsError(f"{field}: {data.manifest} has no column {', '.join(unknown)}; it has {', '.join(names)}")
    _need_words(records, data)
    _need_changes(records, data)
    earlier = [record.contrasts.pop(data.before, None) if data.before else None for record in records]
    files = tuple(
        tuple(resolve(data.manifest, path) for path in (record.path, *record.contrasts.values())) for record in records
    )
    used = tuple(dict.fromkeys(finding_name(name) for name in mentioned(names, data.captions)))
    return Corpus(
        data.manifest,
        files,
        tuple(row_of(record, data.captions) for record in records),
        tuple(record.caption for record in records),
        tuple(record.row for record in records),
        balance(records, data.balance),
        used,
        tuple((resolve(data.manifest, path),) if path else own for path, own in zip(earlier, files, strict=True)),
        frozenset(i for i, path in enumerate(earlier) if path),
    )


def _need_words(records: Sequence[Record], data: Data) -> None:
    source = data.captions.source
    if data.captions.text is not None:
        return
    if source in ("caption", "either"):
        silent = [record.row for record in records if not record.caption]
        if silent:
            raise DataError(
                f"{data.manifest}: {len(silent)} rows have no caption (rows {', '.join(map(str, silent[:20]))}); "
                "fill them, or set data.captions.source to auto"
            )
    if source in ("findings", "either") and not records[0].findings:
        raise DataError(f"{data.manifest}: has no finding column, and data.captions.source is {source}")


def _need_changes(records: Sequence[Record], data: Data) -> None:
    """Every pair has to say what its image after is."""
    if not data.before:
        return
    paired = [record for record in records if data.before in record.contrasts]
    if not paired:
        raise DataError(f"{data.manifest}: no row of split {data.split!r} has a path_{data.before} (data.before)")
    silent = [str(record.row) for record in paired if not record.caption]
    if silent:
        raise DataError(f"{data.manifest}: {len(silent)} pairs have no caption (rows {', '.join(silent[:20])})")


def balance(records: Sequence[Record], names: Sequence[str]) -> NDArray[np.float64]:
    """Sampling weights (N,), summing to 1: with and without each finding equally often, as far as they can all be.

    The weights of the groups are found by iterative proportional fitting (Deming and Stephan 1940).
    """
    weights = np.ones(len(records))
    groups = [np.array([record.findings[name] == 1 for record in records]) for name in names]
    for _ in range(50 if len(groups) > 1 else 1):
        for present in groups:
            for rows in (present, ~present):
                if rows.any() and not rows.all():
                    weights[rows] *= 0.5 * weights.sum() / weights[rows].sum()
    return weights / weights.sum()


def row_of(record: Record, captions: Captions) -> Row:
    """What is known of an image as the caption writer wants it."""
    labels = {finding_name(name): record.findings[name] for name in mentioned(record.findings, captions)}
    present = [(name, None, None, None) for name, value in labels.items() if value == 1]
    if captions.uncertain == "words":
        present += [(f"possible {name}", None, None, None) for name, value in labels.items() if value == -1]
    absent = tuple(name for name, value in labels.items() if value == 0)
    sex = SEXES.get(record.sex.lower())
    return Row(captions.template, tuple(present), absent, record.view or None, sex)


def mentioned(names: Iterable[str], captions: Captions) -> list[str]:
    """The finding columns that captions speak of."""
    return [name for name in captions.findings or names if not _is_normal(name)]


@lru_cache(4096)
def finding_name(column: str) -> str:
    """The canonical name of a finding column; a name that nobody knows is kept, in lower case and with spaces."""
    from counterscan.language.vocabulary import lookup

    plain = column.replace("_", " ").strip().lower()
    try:
        return lookup(plain).name
    except WordsError:
        return plain


def _is_normal(column: str) -> bool:
    return column.replace("_", " ").lower() in ("no finding", "normal", "healthy")


def words_of(corpus: Corpus, i: int, settings: Captions, rng: np.random.Generator) -> str:
    """The caption of row ``i`` for one step, as long as the text encoder takes; empty where it is dropped."""
    dropped = rng.random() < settings.drop and i not in corpus.paired
    return "" if dropped else corpus.fit(_wording(corpus, i, settings, rng))


def _wording(corpus: Corpus, i: int, settings: Captions, rng: np.random.Generator) -> str:
    if settings.text is not None:
        return settings.text
    own = i in corpus.paired or settings.source in ("caption", "auto")
    own = own or (settings.source == "either" and rng.random() < 0.5)
    if own and corpus.captions[i]:
        wordings = corpus.captions[i].split(settings.separator) if settings.separator else [corpus.captions[i]]
        return wordings[rng.integers(len(wordings))].strip()
    chances = CaptionSettings(0.0, settings.full, settings.mention, settings.deny, view=settings.view, sex=settings.sex)
    return caption(corpus.rows[i], rng, chances)


def fitting(encoders: Sequence[tuple[Any, int]], known: Sequence[str] = ()) -> Callable[[str], str]:
    """What shortens a caption so that all ``encoders`` (a tokenizer, and how many tokens it may give) take it whole.

    Nothing is cut within a finding, and ``known`` are such beyond the vocabulary's: see :mod:`counterscan.data.shorten`.
    """
    # threads ask while the model does, and a tokenizer that changes its settings for one breaks off the other
    own = [(copy.deepcopy(tokenizer), longest) for tokenizer, longest in encoders]

    @lru_cache(65536)
    def fits(text: str) -> bool:
        return all(len(t(text, truncation=False, verbose=False)["input_ids"]) <= longest for t, longest in own)

    fits("")  # its settings change once, here
    return lru_cache(65536)(lambda text: text if fits(text) else shorten(text, fits, known))


def written(corpus: Corpus, settings: Captions) -> Iterator[str]:
    """Every wording of every caption that is there, as it is."""
    for text in corpus.captions if settings.text is None else [settings.text]:
        yield from (part.strip() for part in (text.split(settings.separator) if settings.separator else [text]))


def wordings(corpus: Corpus, data: Data) -> list[str] | None:
    """Every prompt that a run can ask for; ``None`` where captions are drawn from findings, without number."""
    settings = data.captions
    if settings.text is None and (settings.source in ("findings", "either") or not all(corpus.captions)):
        return None
    parts = [corpus.fit(text) for text in written(corpus, settings)]
    swapped = map(swap_sides, parts) if data.augment.flip == "words" else ()
    return list(dict.fromkeys(["", *parts, *swapped]))


def swap_sides(text: str) -> str:
    """Left and right exchanged: what a caption has to say of the mirrored image.

    >>> swap_sides("Left-sided effusion, right lung clear")
    'Right-sided effusion, left lung clear'
    """

    def other(match: re.Match[str]) -> str:
        word = match.group()
        swapped = SIDES[word.lower()]
        return swapped.upper() if word.isupper() else swapped.capitalize() if word[0].isupper() else swapped

    return SIDE.sub(other, text)


class Order:
    """Which row sample ``k`` of a run is. In each epoch every row comes as often as its weight says, to within one."""

    def __init__(self, weights: NDArray[np.float64], seed: int) -> None:
        self.ends, self.seed = np.cumsum(weights), seed
        self.ends[-1] = 1.0
        self._epoch, self._rows = -1, np.zeros(0, np.int64)

    def __call__(self, k: int) -> int:
        """The row of sample ``k``."""
        epoch, place = divmod(k, len(self.ends))
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, 0x0E, epoch])
            points = (rng.permutation(len(self.ends)) + 0.5) / len(self.ends)
            rows = np.searchsorted(self.ends, points, side="right").clip(max=len(self.ends) - 1)
            self._epoch, self._rows = epoch, rows
        return int(self._rows[place])
