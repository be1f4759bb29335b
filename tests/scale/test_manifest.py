"""The path column of manifests in every format."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterscan.errors import DataError
from counterscan.scale import job
from counterscan.scale.manifest import read_images

names = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1, max_size=20
)


@settings(max_examples=30, deadline=None)
@given(paths=st.lists(names, min_size=1, max_size=8))
@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl"])
def test_paths_come_back_each_once(ending, paths):
    table = pd.DataFrame({"age": range(len(paths)), "path": paths})
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / f"manifest.{ending}"
        if ending == "parquet":
            table.to_parquet(manifest)
        elif ending == "jsonl":
            table.to_json(manifest, orient="records", lines=True, force_ascii=False)
        else:
            table.to_csv(manifest, index=False, sep="\t" if ending == "tsv" else ",")
        assert read_images(manifest)[0]["path"].to_pylist() == list(dict.fromkeys(paths))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "file,age\na.png,1\n", "has no column 'path'"),
        ("m.jsonl", '{"file": "a.png"}', "has no column 'path'"),
        ("m.csv", "path,age\n", "m.csv: lists no image"),
        ("m.csv", "", "has no column 'path'"),
        ("m.csv", "path, path\na.png,b.png\n", "has the column 'path' more than once"),
        ("m.csv", "path,age, age \na.png,1,2\n", "has the column 'age' more than once"),
        ("m.jsonl", '{"path": 3', "not a readable manifest"),
        ("m.parquet", "nonsense", "not a readable manifest"),
        ("m.txt", "path\n", "a manifest is a .csv"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_images(tmp_path / name)


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl"])
def test_contrasts_are_those_of_the_first_row_of_a_path(ending, tmp_path):
    table = pd.DataFrame(
        {"path_T1": ["a", None, "c"], "age": [1, 2, 3], "path": ["x", "y", "x"], "pathology": [0, 1, 0]}
    )
    manifest = tmp_path / f"manifest.{ending}"
    if ending in ("csv", "tsv"):
        table.to_csv(manifest, index=False, sep="\t" if ending == "tsv" else ",", encoding="utf-8-sig")
    else:
        table.to_parquet(manifest) if ending == "parquet" else table.to_json(manifest, orient="records", lines=True)
    items = list(job.items(read_images(manifest)[0], tmp_path))
    assert [(item.id, item.path, item.contrasts) for item in items] == [
        ("x", tmp_path / "x", {"path_T1": tmp_path / "a"}),
        ("y", tmp_path / "y", {}),
    ]


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl"])
def test_rows_that_name_no_image_are_told_by_their_number(ending, tmp_path):
    paths, manifest = ["a.png", "", "b.png", "  ", None], tmp_path / f"m.{ending}"
    table = pd.DataFrame({"path": paths, "age": range(5)})
    if ending in ("csv", "tsv"):
        table.to_csv(manifest, index=False, sep="\t" if ending == "tsv" else ",")
    else:
        table.to_parquet(manifest) if ending == "parquet" else table.to_json(manifest, orient="records", lines=True)
    images, unusable = read_images(manifest)
    assert images["path"].to_pylist() == ["a.png", "b.png"]
    assert [tuple(bad) for bad in unusable] == [(n, "its path is empty; name an image") for n in (2, 4, 5)]


def test_rows_of_too_many_or_too_few_fields_cost_the_others_nothing(tmp_path):
    (tmp_path / "m.csv").write_text("age,path\n1,a.png\n2,b.png,old, very\n\n3\n4,\n5,c.png\n")
    images, unusable = read_images(tmp_path / "m.csv")
    assert images["path"].to_pylist() == ["a.png", "c.png"]
    assert [bad.row for bad in unusable] == [2, 3, 4]
    assert unusable[0].reason == "has 4 fields, the header 2; quote a field with a ','"
    (tmp_path / "m.csv").write_text("age,path\n1,a.png,\n")
    images, unusable = read_images(tmp_path / "m.csv")
    assert (len(images), len(unusable)) == (0, 1)


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl"])
def test_spaces_about_names_of_columns_do_not_count(ending, tmp_path):
    table, manifest = (
        pd.DataFrame({" path": ["a.png"], "age ": ["3"], " path_T2 ": ["b.png"]}),
        tmp_path / f"m.{ending}",
    )
    if ending in ("csv", "tsv"):
        table.to_csv(manifest, index=False, sep="\t" if ending == "tsv" else ",", encoding="utf-8-sig")
    else:
        table.to_parquet(manifest) if ending == "parquet" else table.to_json(manifest, orient="records", lines=True)
    assert read_images(manifest)[0].to_pylist() == [{"path": "a.png", "path_T2": "b.png"}]


def test_an_absent_manifest(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_images(tmp_path / "m.csv")
