"""Manifests as the studies read them, and what tells one image from another."""

from __future__ import annotations

import os

import pandas as pd
import pytest

from counterscan.errors import DataError
from counterscan.robustness.study import pictured, read_table


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_spaces_about_names_and_words_do_not_count(ending, tmp_path):
    table = pd.DataFrame({" path": [" a.png"], " pneumonia ": ["1 "], "path_T2 ": ["b.png"], "": ["0"]})
    manifest = tmp_path / f"m.{ending}"
    table.to_parquet(manifest) if ending == "parquet" else table.to_csv(manifest, index=False, encoding="utf-8-sig")
    assert read_table(manifest) == [
        {"path": tmp_path / "a.png", "pneumonia": "1", "path_T2": str(tmp_path.resolve() / "b.png")}
    ]


@pytest.mark.parametrize(
    ("header", "says"),
    [("path,age, age", "has the column 'age' more than once"), ("file,age,x", "has no column 'path'")],
)
def test_a_header_that_cannot_be_meant_is_refused(header, says, tmp_path):
    (tmp_path / "m.csv").write_text(f"{header}\na.png,1,2\n")
    with pytest.raises(DataError, match=says):
        read_table(tmp_path / "m.csv")


@pytest.mark.parametrize("text", ["path,age\na.png,1,\n", "path,age\na.png,1\nb.png,old, very\n"])
def test_a_row_of_more_fields_than_the_header_is_refused(text, tmp_path):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(DataError, match="not a manifest .*Expected 2 fields"):
        read_table(tmp_path / "m.csv")


def test_images_are_told_by_size_and_date_and_not_read(tmp_path):
    row = {"path": tmp_path / "a.png", "path_T2": str(tmp_path / "b.png")}

    def told(first, when):
        row["path"].write_bytes(first)
        os.utime(row["path"], ns=(when, when))
        return pictured(row)

    before = told(b"one", 10**18)
    assert before == told(b"two", 10**18)  # as no content was read
    assert before != told(b"one", 10**18 + 1) and before != told(b"three", 10**18)
    (tmp_path / "b.png").write_bytes(b"")
    assert before != told(b"one", 10**18)
