"""The command line's contract: keys, exit codes, one-line errors, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.models import tiny
from typer.testing import CliRunner

from counterscan.cli import app
from counterscan.cli.output import emit, write_run
from counterscan.errors import CounterscanError

KEYS = {"image", "counterfactual", "difference", "mask", "method", "evaluations", "seconds", "seed"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "chest.png"
    y, x = np.indices((50, 40))
    Image.fromarray((y * 900 + x * 400).astype(np.uint16)).save(path)
    return path


def run(*words):
    """Run in this process; errors of ours become their exit code, as ``main`` does."""
    result = CliRunner().invoke(app, [str(w) for w in words])
    if isinstance(result.exception, CounterscanError):
        return result, result.exception.exit_code, str(result.exception)
    return result, result.exit_code, result.stderr


def test_edit_prints_the_contract(model, image, tmp_path):
    out = tmp_path / "out"
    result, code, _ = run("edit", image, "--remove", "pacemaker", "--model", model, "--seed", 3, "-o", out, "--json")
    assert code == 0
    value = json.loads(result.stdout)
    assert value["model"] == "tiny"
    (item,) = value["items"]
    assert set(item) >= KEYS and item["seed"] == 3 and item["evaluations"] > 0
    for key in ("image", "counterfactual", "difference", "mask"):
        assert not os.path.isabs(item[key]) and (out / item[key]).is_file()
    before, after = (np.asarray(Image.open(p)) for p in (image, out / item["counterfactual"]))
    outside = np.asarray(Image.open(out / item["mask"])) == 0
    assert after.dtype == before.dtype and after.shape == before.shape
    assert np.array_equal(before[outside], after[outside])
    record = json.loads((out / "run.json").read_text())
    assert record["command"] == "edit" and record["model"]["fingerprint"] and record["versions"]["torch"]
    assert record["seeds"] == [3] and record["settings"]["offline"] is False


def test_equal_seeds_equal_files(model, image, tmp_path):
    names = []
    for k in (1, 2):
        result, _, _ = run("edit", image, "--add", "pacemaker", "--model", model, "-o", tmp_path / f"o{k}", "--json")
        names.append(tmp_path / f"o{k}" / json.loads(result.stdout)["items"][0]["counterfactual"])
    assert np.array_equal(*(np.asarray(Image.open(name)) for name in names))


def test_a_bad_image_does_not_stop_the_others(model, image, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("not an image")
    result, code, message = run(
        "edit", bad, image, "--remove", "pacemaker", "--model", model, "-o", tmp_path / "o", "--json"
    )
    assert code == 1
    assert len(json.loads(result.stdout)["items"]) == 1
    assert message.count("\n") == 1 and "bad.png" in message
    assert not [p for p in (tmp_path / "o").iterdir() if "bad" in p.name or p.name.endswith(".tmp")]


def test_equal_names_do_not_overwrite_each_other(model, image, tmp_path):
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / image.name).write_bytes(image.read_bytes())
    result, code, _ = run(
        "edit", image, other / image.name, "--remove", "pacemaker", "--model", model, "-o", tmp_path / "o", "--json"
    )
    assert code == 0
    assert len({item["counterfactual"] for item in json.loads(result.stdout)["items"]}) == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--remove", "pacemakr"], 2, "pacemaker"),
        (["--remove", "pacemaker", "--method", "ddimm"], 2, "ddim"),
        ([], 2, ""),
        (["--from", "a"], 2, ""),
        (["--remove", "pacemaker", "--region", "left foot"], 2, "left lung"),
    ],
)
def test_wrong_words(words, code, said, model, image, tmp_path):
    _, got, message = run("edit", image, *words, "--model", model, "-o", tmp_path / "o")
    assert got == code and said in message


def test_unknown_model_and_usage(image, tmp_path):
    _, code, message = run("edit", image, "--remove", "x", "--model", "no-such-model", "-o", tmp_path / "o")
    assert code == 2 and "no-such-model" in message
    assert run("edit")[1] == 2
    assert run("nonsense")[1] == 2


def test_attribute_answers_where(model, image, tmp_path):
    result, code, _ = run(
        "attribute", image, "--finding", "effusion", "--repeats", 2, "--model", model, "-o", tmp_path / "o", "--json"
    )
    assert code == 0
    (item,) = json.loads(result.stdout)["items"]
    assert isinstance(item["present"], bool) and item["present"] == bool(item["regions"])
    assert all((tmp_path / "o" / item[key]).is_file() for key in ("map", "mask", "overlay"))


def test_generate_by_seed(model, tmp_path):
    shown = []
    for first, count in ((5, 2), (6, 1)):
        out = tmp_path / f"{first}"
        result, code, _ = run(
            "generate", "a chest", "-n", count, "--seed", first, "--steps", 3, "--model", model, "-o", out, "--json"
        )
        assert code == 0
        shown.append(np.asarray(Image.open(out / json.loads(result.stdout)["items"][-1]["image"])))
    assert np.array_equal(*shown)


def test_world_on_disk_resumes(tmp_path):
    words = ("data", "world", "chest", "-n", 3, "--size", 48, "-o", tmp_path / "w", "--json")
    result, code, _ = run(*words)
    assert code == 0 and json.loads(result.stdout)["items"] == 3
    first = (tmp_path / "w" / "images" / "000001.png").read_bytes()
    (tmp_path / "w" / "images" / "000001.png").unlink()
    run(*words)
    assert (tmp_path / "w" / "images" / "000001.png").read_bytes() == first
    lines = (tmp_path / "w" / "manifest.csv").read_text().splitlines()
    assert len(lines) == 4 and "pleural effusion" in lines[0]


def test_models_and_doctor_speak_json():
    assert "models" in json.loads(run("models", "list", "--json")[0].stdout)
    assert "torch" in json.loads(run("doctor", "--json")[0].stdout)


def test_help_is_quick():
    """In seconds of work, which say the same on a busy machine."""
    spent = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-m", "counterscan", "--help"], capture_output=True, check=True)
        after = os.times()
        spent.append(after.children_user - before.children_user + after.children_system - before.children_system)
    assert min(spent) < 1.0  # the budget is 0.5 s on a quiet machine; tests run beside others


def test_main_prints_one_line_and_the_exit_code(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "counterscan", "edit", "x.png", "--remove", "y", "--model", "nope", "-o", str(tmp_path / "o")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("counterscan: ") and done.stderr.count("\n") == 1 and not done.stdout


def test_json_has_no_number_that_json_has_not(capsys):
    emit({"a": [float("nan"), 1.5, {"b": float("-inf")}], "c": "nan"}, True, "")
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "a": [None, 1.5, {"b": None}],
        "c": "nan",
    }


def test_run_json_names_models_that_are_not_open(tmp_path):
    used, scores = {"name": "tiny", "fingerprint": "0" * 16}, {"flip_rate": 0.5}
    write_run(tmp_path, "batch", {}, {}, [used], scores)
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["model"], record["scores"]) == (used, scores)
