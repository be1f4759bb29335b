"""Manifests: what is written comes back in every format; what is wrong is all said."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterscan.data.manifest import Record, finding_columns, read, resolve, validate, write
from counterscan.errors import DataError

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=12).map(str.strip)
labels = st.dictionaries(st.sampled_from(["mass", "polyp"]), st.sampled_from([1, 0, -1, None]))
records = st.builds(
    Record,
    path=st.integers(0, 99).map(lambda n: f"/data/{n}.png"),
    patient=words,
    caption=words,
    split=st.sampled_from(["train", "val", "test", ""]),
    view=words,
    age=st.none() | st.floats(0, 120),
    sex=st.sampled_from(["male", "female", ""]),
    mask=st.sampled_from(["", "/data/m.png"]),
    findings=labels,
)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(records, min_size=1, max_size=5))
@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl"])
def test_what_is_written_comes_back(ending, rows):
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / f"m.{ending}"
        assert write(manifest, rows, ["mass", "polyp"]) == len(rows)
        full = [{"mass": None, "polyp": None} | r.findings for r in rows]
        expected = [replace(r, findings=f, row=n) for n, (r, f) in enumerate(zip(rows, full, strict=True), 1)]
        assert list(read(manifest)) == expected
        assert validate(manifest) == []
        assert [p.name for p in Path(folder).iterdir()] == [manifest.name]


def test_paths_below_the_manifest_are_relative(tmp_path):
    manifest = tmp_path / "m.csv"
    write(manifest, [Record(str(tmp_path / "images/a.png"), mask="/elsewhere/m.png")])
    (record,) = read(manifest)
    assert (record.path, record.mask) == ("images/a.png", "/elsewhere/m.png")
    assert resolve(manifest, record.path) == tmp_path / "images/a.png"


def test_every_bad_field_is_named(tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,age,mass\na.png,x,1\n,3,yes\nb.png,4,0\nc.png,5,1,7\n")
    found = {(p.row, p.field) for p in validate(manifest)}
    assert found == {(1, "age"), (2, "path"), (2, "mass"), (4, "row")}
    seen = read(manifest)
    assert next(seen).path == "b.png"
    with pytest.raises(DataError, match=r"4 bad fields: row 1, age: 'x'.*row 2, mass: 'yes'"):
        list(seen)


def test_columns_without_labels_are_no_findings(tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,mass,hospital,empty\na.png,1,north,\nb.png,?,south,\nc.png,-1.0,,\n")
    assert finding_columns(manifest) == (["mass", "empty"], ["hospital"])
    assert [p.field for p in validate(manifest)] == ["mass"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "file\na.png\n", "has no column 'path'"),
        ("m.jsonl", "[1]\n", "row 1 is no JSON object"),
        ("m.jsonl", '{"path": "a.png"}\n\nb.png\n', r"row 2 is no JSON \(Expecting value, column 1\)"),
        ("m.csv", "path,mass, mass\na.png,1,0\n", "has the column 'mass' more than once"),
        ("m.parquet", "nonsense", "not a readable manifest"),
        ("m.txt", "path\n", "a manifest is a file of"),
    ],
)
def test_no_table(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        list(read(tmp_path / name))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_spaces_about_names_and_values_are_none_of_them(tmp_path, ending):
    manifest = tmp_path / f"m.{ending}"
    row = {"path": "a.png", " patient": " A", "caption ": "chest", " split": "train ", " pleural effusion": "1"}
    if ending == "csv":
        manifest.write_text("\n".join(map(",".join, (row, row.values()))))
    elif ending == "jsonl":
        manifest.write_text(json.dumps(row))
    else:
        pq.write_table(pa.Table.from_pylist([row]), manifest)
    findings = {"pleural effusion": 1}
    assert list(read(manifest)) == [Record("a.png", "A", "chest", "train", findings=findings, row=1)]


@pytest.mark.parametrize(("name", "text"), [("m.csv", "path\na.png\n"), ("m.jsonl", '{"path": "a.png"}\n')])
def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert [record.path for record in read(tmp_path / name)] == ["a.png"]


def test_nothing_to_write(tmp_path):
    with pytest.raises(DataError, match="no image found"):
        write(tmp_path / "m.csv", [])
    assert list(tmp_path.iterdir()) == []
