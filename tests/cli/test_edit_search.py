"""``counterscan edit`` with ``--until``, ``--best-of`` and ``--keep``: keys, what is refused, what run.json keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.models import tiny
from typer.testing import CliRunner

from counterscan.cli import app
from counterscan.errors import CounterscanError
from counterscan.robustness.classifier import Classifier

LABELS = ("pleural effusion", "pacemaker")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("search")
    with torch.random.fork_rng():
        for name in ("one", "two"):
            Classifier(LABELS, size=32, width=4).save(root / name, {"name": name})
    pixels = np.add.outer(np.arange(40) * 3, np.arange(36) * 3).astype(np.uint8)
    Image.fromarray(pixels).save(root / "chest.png")
    return {
        "model": str(tiny(root / "tiny")),
        "one": str(root / "one"),
        "two": str(root / "two"),
        "image": str(root / "chest.png"),
    }


def run(places: dict[str, str], out: Path, *words: Any) -> tuple[dict[str, Any], int, str]:
    line = ["edit", places["image"], "--remove", "pacemaker", "--model", places["model"], "-o", out, "--json", *words]
    result = CliRunner().invoke(app, [str(word) for word in line])
    if isinstance(result.exception, CounterscanError):
        return {}, result.exception.exit_code, str(result.exception)
    return json.loads(result.stdout) if result.stdout else {}, result.exit_code, result.stderr


def test_best_of_tells_trials_selector_and_judge(places: dict[str, str], tmp_path: Path) -> None:
    value, code, _ = run(places, tmp_path, "--best-of", 3, "--selector", places["one"], "--judge", places["two"])
    assert code == 0
    (item,) = value["items"]
    assert [trial["seed"] for trial in item["trials"]] == [0, 1, 2]
    scores = [trial["score"] for trial in item["trials"]]
    assert item["seed"] == int(np.argmax(scores))
    assert (item["selector"], item["reached"]) == ("one", None)
    assert item["judge"]["name"] == "two"
    assert len(item["judge"]["scores"]["pacemaker"]) == 2
    assert item["evaluations"] % 3 == 0
    kept = json.loads((tmp_path / "run.json").read_text())["settings"]
    assert (kept["best_of"], kept["selector"], kept["judge"]) == (3, places["one"], places["two"])


def test_the_model_itself_is_the_selector_otherwise(places: dict[str, str], tmp_path: Path) -> None:
    value, code, _ = run(places, tmp_path, "--best-of", 2)
    assert code == 0
    assert value["items"][0]["selector"] == "tiny"
    assert "judge" not in value["items"][0]


def test_until_says_when_it_did_not_reach(places: dict[str, str], tmp_path: Path) -> None:
    value, code, message = run(places, tmp_path, "--until", 0.999, "--selector", places["one"], "--method", "sdedit")
    assert code == 0
    assert value["items"][0]["reached"] is False
    assert "no strength reached 0.999" in message


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_foreign_classifier_is_told_its_labels(places: dict[str, str], tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(1, 2))
    torch.jit.trace(net, torch.zeros(2, 1, 224, 224)).save(str(tmp_path / "mine.ts"))
    seen = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 2))
    torch.jit.trace(seen, torch.zeros(2, 3, 16, 16)).save(str(tmp_path / "colour.ts"))
    words = ["--best-of", 2, "--selector", tmp_path / "mine.ts"]
    value, code, said = run(places, tmp_path / "out", *words, "--labels", "pacemaker, hernia")
    assert code == 0, said
    assert value["items"][0]["selector"] == "mine.ts"
    assert json.loads((tmp_path / "out/run.json").read_text())["settings"]["labels"] == "pacemaker, hernia"
    words = ["--best-of", 1, "--judge", tmp_path / "colour.ts", "--size", 16, "--channels", 3]
    value, code, said = run(places, tmp_path / "judged", *words, "--labels", "pacemaker,hernia")
    assert code == 0, said
    assert value["items"][0]["judge"]["name"] == "colour.ts"
    words = ["--best-of", 2, "--selector", tmp_path / "mine.ts"]
    assert run(places, tmp_path / "none", *words)[1:] == (2, "mine.ts: name its outputs with --labels a,b,c")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--until", "0.9"], "until needs a selector"),
        (["--selector", "one"], "--until or --best-of"),
        (["--labels", "a,b"], "--selector or --judge"),
        (["--best-of", "2", "--selector", "nope"], "no classifier 'nope': name a built-in one"),
        (["--best-of", "2", "--selector", "one", "--judge", "one"], "cannot both choose and judge"),
    ],
)
def test_wrong_words_end_with_2(words: list[str], message: str, places: dict[str, str], tmp_path: Path) -> None:
    _, code, said = run(places, tmp_path / "out", *(places.get(word, word) for word in words))
    assert code == 2
    assert message in said
    assert not (tmp_path / "out").exists()


def test_what_must_stay_is_kept_by_the_method_made_for_it(places: dict[str, str], tmp_path: Path) -> None:
    value, _, _ = run(places, tmp_path / "a", "--keep", "pleural effusion")
    assert value["items"][0]["method"] == "factored"
    value, _, _ = run(places, tmp_path / "b", "--keep", "pleural effusion", "--method", "ddim")
    assert value["items"][0]["method"] == "ddim"
