"""Stress, disentangling and augmentation: right on classifiers and tables whose answer is known."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.models import tiny

from counterscan.cli import main
from counterscan.errors import DataError
from counterscan.robustness.augment import Gates, Task, counts, passes, plan
from counterscan.robustness.classifier import Classifier
from counterscan.robustness.disentangle import entanglement, matrix
from counterscan.robustness.learning import calibration_error, learn
from counterscan.robustness.stress import Effect, effects, ranked, subgroups

N = 40


def test_a_shortcut_is_ranked_first_and_only_it_stands_out():
    rng = np.random.default_rng(0)
    before = rng.random((N, 3)).astype(np.float32)
    null = before + 0.01 * rng.standard_normal((N, 3)).astype(np.float32)
    after = null + np.array([0, -0.3, 0], np.float32)
    rows = effects("remove x", ["a", "b", "c"], before, after, null, [str(i) for i in range(N)], {})
    order = ranked(rows)
    assert order[0].output == "b"
    assert order[0].distinct
    assert order[0].change == pytest.approx(-0.3, abs=0.02)
    assert order[0].low < order[0].change < order[0].high
    assert not any(r.distinct for r in order[1:])


def test_a_certain_effect_comes_before_a_large_one_of_few_images():
    few = Effect("remove a", "x", "all", 5, -0.3, -0.6, -0.01, 0.0, 0.2)
    sure, none = Effect("add b", "x", "all", 40, 0.1, 0.06, 0.14, 0.0, 0.1), replace(few, edit="add c", high=0.1)
    assert ranked([none, few, sure]) == [sure, few, none]


def test_intervals_are_by_patient():
    """Ten copies of four patients know no more than the four."""
    rng = np.random.default_rng(1)
    values = np.repeat(rng.standard_normal((4, 1)), 10, axis=0).astype(np.float32)
    zero = np.zeros_like(values)

    def width(patients):
        r = effects("e", ["a"], zero, values, zero, patients, {})[0]
        return r.high - r.low

    assert width([str(i // 10) for i in range(N)]) > 2 * width([str(i) for i in range(N)])


def test_subgroups_follow_the_columns():
    rows = [{"sex": "F", "age": "30", "support devices": "1"}, {"sex": "M", "age": "", "support devices": "0"}]
    groups = subgroups(rows)
    assert {k: v.tolist() for k, v in groups.items()} == {
        "sex F": [True, False],
        "sex M": [False, True],
        "age 0-39": [True, False],
        "with devices": [True, False],
        "without devices": [False, True],
    }


def test_entanglement_of_a_clean_and_of_a_tangled_matrix():
    assert entanglement(np.eye(3), [0, 1, 2]) == 0
    assert entanglement(np.ones((3, 3)), [0, 1, 2]) == pytest.approx(1)
    zero, one = np.zeros((4, 2), np.float32), np.ones((4, 2), np.float32)
    rows = effects("remove a", ["a", "b"], zero, one * [0.5, 0.1], zero, list("wxyz"), {})
    np.testing.assert_allclose(matrix(rows, ["remove a"], ["a", "b"]), [[0.5, 0.1]], atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["0", "1", "-1", ""]), st.sampled_from(["0", "1", ""])), max_size=60))
def test_a_plan_fills_the_rare_cells_and_edits_nothing_twice(values):
    rows = [{"f": f, "a": a} for f, a in values]
    cells = counts(rows, "f", "a")
    if not any(cells.values()):
        with pytest.raises(DataError):
            plan(rows, "f", "a")
        return
    tasks = plan(rows, "f", "a", seed=3)
    assert len({t.index for t in tasks}) == len(tasks)
    for f in (0, 1):
        after = {a: len(cells[f, a]) for a in (0, 1)}
        for t in tasks:
            if t.index in cells[f, 1 - t.value]:
                after[t.value] += 1
        assert max(after.values()) == max(len(cells[f, a]) for a in (0, 1))
        assert after[0] == after[1]


def test_gates_say_why():
    task = Task(0, "pacemaker", 0, 1)
    assert passes(0.1, {"pacemaker": 0.1, "effusion": 0.9}, task, "effusion", 1, Gates()) == ""
    assert "pacemaker at 0.90" in passes(0.1, {"pacemaker": 0.9}, task, "effusion", 1, Gates())
    assert "effusion at 0.20" in passes(0.1, {"pacemaker": 0.1, "effusion": 0.2}, task, "effusion", 1, Gates())
    assert passes(0.0, None, task, "effusion", 1, Gates()) == "nothing changed"
    assert "80%" in passes(0.8, None, task, "effusion", 1, Gates())


def test_calibration_of_a_sure_and_wrong_classifier():
    assert calibration_error(np.full(10, 0.99, np.float32), np.zeros(10, np.float32)) == pytest.approx(0.99)
    assert calibration_error(np.array([0.0, 1.0], np.float32), np.array([0, 1], np.float32)) == 0


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Twelve images whose left half is bright for "effusion" and whose lower edge is bright for "device"."""
    folder = tmp_path_factory.mktemp("set")
    rng, rows = np.random.default_rng(0), []
    for i in range(24):
        f, a = i % 2, int(i % 2 == 1 if i < 20 else i % 2 == 0)
        pixels = rng.integers(0, 60, (40, 40)).astype(np.uint8)
        pixels[:, :20] += np.uint8(120 * f)
        pixels[34:] += np.uint8(70 * a)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        split = "test" if i >= 16 else "train"
        rows.append(
            {
                "path": f"{i}.png",
                "patient": f"p{i}",
                "split": split,
                "pleural effusion": f,
                "pacemaker": a,
                "sex": "FM"[i % 2],
            }
        )
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("models") / "tiny")


