"""Splits by hash hold for a patient wherever he turns up, in about the shares that were asked for."""

from __future__ import annotations

from collections import Counter

from counterscan.data.manifest import Record
from counterscan.data.splits import SHARES, split_of, with_splits


def test_shares():
    counts = Counter(split_of(f"patient{i}") for i in range(5000))
    for name, share in SHARES:
        assert abs(counts[name] / 5000 - share) < 4 * (share * (1 - share) / 5000) ** 0.5


def test_a_patient_has_one_split_and_what_is_given_stays():
    rows = [Record(f"{i}.png", patient=f"p{i % 40}", split="test" if i == 0 else "") for i in range(200)]
    new = list(with_splits(rows))
    assert new[0].split == "test"
    assert all(row.split == split_of(row.patient) for row in new[1:])
    assert split_of("patient00001") == "train"  # the same on every machine and in every release


def test_without_patients_files_of_one_name_stay_together():
    assert [row.split for row in with_splits([Record("a/x.png"), Record("b/x.png")])] == [split_of("x.png")] * 2
