"""``counterscan train``: the plan, the run, going on, and one line for every fault."""

from __future__ import annotations

import json

import pytest
from tests.backbones import tiny as families
from tests.training.small import config_file

import counterscan
from counterscan.cli import main


def run(capsys, *words):
    with pytest.raises(SystemExit) as done:
        main(["train", *map(str, words)])
    out, err = capsys.readouterr()
    return done.value.code or 0, out, err


def test_the_plan_counts_what_learns_and_keeps_nothing(tmp_path, capsys):
    path = config_file(tmp_path, train=["lora"], batch=6, micro_batch=2, steps=1000)
    code, out, _ = run(capsys, path, "--dry-run", "--json")
    plan = json.loads(out)
    assert code == 0 and not (tmp_path / "run").exists()
    assert plan["trained"].keys() == {"unet"} and plan["frozen"].keys() == {"vae", "unet", "text_encoder"}
    assert (plan["images_seen"], plan["epochs"], plan["micro_batches"]) == (6000, 500, 3)
    assert plan["seconds"] == pytest.approx(plan["latents_seconds"] + 1000 * plan["seconds_per_step"])
    assert plan["seconds_per_step"] > 0 and plan["memory_mb"] > 100 and plan["disk_mb"] > 0
    code, out, _ = run(capsys, path, "--dry-run")
    assert code == 0 and "1,000 steps of 6 images (3 x micro_batch): 6,000 images, 500.0 times the 12 rows" in out


def test_the_plan_teaches_no_words_and_counts_every_encoder_of_a_token(tmp_path, capsys):
    small = {"resolution": 32, "vae_blocks": [8, 16], "unet_blocks": [16, 32], "unet_heads": 2, "text_hidden": 16,
             "text_layers": 1, "text_heads": 2, "max_length": 24, "taught": 10**9}  # fmt: skip
    code, out, _ = run(capsys, config_file(tmp_path, compact=small), "--dry-run", "--json")
    assert code == 0 and json.loads(out)["trained"].keys() == {"unet"}
    families.sd3(tmp_path / "sd3")
    words = ["train=token", "token.word=<x>", "data.captions.text=<x>"]
    path = config_file(tmp_path, model=str(tmp_path / "sd3"))
    code, out, _ = run(capsys, path, *words, "--dry-run", "--json")
    assert code == 0 and json.loads(out)["trained"].keys() == {"text_encoder", "text_encoder_2", "text_encoder_3"}


def test_a_run_and_how_it_goes_on(tmp_path, capsys):
    path = config_file(tmp_path)
    code, _, err = run(capsys, path, "--resume")
    assert code == 2 and "no checkpoint to go on from; leave out --resume" in err
    code, out, err = run(capsys, path, "--json")
    first = json.loads(out)
    assert (code, first["steps"], first["resumed_from"]) == (0, 2, 0) and "images/s" in err
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["settings"]["optimizer"]["rate"] == 1e-3
    assert record["model"] == {"name": "run", "fingerprint": counterscan.load(tmp_path / "run").fingerprint}
    assert record["scores"] == first["scores"] == {}
    code, out, _ = run(capsys, path, "steps=3", "--set", "save_every=1", "--resume", "--json")
    assert code == 0 and json.loads(out)["resumed_from"] == 2


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["optimizer.rte=1"], 2, "optimizer.rte: no such field; did you mean rate?"),
        (["model=nowhere"], 2, "no model 'nowhere'"),
        (["data.manifest=gone.csv"], 1, "gone.csv: no such file"),
        (["steps"], 2, "key=value"),
    ],
)
def test_a_fault_is_one_line(tmp_path, capsys, words, code, says):
    got, out, err = run(capsys, config_file(tmp_path), *words)
    assert (got, out) == (code, "") and says in err and err.count("\n") == 1