def run(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    out = capsys.readouterr()
    return stop.value.code, out.out, out.err


def test_stress_and_disentangle_on_the_command_line(manifest, model, tmp_path, capsys):
    Classifier(["pleural effusion", "pacemaker"], size=32, width=8).save(tmp_path / "c", {"name": "untrained"})
    words = [tmp_path / "c", manifest, "--remove", "pacemaker", "--model", model, "-n", 4, "--json"]
    code, out, err = run(["stress", *words, "-o", tmp_path / "s"], capsys)
    assert code == 0, err
    result = json.loads(out)
    assert {r["output"] for r in result["ranked"]} == {"pleural effusion", "pacemaker"}
    assert any(r["group"] == "sex F" for r in result["effects"])
    assert "Stress test" in (tmp_path / "s" / "report.html").read_text()
    assert json.loads((tmp_path / "s" / "run.json").read_text())["command"] == "stress"
    code, out, err = run(["disentangle", *words, "-o", tmp_path / "d"], capsys)
    assert code == 0, err
    assert json.loads(out)["matrix"] == [[pytest.approx(json.loads(out)["matrix"][0][0])]]
    assert (tmp_path / "d" / "matrix.png").stat().st_size > 1000


def test_wrong_words_end_with_two(manifest, model, tmp_path, capsys):
    Classifier(["gout"], size=32, width=8).save(tmp_path / "c", {})
    code, _, err = run(["stress", tmp_path / "c", manifest, "--model", model, "-o", tmp_path / "s"], capsys)
    assert code == 2
    assert "--remove or --add" in err
    words = [tmp_path / "c", manifest, "--remove", "pacemaker", "--model", model, "-o", tmp_path / "s"]
    code, _, err = run(["disentangle", *words], capsys)
    assert code == 2
    assert "aims at no output" in err
    (tmp_path / "bad.csv").write_text("path\nabsent.png\n")
    code, _, err = run(["stress", tmp_path / "c", tmp_path / "bad.csv", *words[2:]], capsys)
    assert code == 1
    assert "row 2: absent.png" in err


def test_augment_writes_a_manifest_and_goes_on_where_it_stopped(manifest, model, tmp_path, capsys):
    words = ["augment", manifest, "--finding", "pleural effusion", "--against", "pacemaker", "--model", model, "-n", 6]
    words += ["-o", tmp_path / "a", "--json"]
    code, out, err = run(words, capsys)
    assert code == 0, err
    first = json.loads(out)
    assert first["made"] + first["refused"] == 6
    with (tmp_path / "a" / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    made = [row for row in rows if row["synthetic"] == "1"]
    assert len(made) == first["made"]
    assert all((tmp_path / "a" / row["path"]).is_file() for row in made)
    assert all(row["pacemaker"] == str(1 - int(row["pleural effusion"])) for row in made)
    ledger = tmp_path / "a" / "made.jsonl"
    whole = ledger.read_text()
    ledger.write_text(whole[: len(whole) // 2])
    assert json.loads(run(words, capsys)[1])["made"] == first["made"]


@pytest.mark.parametrize("objective", ["plain", "balanced", "group-dro"])
def test_a_classifier_is_trained_against_groups(manifest, objective):
    from counterscan.robustness.study import read_table

    rows = read_table(manifest)
    told = []
    _, scores = learn(
        rows, ["pleural effusion"], group="pacemaker", objective=objective, epochs=2, size=32,
        progress=lambda *at: told.append(at),
    )  # fmt: skip
    assert told == [(1, 1)]
    assert 0 <= scores["worst_group_auc"] <= scores["auc pleural effusion"] <= 1
    assert 0 <= scores["calibration_error"] <= 1
    with pytest.raises(DataError, match="no column 'gout'"):
        learn(rows, ["gout"])
