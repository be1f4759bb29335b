"""Splits for data sets that have none: by patient, and the same whenever and wherever it is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import PurePath

from counterscan.data.manifest import Record

SHARES = (("train", 0.8), ("val", 0.1), ("test", 0.1))


def split_of(patient: str) -> str:
    """The split of a patient (or of a file's name, where patients are unknown): 80 / 10 / 10 in a hundred, by hash."""
    point = int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8], "big") / 2**64
    for name, share in SHARES:
        if point < share:
            return name
        point -= share
    return SHARES[-1][0]


def with_splits(records: Iterable[Record], *, anew: bool = False) -> Iterator[Record]:
    """The records; those without a split (``anew``: all) get one by patient."""
    for record in records:
        keeps = record.split and not anew
        yield record if keeps else replace(record, split=split_of(record.patient or PurePath(record.path).name))
