"""Stress and disentangling: right on classifiers and tables whose answer is known."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tables import write_manifest

from counterscan.backbones.card import Card
from counterscan.errors import DataError, WordsError
from counterscan.robustness.classifier import Classifier
from counterscan.robustness.disentangle import entangled, entanglement, matrix, moved
from counterscan.robustness.learning import calibration_error, learn
from counterscan.robustness.opening import Outputs
from counterscan.robustness.stress import Effect, effects, limits, ranked, subgroups
from counterscan.robustness.study import Seen, look

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


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_intervals_hold_what_they_promise_of_few_patients(n):
    """Of a thousand samples around 0.1 the interval holds it about as often as it says; by a plain bootstrap of 3 in 0.7."""
    rng = np.random.default_rng(n)
    values = (0.1 + 0.05 * rng.standard_normal((n, 1000))).astype(np.float32)
    low, high = limits(values, [str(i) for i in range(n)], 0)
    assert 0.91 < ((low < 0.1) & (high > 0.1)).mean() < 0.99


def test_of_one_patient_nothing_is_known():
    zero, moved = np.zeros((3, 1), np.float32), np.full((3, 1), 0.4, np.float32)
    (row,) = effects("e", ["a"], zero, moved, zero, ["one"] * 3, {})
    assert (row.low, row.high) == (-1, 1) and not row.distinct


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


def test_subgroups_by_devices_follow_any_column_of_one():
    def by_devices(*rows):
        return {name: member.tolist() for name, member in subgroups(rows).items() if "devices" in name}

    single = [{"Pacemaker": "1", "chest_port": "0"}, {"Pacemaker": "0", "chest_port": "0"}, {"Pacemaker": "0"}]
    assert by_devices(*single) == {"with devices": [True, False, False], "without devices": [False, True, False]}
    wide = [{"Support_Devices": d, "pacemaker": p} for d, p in (("0", ""), ("0", "1"), ("", "0"), ("-1", "1"))]
    assert by_devices(*wide) == {
        "with devices": [False, True, False, True],
        "without devices": [True, False, False, False],
    }
    assert by_devices({"sex": "F", "pleural effusion": "1"}) == {}
    other = [{"PPM": "1", "equipment": "Siemens"}, {"PPM": "0", "equipment": "Philips"}]  # synonyms, but no label
    assert by_devices(*other) == {"with devices": [True, False], "without devices": [False, True]}


def test_entanglement_of_a_clean_and_of_a_tangled_matrix():
    assert entanglement(np.eye(3), [0, 1, 2]) == 0
    assert entanglement(np.ones((3, 3)), [0, 1, 2]) == pytest.approx(1)


def test_the_matrix_is_the_mean_change_less_that_of_the_null_edit():
    zero, one = np.zeros((4, 3), np.float32), np.ones((4, 3), np.float32)
    seen = [Seen(zero, one * [0.5, 9, 0.1], one * [0, 9, 0.1]), Seen(zero, one * [0, 9, 0.3], zero)]
    cells = matrix(moved(seen, [0, 2]), list("wxyz"))
    np.testing.assert_allclose([[cell.mean for cell in line] for line in cells], [[0.5, 0], [0, 0.3]], atol=1e-6)
    assert cells[0][0].low == cells[0][0].high == pytest.approx(0.5)


def leaking(rng, n, leak=0.1):
    """(n, 3 edits, 4 outputs): each edit moves its output by 0.3 and the others by ``leak``, with noise."""
    mean = np.full((3, 4), leak)
    mean[range(3), range(3)] = 0.3
    return mean + 0.1 * rng.standard_normal((n, 3, 4))


def test_the_interval_of_entanglement_holds_the_truth():
    rng, owners = np.random.default_rng(0), [str(i) for i in range(30)]
    for leak, least in ((0.1, 90), (0.03, 90)):
        scores = [entangled(leaking(rng, 30, leak), [0, 1, 2], owners, seed) for seed in range(100)]
        assert sum(s.low <= leak / 0.3 <= s.high for s in scores) >= least
        assert all(0 <= s.low <= s.mean <= s.high for s in scores)


def test_the_interval_of_entanglement_is_by_patient():
    rng = np.random.default_rng(1)
    change = np.repeat(leaking(rng, 6), 10, axis=0)

    def width(owners):
        score = entangled(change, [0, 1, 2], owners)
        return score.high - score.low

    by_patient = [str(i // 10) for i in range(60)]
    assert width(by_patient) > 2 * width([str(i) for i in range(60)])
    score = entangled(change, [0, 1, 2], by_patient)
    assert (score.n, score.patients) == (60, 6)
    assert np.isnan(entangled(change, [0, 1, 2], ["one"] * 60).low)


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
    return write_manifest(folder, rows)


def test_stress_and_disentangle_on_the_command_line(manifest, model, tmp_path, run):
    Classifier(["pleural effusion", "pacemaker"], size=32, width=8).save(tmp_path / "c", {"name": "untrained"})
    words = [tmp_path / "c", manifest, "--remove", "pacemaker", "--model", model, "-n", 4, "--json"]
    code, out, err = run(["stress", *words, "-o", tmp_path / "s"])
    assert code == 0, err
    result = json.loads(out)
    assert {r["output"] for r in result["ranked"]} == {"pleural effusion", "pacemaker"}
    assert any(r["group"] == "sex F" for r in result["effects"])
    assert "Stress test" in (tmp_path / "s" / "report.html").read_text()
    assert json.loads((tmp_path / "s" / "run.json").read_text())["command"] == "stress"
    code, out, err = run(["disentangle", *words, "-o", tmp_path / "d"])
    assert code == 0, err
    result = json.loads(out)
    (low, high), (least, most) = result["matrix_interval"][0][0], result["entanglement_interval"]
    assert low <= result["matrix"][0][0] <= high
    assert least <= result["entanglement"] <= most
    assert result["patients"] == 4
    assert (tmp_path / "d" / "matrix.png").stat().st_size > 1000
    code, out, _ = run(["disentangle", *words[:-1], "-o", tmp_path / "d"])
    table = out.splitlines()
    assert table[0].startswith("remove pacemaker: pacemaker ") and table[0].endswith(f"[{low:+.3f}, {high:+.3f}]")
    assert table[1].startswith(f"entanglement {result['entanglement']:.3f} [{least:.3f}, {most:.3f}], 4 images of 4")


def test_a_bad_image_is_named_and_the_others_are_studied(manifest, model, tmp_path, run):
    Classifier(["pacemaker"], size=32, width=8).save(tmp_path / "c", {"name": "untrained"})
    rows = [{"path": manifest.parent / f"{i}.png", "sex": "F"} for i in range(3)]
    rows.insert(1, {"path": tmp_path / "bad.png", "sex": "F"})
    rows[1]["path"].write_bytes((manifest.parent / "3.png").read_bytes()[:200])
    table = write_manifest(tmp_path, rows)
    words = [tmp_path / "c", table, "--remove", "pacemaker", "--model", model, "--method", "sdedit", "--json"]
    for command in ("stress", "disentangle"):
        code, out, err = run([command, *words, "-o", tmp_path / command])
        told = json.loads(out)
        assert (code, told["n"], len(told["failed"])) == (1, 3, 1)
        assert told["failed"][0].startswith(f"{tmp_path / 'bad.png'}: ") and told["failed"][0] in err
    assert (tmp_path / "stress" / "report.html").read_text().count("<img") == 3
    (tmp_path / "bad.png").write_bytes((manifest.parent / "3.png").read_bytes())
    code, out, err = run(["stress", *words, "-o", tmp_path / "stress"])
    assert (code, json.loads(out)["n"], json.loads(out)["failed"]) == (0, 4, []), err
    (tmp_path / "bad.png").write_bytes(b"")
    code, out, err = run(["stress", *words, "-n", 2, "--remove", "pleural effusion", "-o", tmp_path / "none"])
    assert (code, out) == (1, "")
    bad = f"the first that cannot: {tmp_path / 'bad.png'}: the file is empty"
    assert err == f"counterscan: 1 of 2 images can be used, 2 or more are needed; {bad}\n"
    assert not (tmp_path / "none" / "run.json").exists()
    for row in rows:
        row["path"] = tmp_path / "bad.png"
    code, _, err = run(["stress", words[0], write_manifest(tmp_path, rows), *words[2:], "-o", tmp_path / "all"])
    assert code == 1 and f"none of 4 images can be used, 2 or more are needed; {bad}" in err


def test_an_absent_image_is_as_a_bad_one(manifest, model, tmp_path, run):
    Classifier(["pacemaker"], size=32, width=8).save(tmp_path / "c", {"name": "untrained"})
    table = tmp_path / "set" / "manifest.csv"
    table.parent.mkdir()
    table.write_text(f"path\n{manifest.parent / '0.png'}\nabsent.png\n{manifest.parent / '1.png'}\n")
    words = [tmp_path / "c", table, "--remove", "pacemaker", "--model", model, "--method", "sdedit", "--json"]
    for command in ("stress", "disentangle"):
        code, out, err = run([command, *words, "-o", tmp_path / command])
        assert (code, json.loads(out)["n"]) == (1, 2), err
        assert json.loads(out)["failed"] == [f"{tmp_path / 'set' / 'absent.png'}: no such file"]


@pytest.mark.parametrize(
    ("text", "says"),
    [("path,pacemaker\n", "m.csv: lists no image"), ("path,pacemaker\na.png,1\n,0\n", "m.csv: row 2, path: is empty")],
)
def test_a_manifest_that_names_no_image_is_refused(text, says, model, tmp_path, run):
    Classifier(["pacemaker"], size=32, width=8).save(tmp_path / "c", {})
    (tmp_path / "m.csv").write_text(text)
    study = [tmp_path / "c", tmp_path / "m.csv", "--remove", "pacemaker", "--model", model]
    balance = [tmp_path / "m.csv", "--finding", "pacemaker", "--against", "sex", "--model", model]
    for words in (["stress", *study], ["augment", *balance], ["train-classifier", balance[0], "--labels", "pacemaker"]):
        code, _, err = run([*words, "-o", tmp_path / "o"])
        assert code == 1 and says in err and err.count("\n") == 1


def test_synonyms_mean_the_outputs_and_columns(manifest, model, tmp_path, run):
    Classifier(["pleural effusion", "pacemaker"], size=32, width=8).save(tmp_path / "c", {"name": "untrained"})
    words = [tmp_path / "c", manifest, "--remove", "effusion", "--remove", "PPM", "--method", "sdedit", "-n", 2]
    code, out, err = run(["disentangle", *words, "--model", model, "-o", tmp_path / "d", "--json"])
    assert code == 0, err
    assert json.loads(out)["edits"] == ["remove effusion", "remove PPM"]
    assert json.loads(out)["outputs"] == ["pleural effusion", "pacemaker"]
    words = ["train-classifier", manifest, "--labels", "Effusion,pacemaker", "--group", "pacer", "--epochs", 1]
    code, out, err = run([*words, "--size", 32, "-o", tmp_path / "t", "--json"])
    assert code == 0, err
    assert (
        json.loads(out)["labels"] == ["pleural effusion", "pacemaker"]
        and "worst_group_auc" in json.loads(out)["scores"]
    )


def test_a_stopped_study_goes_on(manifest, tmp_path, monkeypatch):
    """Groups of two, of which the second run does those that the first did not finish, and that with a failure."""
    from counterscan.imaging import read

    asked: list[list[str]] = []

    def edit(pictures, **_):
        asked.append([picture.name for picture in pictures])
        if len(asked) == stop:
            raise KeyboardInterrupt
        if any(picture.name == bad for picture in pictures):
            raise RuntimeError("odd")
        source = SimpleNamespace(source="as it is")
        return [SimpleNamespace(factual=p, counterfactual=p, edit=source) for p in pictures]

    monkeypatch.setattr("counterscan.editing.edit", edit)
    monkeypatch.setattr("counterscan.robustness.study.GROUP", 2)
    outputs = Outputs("mean", ("a",), 32, 1, lambda x: x.mean((1, 2, 3))[:, None])
    backbone = SimpleNamespace(fingerprint="f", card=Card("m"))
    rows = [{"path": manifest.parent / f"{i}.png"} for i in range(6)]

    def told():
        asked.clear()
        return look(outputs, rows, {"remove": ["a"]}, backbone, tmp_path / "looked.jsonl")

    stop, bad = 8, "0.png"  # in the third group; the first was tried again image by image
    with pytest.raises(KeyboardInterrupt):
        told()
    stop, bad = 0, ""
    whole = told()
    assert asked == [[f"{i}.png", f"{i + 1}.png"] for i in (0, 0, 4, 4)]  # an edit and a null edit
    assert told() == whole and asked == []
    assert [row["before"] for row in whole] == [
        pytest.approx([float(np.mean(read(row["path"]).unit()))], abs=0.02) for row in rows
    ]
    look(outputs, rows[:1], {"add": ["a"]}, backbone, tmp_path / "looked.jsonl")
    assert asked  # another edit is another study
    Image.open(rows[1]["path"]).transpose(Image.Transpose.ROTATE_90).save(rows[0]["path"])
    assert told() != whole and asked[0] == ["0.png", "1.png"]  # and so is another image of the same name


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_foreign_classifier_of_other_channels_and_size(manifest, model, tmp_path, run):
    layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2))
    torch.jit.trace(layers, torch.rand(1, 3, 8, 8)).save(str(tmp_path / "c.ts"))
    words = [
        "stress",
        tmp_path / "c.ts",
        manifest,
        "--remove",
        "pacemaker",
        "--model",
        model,
        "-n",
        2,
        "--labels",
        "a,b",
    ]
    code, _, err = run([*words, "-o", tmp_path / "s"])
    assert code == 1 and "c.ts: fails on images of 1 x 224 x 224" in err and "--channels and --size" in err
    code, out, err = run([*words, "--channels", 3, "--size", 8, "-o", tmp_path / "s", "--json"])
    assert code == 0, err
    assert {r["output"] for r in json.loads(out)["ranked"]} == {"a", "b"}


def test_wrong_words_end_with_two(manifest, model, tmp_path, run):
    Classifier(["gout"], size=32, width=8).save(tmp_path / "c", {})
    code, _, err = run(["stress", tmp_path / "c", manifest, "--model", model, "-o", tmp_path / "s"])
    assert code == 2
    assert "--remove or --add" in err
    words = [tmp_path / "c", manifest, "--remove", "pacemaker", "--model", model, "-o", tmp_path / "s"]
    code, _, err = run(["disentangle", *words])
    assert code == 2
    assert "aims at no output" in err
    (tmp_path / "bad.csv").write_text("path\nabsent.png\n")
    code, _, err = run(["stress", tmp_path / "c", tmp_path / "bad.csv", *words[2:]])
    assert code == 1
    assert (
        f"none of 1 images can be used, 2 or more are needed; the first that cannot: {tmp_path / 'absent.png'}: no such"
        in err
    )
    code, _, err = run(["train-classifier", tmp_path / "bad.csv", "--labels", "gout", "-o", tmp_path / "t"])
    assert code == 1 and f"bad.csv: 1 images are absent: {tmp_path / 'absent.png'}: no such file" in err


def test_a_classifier_of_colour_pictures_sees_their_colour(tmp_path):
    """Red and green of one brightness: grey they would be equal."""
    rng, rows = np.random.default_rng(0), []
    for i in range(64):
        pixels = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
        pixels[..., i % 2] += 150
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        rows.append({"path": str(tmp_path / f"{i}.png"), "split": "test" if i > 47 else "train", "green": i % 2})
    model, scores = learn(rows, ["green"], epochs=20, size=32)
    assert model.channels == 3 and scores["auc green"] > 0.9


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
    with pytest.raises(WordsError, match="no column 'gout'"):
        learn(rows, ["gout"])
    with pytest.raises(DataError, match="'sex' cannot be learned"):
        learn([row | {"sex": "M"} for row in rows], ["sex"], epochs=1, size=32)
