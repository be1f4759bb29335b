"""Batch runs: equal to single edits, whatever kills, breaks or reorders them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.scale.conftest import write_images

import counterscan
from counterscan.errors import DataError, WordsError
from counterscan.scale import batch
from counterscan.scale.job import Item
from counterscan.scale.ledger import only_writer

WORDS = {"remove": "pacemaker"}


def table(folder) -> pd.DataFrame:
    return pd.read_parquet(folder / "ledger").sort_values("item", ignore_index=True)


def outputs(folder) -> dict[str, str]:
    """Every file under items → its hash."""
    root = Path(folder) / "items"
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def plain(model, tmp_path_factory):
    """An undisturbed run over 22 images."""
    root = tmp_path_factory.mktemp("plain")
    manifest = write_images(root, 22)
    summary = batch(manifest, root / "out", model=model, seed=5, **WORDS)
    return manifest, root / "out", summary


def test_everything_is_done_and_recorded(plain):
    _, out, summary = plain
    assert (summary["items"], summary["done"], summary["failed"], summary["skipped"]) == (22, 22, 0, 0)
    rows = table(out)
    assert rows["item"].is_unique and set(rows["status"]) == {"done"} and (rows["seconds"] > 0).all()
    assert np.allclose(rows["seconds"], rows["reading"] + rows["model"] + rows["writing"])
    found = outputs(out)
    recorded = {f: h for files, hashes in zip(rows["files"], rows["sha256"], strict=True)
                for f, h in zip(files, hashes, strict=True)}  # fmt: skip
    assert {name.removeprefix("items/"): digest for name, digest in recorded.items()} == found
    assert rows["bytes"].sum() == sum(p.stat().st_size for p in (out / "items").rglob("*.*"))
    assert not (out / ".drafts").exists() and len(list((out / "ledger").glob("*.parquet"))) == 1


def test_an_item_equals_its_single_edit(plain, model):
    manifest, out, _ = plain
    for row in table(out).iloc[[0, 7, 13]].itertuples():
        (record,) = [out / f for f in row.files if f.endswith(".json")]
        ours = counterscan.Counterfactual.load(record)
        single = counterscan.edit(manifest.parent / row.item, model=model, seed=row.seed, **WORDS)
        assert row.seed == Item(row.item, Path()).seed(5) == ours.seed
        assert ours.fingerprint == single.fingerprint and ours.evaluations == single.evaluations == row.evaluations
        assert np.abs(ours.counterfactual.unit() - single.counterfactual.unit()).max() <= 2 / 255  # rounding to 8 bits
        assert abs(row.changed - single.mask.mean()) < 0.01


def test_running_again_does_nothing(plain, model):
    manifest, out, _ = plain
    before = {p: p.stat().st_mtime_ns for p in (out / "items").rglob("*.*")}
    summary = batch(manifest, out, model=model, seed=5, **WORDS)
    assert summary["skipped"] == summary["done"] == 22
    assert {p: p.stat().st_mtime_ns for p in (out / "items").rglob("*.*")} == before


def test_neighbours_order_and_workers_do_not_matter(plain, model, tmp_path):
    """The same items backwards, with failures between them and other threads: byte for byte the same files."""
    manifest, out, _ = plain
    lines = manifest.read_text().splitlines()[1:]
    mixed = [
        line for i, line in enumerate(reversed(lines)) for line in ([line, f"absent{i}.png,1"] if i % 3 else [line])
    ]
    other = manifest.parent / "mixed.csv"
    other.write_text("path,age\n" + "\n".join(mixed) + "\n")
    summary = batch(other, tmp_path / "out", model=model, seed=5, workers=3, **WORDS)
    assert summary["done"] == 22 and summary["failed"] == 14
    assert outputs(tmp_path / "out") == outputs(out)


def test_kill_minus_nine_loses_nothing(model, tmp_path):
    manifest = write_images(tmp_path, 90)
    arguments = {"manifest": str(manifest), "folder": str(tmp_path / "killed"), "model": model, **WORDS}
    script = [sys.executable, "-m", "tests.scale.killed", json.dumps(arguments), str(tmp_path / "plain"), "11"]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) == 5
    rows, expected = table(tmp_path / "killed"), table(tmp_path / "plain")
    assert len(rows) == 90 and rows["item"].is_unique and set(rows["status"]) == {"done"}
    same = ["item", "seed", "evaluations", "changed", "mean_change", "largest_change", "bytes"]
    pd.testing.assert_frame_equal(rows[same], expected[same], check_exact=True)
    assert [list(h) for h in rows["sha256"]] == [list(h) for h in expected["sha256"]]
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "plain")


def test_bad_images_are_recorded_and_done_once_repaired(plain, model, tmp_path):
    """1 % planted corrupt files: 1 % recorded failures with their reasons, all else done."""
    manifest = write_images(tmp_path, 100)
    victim = tmp_path / "images/0/scan 042.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    summary = batch(manifest, out, model=model, method=quick(), **WORDS)
    assert (summary["done"], summary["failed"]) == (99, 1)
    bad = table(out).query("status == 'failed'").iloc[0]
    assert bad["item"] == "images/0/scan 042.png" and "truncated" in bad["reason"] and not len(bad["files"])
    assert summary["failures"] == [{"item": bad["item"], "reason": bad["reason"]}]
    victim.write_bytes(whole)
    again = batch(manifest, out, model=model, method=quick(), **WORDS)
    assert (again["done"], again["failed"], again["skipped"]) == (100, 0, 99)
    assert len(table(out)) == 100


def test_missing_outputs_are_made_again(model, tmp_path):
    manifest, out = write_images(tmp_path, 5), tmp_path / "out"
    batch(manifest, out, model=model, method=quick(), **WORDS)
    before = outputs(out)
    next((out / "items").rglob("*.mask.png")).unlink()
    assert batch(manifest, out, model=model, method=quick(), **WORDS)["skipped"] == 4
    assert outputs(out) == before and len(table(out)) == 5


def test_a_replaced_image_is_done_again(model, tmp_path):
    manifest, out = write_images(tmp_path, 4), tmp_path / "out"
    gone, victim, other = (tmp_path / f"images/{i}/scan 00{i}.png" for i in range(3))
    batch(manifest, out, model=model, method=quick(), **WORDS)
    before = outputs(out)
    victim.write_bytes(other.read_bytes())
    gone.unlink()  # what is gone cannot be done again, and need not be
    summary = batch(manifest, out, model=model, method=quick(), **WORDS)
    assert (summary["done"], summary["failed"], summary["skipped"]) == (4, 0, 3)
    changed = {name for name, digest in outputs(out).items() if before[name] != digest}
    assert changed and all("scan 001" in name for name in changed)
    assert batch(manifest, out, model=model, method=quick(), **WORDS)["skipped"] == 4


def test_a_ledger_that_knows_no_inputs_is_resumed(model, tmp_path):
    manifest, out = write_images(tmp_path, 2), tmp_path / "out"
    batch(manifest, out, model=model, method=quick(), **WORDS)
    (part,) = (out / "ledger").iterdir()
    pd.read_parquet(part).drop(columns="inputs").to_parquet(part)
    (tmp_path / "images/0/scan 000.png").touch()
    assert batch(manifest, out, model=model, method=quick(), **WORDS)["skipped"] == 2


def test_another_job_is_refused_in_the_same_folder(plain, model):
    manifest, out, _ = plain
    with pytest.raises(WordsError, match=r"another job \(its seed differ\)"):
        batch(manifest, out, model=model, seed=6, **WORDS)
    with pytest.raises(WordsError, match="target"):
        batch(manifest, out, model=model, seed=5, add="pleural effusion")


def test_two_runs_in_one_folder_are_refused(plain, model):
    manifest, out, _ = plain
    with only_writer(out), pytest.raises(DataError, match="another run"):
        batch(manifest, out, model=model, seed=5, **WORDS)


def test_equal_names_do_not_collide():
    first, second = Item("a/scan.png", Path("a/scan.png")), Item("b/scan.png", Path("b/scan.png"))
    assert first.stem != second.stem and first.seed(0) != second.seed(0) != second.seed(1)


def quick():
    from counterscan import methods

    return methods.get("ddim", steps=2, depth=1.0)
