"""Augmentation: the plan balances what it is told to, the gates see what they are for, and every row says how it was made."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.tables import write_manifest

from counterscan.backbones.card import Card
from counterscan.errors import DataError
from counterscan.robustness.audit import LIMITS, grey, identity, open_gallery, twin
from counterscan.robustness.augment import Gates, Measured, Task, columns, counts, passes, plan
from counterscan.robustness.balancing import balance, measure

LABELS = st.sampled_from(["0", "1", "-1", ""])
GREY = Card("m", channels=1)
SEXES = st.sampled_from(["F", "M", ""])


def done(rows, tasks):
    """The rows after all edits."""
    return [*rows, *(rows[task.index] | dict(task.changes) for task in tasks)]


def full(cells, held, n):
    """All cells of ``n`` edited columns are there and equal, for each combination of the held ones, which stand last."""
    groups = {}
    for cell, count in cells.items():
        groups.setdefault(cell[len(cell) - held :], []).append(count)
    return all(len(counts) == 2**n and len(set(counts)) == 1 for counts in groups.values())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(LABELS, st.sampled_from(["0", "1", ""])), max_size=60))
def test_a_plan_fills_the_rare_cells_and_edits_nothing_twice(values):
    rows = [{"f": f, "a": a} for f, a in values]
    if not counts(rows, ["f", "a"]):
        with pytest.raises(DataError, match="no row knows all of 'f', 'a'|'a', 'f'"):
            plan(rows, "f", "a")
        return
    tasks = plan(rows, "f", "a", seed=3)
    assert len({t.index for t in tasks}) == len(tasks)
    assert all(t.changes == (("a", 1 - int(rows[t.index]["a"])),) and t.value == t.changes[0][1] for t in tasks)
    before, after = counts(rows, ["a", "f"]), counts(done(rows, tasks), ["a", "f"])
    assert full(after, 1, 1)
    for f in {cell[1] for cell in before}:
        assert after[0, f] == max(before[0, f], before[1, f])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(LABELS, LABELS, LABELS), max_size=60))
def test_two_findings_are_balanced_together(values):
    rows = [dict(zip("fab", value, strict=True)) for value in values]
    if not counts(rows, "fab"):
        return
    tasks = plan(rows, "f", ["a", "b"], seed=1)
    assert all("f" not in dict(t.changes) for t in tasks)
    assert len(set(tasks)) == len(tasks)
    assert full(counts(done(rows, tasks), ["a", "b", "f"]), 1, 2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(LABELS, LABELS, SEXES, st.sampled_from(["AP", "PA"])), max_size=60))
def test_sex_and_view_are_held_and_the_finding_is_parted_from_them(values):
    rows = [dict(zip(("f", "a", "sex", "view"), value, strict=True)) for value in values]
    if not counts(rows, ("f", "a", "sex", "view")):
        return
    tasks = plan(rows, "f", ["a", "view", "sex"], seed=1)
    assert all({name for name, _ in t.changes} <= {"f", "a"} for t in tasks)
    assert full(counts(done(rows, tasks), ["f", "a", "view", "sex"]), 2, 2)


def test_columns_of_words_are_held():
    rows = [{"f": "1", "a": "0.0", "sex": "F"}, {"f": "0", "a": "", "sex": ""}]
    assert columns(rows, "f", "a") == (["a"], ["f"])
    assert columns(rows, "f", ["sex", "a", "a"]) == (["f", "a"], ["sex"])


def test_cells_are_filled_by_the_images_that_need_the_fewest_changes():
    cells = [(1, 1)] * 6 + [(1, 0)] * 3
    rows = [{"f": 1, "a": a, "b": b} for a, b in cells]
    changed = Counter(t.changes for t in plan(rows, "f", ["a", "b"]))
    assert changed == {
        (("b", 0),): 3,  # three more of (1, 0), from (1, 1)
        (("a", 0),): 6 + 3,  # all of (0, 1) from (1, 1); of (0, 0) what (1, 0) gives
        (("a", 0), ("b", 0)): 3,  # the rest of (0, 0)
    }


def test_gates_say_why():
    wanted, good = {"effusion": 1, "pacemaker": 0}, Measured(0.1, 0.01, 0.97, 0.7, 0.8, "t.png", {"pacemaker": 0.1})
    for seen, reason in [
        (good, ""),
        (Measured(0.1), ""),
        (replace(good, saw={"effusion": 0.9, "pacemaker": 0.1, "gout": 1.0}), ""),
        (replace(good, saw={"pacemaker": 0.9}), "the judge sees pacemaker at 0.90"),
        (replace(good, saw={"pacemaker": 0.1, "effusion": 0.2}), "the judge sees effusion at 0.20"),
        (replace(good, changed_area=0.0), "nothing changed"),
        (replace(good, changed_area=0.8), "80% of the image changed"),
        (replace(good, drift_outside=0.03), "the rest of the image drifted by 0.030"),
        (replace(good, identity=0.7), "30% of other patients are nearer to the original"),
        (replace(good, similarity=0.81), "a copy of t.png, similarity 0.81"),
    ]:
        assert passes(seen, wanted, Gates()) == reason


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Sixteen training images of smooth noise; the finding agrees with the device and, all but once, with the sex."""
    from scipy.ndimage import gaussian_filter

    folder = tmp_path_factory.mktemp("set")
    rng, rows = np.random.default_rng(0), []
    for i in range(16):
        f = i % 2
        pixels = gaussian_filter(rng.standard_normal((64, 64)), 3) * 600 + 110
        pixels[:, :32] += 20 * f
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
        row = {"path": f"{i}.png", "patient": f"p{i}", "split": "train", "pleural effusion": f, "pacemaker": f}
        rows.append(row | {"sex": "FM"[f if i != 1 else 0]})
    return write_manifest(folder, rows)


