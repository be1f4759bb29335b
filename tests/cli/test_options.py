"""Options that several commands share: settings of a method, device and dtype, and the slice of a volume."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from tests.cli.test_cli import run
from tests.models import tiny

from counterscan.errors import WordsError
from counterscan.result import Counterfactual

COMMANDS = (
    ["edit", "none.png", "--remove", "pacemaker"],
    ["attribute", "none.png", "--finding", "pacemaker"],
    ["generate", "a chest"],
    ["bench"],
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "chest.png"
    Image.fromarray(np.add.outer(np.arange(50) * 3, np.arange(40) * 2).astype(np.uint8)).save(path)
    return path


def test_settings_behind_a_methods_name(model, image, tmp_path):
    words = ["edit", image, "--remove", "pacemaker", "--model", model]
    result, code, said = run(*words, "--method", "ddim:steps=2,depth=1", "-o", tmp_path / "out", "--json")
    assert code == 0, said
    (item,) = json.loads(result.stdout)["items"]
    assert (item["method"], item["evaluations"]) == ("ddim", 6)
    assert json.loads((tmp_path / "out/chest.json").read_text())["settings"]["steps"] == 2
    for wrong in ("ddim:step=2", "ddim:steps=two"):
        _, code, said = run(*words, "--method", wrong, "-o", tmp_path / "none")
        assert code == 2 and "known are steps, depth, guidance" in said


def test_rows_of_a_bench_go_by_the_full_spelling(model, tmp_path):
    names = ["sdedit:steps=2,depth=1", "sdedit:steps=3"]
    words = ["bench", "--model", model, "--methods", ",".join(names), "-n", 1, "--findings", "pacemaker", "--json"]
    result, code, said = run(*words, "-o", tmp_path)
    assert code == 0, said
    rows = json.loads(result.stdout)["rows"]
    assert [row["method"] for row in rows if row["direction"] == "add"] == names
    assert rows[0]["evaluations"] == 4 and names[0] in (tmp_path / "results.md").read_text()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_every_command_opens_its_model_where_and_as_asked(command, model, tmp_path, monkeypatch):
    def load(name, **asked):
        raise WordsError(f"{asked['device']} {asked['dtype']}")

    words = [*command, "--model", model, "-o", tmp_path / "out"]
    for wrong, says in (("--device=tpu", "known are cpu, openvino and cuda"), ("--device=cuda:x", "no device 'cuda:x'"),
                        ("--dtype=int8", "no dtype 'int8': known are float32, bfloat16, float16")):  # fmt: skip
        _, code, said = run(*words, wrong)
        assert code == 2 and says in said and said.count("\n") <= 1
    monkeypatch.setattr("counterscan.backbones.load", load)
    assert run(*words, "--dtype", "bfloat16")[2] == "cpu torch.bfloat16"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert run(*words, "--device", "cuda:1")[2] == "cuda:1 None"
    _, code, said = run(*words, "--device", "cuda:2")
    assert code == 1 and "no such GPU" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_edits(dtype, model, image, tmp_path):
    words = ["edit", image, "--remove", "pacemaker", "--method", "ddim:steps=2", "--model", model, "--json"]
    pictures = []
    for name in (dtype, "float32"):
        result, code, said = run(*words, "-o", tmp_path / name, "--dtype", name)
        assert code == 0, said
        file = json.loads(result.stdout)["items"][0]["counterfactual"]
        pictures.append(np.asarray(Image.open(tmp_path / name / file)).astype(int))
    assert np.abs(pictures[0] - pictures[1]).mean() < 4  # grey levels, of a network that was never trained
    assert json.loads((tmp_path / dtype / "run.json").read_text())["settings"]["dtype"] == dtype


@pytest.fixture
def volume(tmp_path):
    data = np.random.default_rng(0).integers(0, 900, (40, 36, 5)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([0.8, 1.5, 3.0, 1.0])), tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


@pytest.mark.parametrize("command", COMMANDS[:2], ids=lambda words: words[0])
def test_a_slice_of_a_volume(command, model, volume, image, tmp_path):
    words = [command[0], volume, *command[2:], "--method", "ddim:steps=2", "--model", model, "-o", tmp_path / "out"]
    _, code, said = run(*words, "--slice", 3)
    assert code == 0, said
    if command[0] == "edit":
        again = Counterfactual.load(tmp_path / "out/scan.json")
        before, after = (nibabel.load(path) for path in (volume, again.counterfactual.path))
        assert after.shape == (40, 36, 1) and np.allclose(after.affine[:3, 3], [0, 0, 9])
        stored = np.asarray(before.dataobj)[..., 3]
        assert np.array_equal(again.factual.pixels, again.factual.header.turn.apply(stored))
        assert np.array_equal(again.counterfactual.pixels[~again.mask], again.factual.pixels[~again.mask])
    for wrong, says in ([], "slice index from 0 to 4 (--slice)"), (["--slice", 5], "has no slice 5"):
        _, code, said = run(*words, *wrong)
        assert code == 1 and says in said
    _, code, said = run(words[0], image, *words[2:], "--slice", 0)
    assert code == 1 and "has no slices to choose from" in said
