"""Whether a manifest can be trained on: every problem of every row, never stopping at the first."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from counterscan.data.looks import Looks
from counterscan.data.manifest import Record, finding_columns, parse, raw_rows
from counterscan.data.opened import opened, same
from counterscan.data.workers import ahead
from counterscan.language.vocabulary import VOCABULARY

SPLITS = ("train", "val", "valid", "validation", "test", "")
UNSOUND = frozenset(
    (
        "bad field,impossible age,unreadable,missing mask,bad mask,missing contrast,leaking patient,"
        "duplicate across splits,nothing to train on"
    ).split(",")
)
SAID = {1: "present", 0: "absent", -1: "uncertain", None: "unknown"}
OLDEST = 120
RARE = 10  # positives below which a finding cannot be learnt
KEPT = 5000  # issues of a kind that are kept in words; all are counted


@dataclass(frozen=True)
class Issue:
    """One problem. ``row`` is 1-based, 0 where it is of the whole set; ``path`` is the image as the
    manifest names it, if it is of one.
    """

    kind: str
    row: int
    text: str
    path: str = ""


@dataclass
class Checked:
    """What a check found. ``balance`` maps a finding to how often it is present, absent, uncertain and unknown."""

    manifest: Path
    rows: int = 0
    issues: list[Issue] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    balance: dict[str, Counter[str]] = field(default_factory=dict)
    splits: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, row: int, text: str, path: str = "") -> None:
        """Count an issue; the first 5000 of a kind are kept in words."""
        self.kinds[kind] += 1
        if self.kinds[kind] <= KEPT:
            self.issues.append(Issue(kind, row, text, path))

    @property
    def sound(self) -> bool:
        """Whether nothing was found that makes training wrong; warnings such as rare findings do not."""
        return not self.kinds.keys() & UNSOUND

    def summary(self) -> dict[str, Any]:
        """The numbers, for people and ``--json``."""
        return {
            "manifest": str(self.manifest),
            "rows": self.rows,
            "sound": self.sound,
            "issues": dict(self.kinds.most_common()),
            "splits": dict(self.splits),
            "balance": {name: {said: count[said] for said in SAID.values()} for name, count in self.balance.items()},
        }


def check(manifest: str | Path, *, images: bool = True, progress: Callable[[int, int], None] | None = None) -> Checked:
    """Check a manifest and, with ``images``, every file it names.

    Memory grows by about 100 bytes a row, and with ``images`` by about 1 kB an image.

    Raises:
        DataError: the manifest itself cannot be read.
    """
    manifest = Path(manifest)
    found, seen, looks = Checked(manifest), _Seen(), Looks()
    columns, passed = finding_columns(manifest)
    for name in passed:
        found.add("not a finding", 0, f"column {name!r} holds no labels and is passed over")
    new = _new_images(_records(found, columns, seen), seen)
    total = sum(1 for _ in raw_rows(manifest)) if progress else 0
    for record, files in ahead(lambda record: opened(manifest, record), new) if images else ((r, None) for r in new):
        for kind, text in files.faults if files else ():
            found.add(kind, record.row, text, record.path)
        if files and files.look:
            looks.add(record, files.look)
        if progress and record.row % 100 == 0:
            progress(record.row, total)
    for name, splits in seen.patients.items():
        if len(splits) > 1:
            text = f"patient {name!r} is in {' and '.join(sorted(s or '(none)' for s in splits))}"
            found.add("leaking patient", 0, text)
    for kind, row, text, path in looks.problems(lambda first, second: same(manifest, first, second)):
        found.add(kind, row, text, path)
    if seen.masked and (unmasked := seen.found - seen.masked):
        found.add("no mask", 0, f"{len(unmasked)} images with a finding have no mask, others do")
    _whole(found)
    return found


@dataclass
class _Seen:
    """What the rows so far named."""

    patients: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    paths: dict[int, tuple[int, str]] = field(default_factory=dict)  # hash -> first row and its split
    pairs: set[int] = field(default_factory=set)
    masked: set[int] = field(default_factory=set)  # hashes of the images that have a mask
    found: set[int] = field(default_factory=set)  # and of those with a finding, or of a set without findings


def _records(found: Checked, columns: list[str], seen: _Seen) -> Iterator[Record]:
    for number, row in enumerate(raw_rows(found.manifest), 1):
        record, problems = parse(row, number, columns)
        for problem in problems:
            found.add("bad field", number, f"{problem.field}: {problem.text}", record.path)
        _fields(record, found, seen)
        yield record


def _fields(record: Record, found: Checked, seen: _Seen) -> None:
    """What one row says that cannot be, or was said before."""
    found.rows += 1
    found.splits[record.split] += 1
    if record.split not in SPLITS:
        found.add("bad field", record.row, f"split: {record.split!r}; write train, val or test", record.path)
    if record.age is not None and not 0 <= record.age <= OLDEST:
        found.add("impossible age", record.row, f"{record.age:g} years; correct or empty it", record.path)
    for name, value in record.findings.items():
        found.balance.setdefault(name, Counter())[SAID[value]] += 1
    if record.patient:
        seen.patients[record.patient].add(record.split)
    first, split = seen.paths.get(hash(record.path), (0, record.split))
    if first and split != record.split:
        found.add("duplicate across splits", record.row, f"the same file as row {first}", record.path)
    elif hash((record.path, record.caption)) in seen.pairs:  # an image may have several captions, one a row
        found.add("repeated row", record.row, f"the same image and caption as row {first} or later", record.path)
    seen.pairs.add(hash((record.path, record.caption)))
    if record.mask:
        seen.masked.add(hash(record.path))
    if 1 in record.findings.values() or not record.findings:
        seen.found.add(hash(record.path))


def _new_images(records: Iterator[Record], seen: _Seen) -> Iterator[Record]:
    """The records of images that no row before named."""
    for record in records:
        if record.path and hash(record.path) not in seen.paths:
            seen.paths[hash(record.path)] = record.row, record.split
            yield record


def _whole(found: Checked) -> None:
    """What is odd about whole columns: a finding's name, and how much there is to learn from."""
    if not found.rows or (set(found.splits) - {""} and not found.splits["train"]):
        found.add("nothing to train on", 0, "no row is in the split 'train'" if found.rows else "no rows")
    known = [finding.name for finding in VOCABULARY]
    for name, count in found.balance.items():
        if name not in known and (near := _misspelt(name, [*known, *found.balance])):
            found.add("label typo", 0, f"column {name!r}: is {near!r} meant?")
        if 0 < count["present"] + count["absent"] and count["present"] < RARE:
            found.add("rare finding", 0, f"{name}: {count['present']} present of {count.total()}")
        elif count["present"] and not count["absent"]:
            found.add("no negatives", 0, f"{name}: {count['present']} present, none absent")


def _misspelt(name: str, others: list[str]) -> str | None:
    """The other name that differs in the spelling of one word only."""
    words = name.lower().replace("_", " ").split()
    for other in others:
        apart = [(a, b) for a, b in zip(words, other.lower().split(), strict=False) if a != b]
        if other != name and len(other.split()) == len(words) and len(apart) <= 1:
            if all(difflib.SequenceMatcher(None, a, b).ratio() >= 0.8 and min(len(a), len(b)) > 4 for a, b in apart):
                return other
    return None
