"""What is asked wrongly or fed wrongly: one line, the right exit code, and nothing left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.models import tiny

from counterscan.cli import main
from counterscan.cli.output import unique_stems
from counterscan.robustness.opening import BUILT_IN

Run = Callable[..., tuple[int, str, str]]
KEYS = {"image", "counterfactual", "difference", "mask", "method", "evaluations", "seconds", "seed", "source"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call


def draw(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 50), np.uint8)).save(path)
    return path


def truncated(path: Path) -> Path:
    data = draw(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


BAD = {
    "truncated.png": truncated,
    "empty.png": lambda path: path.touch(),
    "text.png": lambda path: path.write_text("not an image"),
    "black.png": lambda path: Image.new("L", (40, 40)).save(path),
    "dot.png": lambda path: Image.new("L", (1, 1), 9).save(path),
    "absent.png": lambda path: None,
    "folder.png": lambda path: path.mkdir(),
}


def test_every_bad_image_is_one_line_and_the_good_one_is_done(run: Run, model: str, tmp_path: Path) -> None:
    for name, make in BAD.items():
        make(tmp_path / name)
    paths = [*(tmp_path / name for name in BAD), draw(tmp_path / "good.png")]
    out = tmp_path / "out"
    code, shown, said = run("edit", *paths, "--remove", "pacemaker", "--model", model, "-o", out, "--json")
    assert code == 1
    (item,) = json.loads(shown)["items"]
    assert set(item) == KEYS
    assert item["source"] == str(tmp_path / "good.png")
    lines = said.splitlines()
    assert len(lines) == len(BAD)
    for name, line in zip(BAD, lines, strict=True):
        assert line.startswith(f"counterscan: {tmp_path / name}: ")
        assert "unexpected" not in line
    assert {path.name.split(".")[0] for path in out.iterdir()} == {"good", "run"}


@pytest.mark.parametrize("command", [["edit", "--remove", "pacemaker"], ["attribute", "--finding", "pacemaker"]])
def test_nothing_done_leaves_no_folder(run: Run, command: list[str], model: str, tmp_path: Path) -> None:
    code, shown, said = run(*command, tmp_path / "no.png", "--model", model, "-o", tmp_path / "out", "--json")
    assert code == 1
    assert json.loads(shown) == {"items": [], "model": "tiny"}
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("edit", "IMAGE", "--remove", "pacemakr"), "pacemaker"),
        (("edit", "IMAGE", "--remove", "pacemaker", "--keep", "pacemaker"), "pacemaker"),
        (("edit", "IMAGE", "--remove", "pacemaker", "--method", "ddimm"), "ddim"),
        (("edit", "IMAGE", "--remove", "pacemaker", "--region", "foot"), "left lung"),
        (("edit", "IMAGE", "--remove", "pacemaker", "--region", "left", "--mask", "m.png"), "not both"),
        (("edit", "IMAGE", "--remove", "pacemaker", "--instruct", "add a pacemaker"), "exactly one way"),
        (("edit", "IMAGE"), "exactly one way"),
        (("edit", "IMAGE", "--from", "a chest"), "target"),
        (("attribute", "IMAGE", "--finding", "pacemakr"), "pacemaker"),
        (("evaluate", "attribution", "manifest.csv", "--finding", "unicorn"), "unicorn"),
    ],
)
def test_wrong_words_stop_before_any_image(
    run: Run, words: tuple[str, ...], says: str, model: str, tmp_path: Path
) -> None:
    image = tmp_path / "absent.png"  # never opened: the words are wrong first
    asked = [image if word == "IMAGE" else word for word in words]
    code, shown, said = run(*asked, "--model", model, "-o", tmp_path / "out")
    assert (code, shown, said.count("\n")) == (2, "", 1)
    assert said.startswith("counterscan: ")
    assert says in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("edit",),
        ("nonsense",),
        ("generate", "a chest"),
        ("attribute", "a.png", "-o", "out"),
        ("generate", "a chest", "-n", "0", "-o", "out"),
        ("generate", "a chest", "--seed", "-1", "-o", "out"),
        ("models", "show", "no-such-model"),
        ("models", "verify", "no-such-model"),
        ("studio", "--model", "no-such-model"),
        ("studio", "--model", "no-such-model", "--offline"),
        ("edit", "a.png", "--remove", "pacemaker", "--model", "no-such-model", "-o", "out"),
        ("demo", "--model", "no-such-model", "-o", "out"),
        ("data", "world", "moon", "-o", "out"),
        ("evaluate", "edits", "edits", "--judge", "nosuch", "-o", "out"),
        ("evaluate", "fidelity", "real", "generated", "--space", "nosuch", "-o", "out"),
        ("evaluate", "privacy", "generated", "train", "--held-out", "real", "--rate", "3", "-o", "a/b"),
        ("stress", "nosuch", "manifest.csv", "--remove", "pacemaker", "-o", "out"),
        ("data", "deidentify", ".", "-o", "."),
        ("data", "deidentify", ".", "-o", "below"),
        ("data", "import", "captions", "images", "-o", "manifest.txt"),
        ("data", "caption", "manifest.csv", "-o", "captioned.txt"),
    ],
)
def test_usage_errors_are_one_line_too(
    run: Run, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, shown, said = run(*words)
    assert (code, shown, said.count("\n")) == (2, "", 1)
    assert said.startswith("counterscan: ")
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_a_file(run: Run, model: str, tmp_path: Path) -> None:
    image = draw(tmp_path / "a.png")
    for out in (image, image / "below"):
        code, _, said = run("edit", image, "--remove", "pacemaker", "--model", model, "-o", out)
        assert code == 2
        assert "a.png: is a file" in said


def test_ctrl_c_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("counterscan.worlds.dataset.write_world", stop)
    code, _, said = run("data", "world", "chest", "-o", tmp_path / "w")
    assert (code, said) == (130, "counterscan: stopped\n")


def test_ctrl_c_is_how_the_studio_ends(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("counterscan.studio.serve.serve", stop)
    assert run("studio") == (0, "", "")


def test_an_extra_is_there_where_all_of_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["counterscan.cli.doctor"]
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "uvicorn" else find_spec(name))
    assert json.loads(run("doctor", "--json")[1])["extras"]["studio"] is False


def test_doctor_lives_without_torch() -> None:
    code = "import sys\nsys.modules['torch'] = None\nfrom counterscan.cli import main\nmain(['doctor', '--json'])\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    facts = json.loads(done.stdout)
    assert not facts["ok"]
    assert any("torch does not import" in problem for problem in facts["problems"])


def test_debug_shows_the_traceback_wherever_it_stands(model: str, tmp_path: Path) -> None:
    words = ["edit", str(tmp_path / "no.png"), "--remove", "x", "--model", "no-such-model", "-o", str(tmp_path / "out")]
    for asked, shown in ((words, False), ([*words, "--debug"], True), (["--debug", *words], True)):
        done = subprocess.run(
            [sys.executable, "-m", "counterscan", *asked], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert ("Traceback" in done.stderr) == shown


def test_a_model_without_a_part_is_named(run: Run, tmp_path: Path) -> None:
    folder = tiny(tmp_path / "broken")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    code, _, said = run("models", "verify", folder)
    assert (code, said.count("\n")) == (1, 1)
    assert "vae" in said


def test_verify_compares_with_the_card(run: Run, tmp_path: Path) -> None:
    folder = tiny(tmp_path / "signed")
    _, shown, _ = run("models", "verify", folder, "--json")
    fingerprint = json.loads(shown)["fingerprint"]
    card = json.loads((folder / "counterscan.json").read_text())
    for promised, code in ((fingerprint, 0), ("0" * 16, 1)):
        (folder / "counterscan.json").write_text(json.dumps(card | {"training": {"fingerprint": promised}}))
        assert run("models", "verify", folder)[0] == code


def test_classifiers_are_models_too(run: Run, tmp_path: Path) -> None:
    known = {facts["name"]: facts for facts in json.loads(run("models", "list", "--json")[1])["classifiers"]}
    assert {"chest-nih-judge", "chest-world-judge"} <= known.keys()
    facts = known["chest-nih-judge"]
    assert json.loads(run("models", "show", "chest-nih-judge", "--json")[1]) == facts
    code, shown, _ = run("models", "verify", "chest-nih-judge", "--json")
    assert (code, json.loads(shown)["card"]) == (0, facts["fingerprint"])
    folder = tmp_path / "other"
    shutil.copytree(BUILT_IN / "chest-nih-judge", folder)
    (folder / "classifier.json").write_text(json.dumps(facts | {"fingerprint": "0" * 16}))
    assert run("models", "verify", folder)[0] == 1


def test_built_in_cards_are_signed(run: Run) -> None:
    code, shown, _ = run("models", "verify", "brain-world", "--json")
    found = json.loads(shown)
    assert (code, found["card"]) == (0, found["fingerprint"])


def test_equal_names_and_chained_edits_overwrite_nothing(run: Run, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    paths = [draw(tmp_path / "a.png"), draw(tmp_path / "b" / "a.png", 1), draw(tmp_path / "run.png", 2)]
    words = ("--add", "pacemaker", "--model", model, "-o", out, "--json")
    items = json.loads(run("edit", *paths, *words)[1])["items"]
    assert len({item["image"] for item in items}) == 3
    for item, path in zip(items, paths, strict=True):
        assert (out / item["image"]).read_bytes() == path.read_bytes()
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.name != "run.json"}
    code, _, _ = run("edit", out / items[0]["counterfactual"], *words)
    assert code == 0
    assert all((out / name).read_bytes() == data for name, data in before.items())
    assert unique_stems([Path("a.png"), Path("x/a.png"), Path("a-2.png"), Path("run.png")]) == [
        "a", "a-2", "a-2-2", "run-2"
    ]  # fmt: skip


def test_what_another_command_or_image_left_is_not_overwritten(run: Run, model: str, tmp_path: Path) -> None:
    out, image, other = tmp_path / "out", draw(tmp_path / "a.png"), draw(tmp_path / "b" / "a.png", 1)
    edit = ("edit", "--model", model, "-o", out)
    assert run(*edit, image, "--remove", "pacemaker")[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for words, says in (
        (("attribute", image, "--finding", "pacemaker", "--model", model, "-o", out), "results of counterscan edit"),
        (("data", "world", "chest", "-o", out), "results of counterscan edit"),
        ((*edit, other, "--remove", "pacemaker"), "the edit of another image named a"),
    ):
        code, shown, said = run(*words)
        assert (code, shown, said.count("\n")) == (2, "", 1)
        assert says in said
        assert "name another folder" in said
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert run(*edit, image, "--add", "pacemaker")[0] == 0


def test_a_world_is_not_mixed_with_another(run: Run, tmp_path: Path) -> None:
    words = ("data", "world", "chest", "-n", 2, "--size", 32, "-o", tmp_path / "w")
    assert run(*words)[0] == 0
    assert run(*words)[0] == 0
    code, _, said = run(*words, "--seed", 1)
    assert (code, said.count("\n")) == (2, 1)
    assert "seed 0, not 1" in said
    (tmp_path / "w" / "run.json").unlink()
    assert run(*words)[0] == 2


def test_an_absent_source_is_named_and_leaves_no_folder(run: Run, tmp_path: Path) -> None:
    code, _, said = run("evaluate", "edits", tmp_path / "absent", "-o", tmp_path / "out")
    assert (code, said) == (1, f"counterscan: {tmp_path / 'absent'}: no such file or folder\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["edit", "batch"])
def test_an_absent_mask_is_named(run: Run, command: str, tmp_path: Path) -> None:
    mask = tmp_path / "no.png"
    code, _, said = run(command, "a.png", "--remove", "pacemaker", "--mask", mask, "-o", tmp_path / "out")
    assert (code, said) == (1, f"counterscan: {mask}: no such file\n")
    assert not (tmp_path / "out").exists()


def test_models_are_listed_with_their_first_scores(run: Run) -> None:
    _, shown, _ = run("models", "list")
    lines = {line.split()[0]: line for line in shown.splitlines()}
    cards = {card["name"]: card for card in json.loads(run("models", "list", "--json")[1])["models"]}
    (finding, gain), *_ = cards["chest-nih"]["scores"]["gain"].items()
    assert f", gain {finding} {gain:.3g}, " in lines["chest-nih"]
    assert ", a classifier, auc " in lines["chest-nih-judge"]
    assert all(line.count(", ") <= 5 and ", n " not in line for line in lines.values())


def test_every_command_has_an_example() -> None:
    for words in ("edit", "attribute", "generate", "demo", "doctor", "data world", "models list", "models verify"):
        done = subprocess.run(
            [sys.executable, "-m", "counterscan", *words.split(), "--help"], capture_output=True, text=True, check=True
        )
        assert f"counterscan {words}" in done.stdout
        assert "Example:" in done.stdout