@pytest.fixture(scope="module")
def rows(manifest):
    with manifest.open() as file:
        return [row | {"path": manifest.parent / row["path"]} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def gallery(rows):
    return open_gallery(rows, 0.01, GREY)


def shown(path, change=lambda pixels: pixels):
    from counterscan.imaging import from_array

    return grey(from_array(np.ascontiguousarray(change(np.asarray(Image.open(path))))))


def test_copies_of_other_patients_are_found_and_honest_images_are_not(rows, gallery):
    assert LIMITS[0] <= gallery.limit < LIMITS[1]
    for change in (lambda x: x, lambda x: x[:, ::-1], lambda x: x // 2 + 60, lambda x: x[2:-2, 2:-2]):
        copy = shown(rows[3]["path"], change)
        similarity, path = twin(copy, "p0", gallery)
        assert (similarity > gallery.limit, path) == (True, str(rows[3]["path"]))
        similarity, path = twin(copy, "p3", gallery)  # an edit is like its own patient's images
        assert similarity < gallery.limit and path != str(rows[3]["path"])


def test_a_patient_is_recognised(rows, gallery):
    own, other = shown(rows[0]["path"]), shown(rows[5]["path"])
    assert identity(own, own, "p0", gallery) == 1
    assert identity(own, np.where(np.arange(256) < 60, 0.5, own).astype(np.float32), "p0", gallery) > 0.8
    assert identity(own, other, "p0", gallery) < 0.95
    alone = replace(gallery, owners=np.array(["p0"] * 16))
    assert identity(own, other, "p0", alone) is None
    assert twin(own, "p0", alone) == (None, "")


def test_a_gallery_passes_over_what_cannot_be_read(rows, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    bad = {"path": tmp_path / "bad.png", "patient": "b"}
    assert len(open_gallery([rows[0], bad], 0.01, GREY).files) == 1
    assert open_gallery([rows[0], bad], 0.01, GREY).limit == LIMITS[1]
    with pytest.raises(DataError, match="none of 1 images"):
        open_gallery([bad], 0.01, GREY)


def test_drift_is_the_change_before_compositing_outside_the_changed_area(rows, gallery, model):
    import counterscan

    result = counterscan.edit(rows[0]["path"], add="pacemaker", model=model)
    change, mask = np.full((64, 64), 0.03, np.float32), np.zeros((64, 64), bool)
    change[:8], mask[:8] = -0.5, True
    judge = SimpleNamespace(labels=("a",), size=32, channels=1)
    judge = type("Judge", (), {"__call__": lambda self, x: x.mean((1, 2, 3))[:, None], **vars(judge)})()
    seen = measure(replace(result, unblended=change, mask=mask), "p0", gallery, judge)
    assert seen.drift_outside == pytest.approx(0.03)
    assert seen.changed_area == pytest.approx(8 / 64)
    assert seen.saw["a"] == pytest.approx(float(result.counterfactual.unit().mean()), abs=1e-3)
    assert passes(seen, {}, Gates()) == "the rest of the image drifted by 0.030"


def test_what_turns_into_another_training_image_is_refused(rows, model, tmp_path, monkeypatch):
    """An editor that answers with the image of another patient; and one that only brightens a corner."""
    import counterscan
    from counterscan.imaging import read

    backbone = counterscan.load(model)

    def answering(pixels_of):
        def edit(factual, **_):
            mask = np.zeros((64, 64), bool)
            mask[:16, :16] = True
            pixels = pixels_of(factual.pixels.copy())
            result = SimpleNamespace(factual=factual, counterfactual=factual.with_pixels(pixels), mask=mask)
            request = SimpleNamespace(source="before", target="after")
            more = {"unblended": None, "difference": np.zeros((64, 64), np.float32), "method": "m", "model": "n"}
            return SimpleNamespace(**vars(result), edit=request, **more)

        return edit

    def corner(pixels):
        pixels[:16, :16] += 5
        return pixels

    other = read(rows[3]["path"]).pixels
    monkeypatch.setattr("counterscan.editing.edit", answering(lambda _: other))
    made = balance(rows, "pleural effusion", "pacemaker", backbone, tmp_path / "a")
    made = [row for row in made if row["source"] != str(rows[3]["path"])]
    assert len(made) == 15 and all("copy of" in row["refused"] or "other patients" in row["refused"] for row in made)
    assert {row["twin"] for row in made} == {str(rows[3]["path"])}
    monkeypatch.setattr("counterscan.editing.edit", answering(corner))
    kept = balance(rows, "pleural effusion", "pacemaker", backbone, tmp_path / "b")
    assert [row["refused"] for row in kept] == [""] * 16
    assert len({row["path"] for row in kept}) == 16
    assert all((tmp_path / "b" / row["path"]).is_file() for row in kept)


def test_augment_writes_a_manifest_and_goes_on_where_it_stopped(manifest, model, tmp_path, run):
    words = ["augment", manifest, "--finding", "pleural effusion", "--against", "pacemaker", "--model", model, "-n", 6]
    words += ["-o", tmp_path / "a", "--json"]
    code, out, err = run(words)
    assert code == 0, err
    first = json.loads(out)
    assert first["made"] + first["refused"] == 6
    assert json.loads((tmp_path / "a" / "run.json").read_text())["arguments"] == [str(word) for word in words]
    assert (first["finding"], first["against"], first["edited"]) == ("pleural effusion", "pacemaker", ["pacemaker"])
    with (tmp_path / "a" / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    made = [row for row in rows if row["synthetic"] == "yes"]
    assert len(made) == first["made"]
    assert all((tmp_path / "a" / row["path"]).is_file() for row in made)
    assert all(row["pacemaker"] == str(1 - int(row["pleural effusion"])) for row in made)
    ledger = tmp_path / "a" / "made.jsonl"
    whole = ledger.read_text()
    ledger.write_text(whole[: len(whole) // 2])
    assert json.loads(run(words)[1])["made"] == first["made"]
    assert ledger.read_text() == whole
    ledger.write_text(whole.replace("{", "", 1))
    code, _, err = run(words)
    assert code == 1 and "line 1 is damaged" in err


def test_other_settings_in_the_same_folder_make_other_rows(rows, model, tmp_path):
    """Another method, judge or gates: nothing of the run before is taken, and nothing of it is overwritten."""
    import torch

    import counterscan
    from counterscan.robustness.opening import Outputs

    backbone = counterscan.load(model)

    def judge(value):
        return Outputs("judge", ("pacemaker",), 32, 1, lambda x: torch.full((len(x), 1), value))

    every = Gates(least=0, most=1, drift=1, identity=0, judge=0.5)  # the model is untrained
    before = balance(rows[:4], "pleural effusion", "pacemaker", backbone, tmp_path, gates=every)
    images = {path: path.read_bytes() for path in (tmp_path / "images").iterdir()}
    assert len(images) == len(before) == 4 and not any("judged pacemaker" in row for row in before)
    for other in (
        {"judge": judge(0.9), "gates": every},
        {"judge": judge(0.1), "gates": every},
        {"method": "sdedit", "gates": every},
        {"gates": replace(every, most=0.0)},
    ):
        made = balance(rows[:4], "pleural effusion", "pacemaker", backbone, tmp_path, **other)
        assert {row["key"] for row in made}.isdisjoint(row["key"] for row in before)
        assert all(("judged pacemaker" in row) == ("judge" in other) for row in made)
        assert made == balance(rows[:4], "pleural effusion", "pacemaker", backbone, tmp_path, **other)
    assert {path: path.read_bytes() for path in images} == images
    assert balance(rows[:4], "pleural effusion", "pacemaker", backbone, tmp_path, gates=every) == before


def test_what_augment_writes_is_a_manifest_that_says_what_is_seen(manifest, model, tmp_path, run, monkeypatch):
    """Of a Parquet file, which has nulls; with masks, captions and a test part."""
    import pandas as pd

    from counterscan.data.manifest import finding_columns, read

    monkeypatch.setattr("counterscan.robustness.balancing.passes", lambda *_: "")  # the model is untrained
    table = pd.read_csv(manifest).head(8)
    table["age"], table["mask"], table["caption"] = [60.0, None] * 4, table["path"], "chest: pacemaker."
    table["split"] = ["train"] * 6 + ["test"] * 2
    table.to_parquet(manifest.with_name("table.parquet"))
    words = ["augment", manifest.with_name("table.parquet"), "--finding", "pleural effusion", "--against", "pacemaker"]
    code, out, err = run([*words, "--model", model, "-o", tmp_path / "a", "--json"])
    manifest.with_name("table.parquet").unlink()
    assert code == 0, err
    records = list(read(tmp_path / "a" / "manifest.csv"))
    made = records[8:]
    assert json.loads(out)["rows"] == 6 and len(made) == json.loads(out)["made"] > 0
    assert [record.split for record in records[:8]].count("test") == 2
    assert all(Path(record.mask).is_file() for record in records[:8])
    assert not any(record.mask for record in made)  # it would outline what is gone, and not what has come
    assert all(("no pacemaker" in record.caption) == (record.findings["pacemaker"] == 0) for record in made)
    assert "synthetic" in finding_columns(tmp_path / "a" / "manifest.csv")[1]


def test_a_joint_balance_records_what_every_gate_saw(manifest, model, tmp_path, run):
    from counterscan.robustness.classifier import Classifier

    Classifier(["pacemaker", "gout"], size=32, width=8).save(tmp_path / "c", {})
    words = ["augment", manifest, "--finding", "pleural effusion", "--against", "pacemaker", "--against", "sex"]
    words += ["--judge", tmp_path / "c", "--model", model, "-n", 4, "-o", tmp_path / "a", "--json"]
    code, out, err = run(words)
    assert code == 0, err
    told = json.loads(out)
    assert (told["against"], told["edited"]) == ("pacemaker, sex", ["pleural effusion", "pacemaker"])
    before = {(c["pleural effusion"], c["pacemaker"], c["sex"]): c["before"] for c in told["cells"] if c["before"]}
    assert before == {(0, 0, "F"): 2, (1, 1, "F"): 1, (1, 1, "M"): 1}
    assert sum(c["after"] for c in told["cells"]) == 4 + told["made"]
    made = [json.loads(line) for line in (tmp_path / "a" / "made.jsonl").read_text().splitlines()]
    assert len(made) == told["made"] + told["refused"] == 8  # to 2 in each cell of women, to 1 of men
    for row in made:
        assert {"changed_area", "drift_outside", "identity", "similarity", "copy_limit", "twin", "edit"} <= set(row)
        assert 0 <= row["judged pacemaker"] <= 1 and "judged gout" not in row
        assert row["edit"].count("pleural effusion") + row["edit"].count("pacemaker") == row["edit"].count(",") + 1
    settings = json.loads((tmp_path / "a" / "run.json").read_text())["settings"]
    assert settings["gates"]["drift"] == Gates().drift


def test_columns_that_cannot_be_balanced_are_named(manifest, model, tmp_path, run):
    words = ["augment", manifest, "--finding", "pleural effusion", "--model", model, "-o", tmp_path / "a", "--against"]
    code, _, err = run([*words, "pleural effusion"])
    assert code == 2 and "against itself" in err
    code, _, err = run([*words, "sexx"])
    assert code == 2 and "sexx" in err
    assert not (tmp_path / "a").exists()


def test_synonyms_absent_and_damaged_images(manifest, model, tmp_path, run):
    """The columns, and the judge's labels, are found by what they mean; the rest is done, and both faults are named."""
    from counterscan.robustness.classifier import Classifier

    Classifier(["Pacer"], size=32, width=8).save(tmp_path / "c", {})
    (tmp_path / "bad.png").write_bytes(b"")
    images = [manifest.parent / "0.png", tmp_path / "bad.png", manifest.parent / "1.png", tmp_path / "absent.png"]
    rows = [{"path": path, "pleural effusion": i % 2, "pacemaker": i % 2} for i, path in enumerate(images)]
    words = ["augment", write_manifest(tmp_path, rows), "--finding", "effusion", "--against", "PPM"]
    words += ["--judge", tmp_path / "c", "--model", model, "--method", "sdedit", "-o", tmp_path / "a", "--json"]
    code, out, err = run(words)
    told = json.loads(out)
    assert code == 1 and (told["finding"], told["against"]) == ("pleural effusion", "pacemaker")
    wrong = [f"{tmp_path / 'absent.png'}: no such file", f"{tmp_path / 'bad.png'}: the file is empty"]
    assert told["failed"] == wrong and all(reason in err for reason in wrong)
    assert (told["rows"], told["made"] + told["refused"]) == (3, 3)
    made = [json.loads(line) for line in (tmp_path / "a" / "made.jsonl").read_text().splitlines()]
    assert all(("judged pacemaker" in row) != ("failed" in row) for row in made)
    (tmp_path / "bad.png").write_bytes(images[0].read_bytes())
    assert json.loads(run(words)[1])["failed"] == wrong[:1]
    code, _, err = run([*words[:3], "pleural effusion", "--against", "effusion", *words[6:]])
    assert code == 2 and "against itself" in err


def test_a_task_names_its_first_value():
    assert Task(0, (("pacemaker", 0), ("effusion", 1)), 7).value == 0
