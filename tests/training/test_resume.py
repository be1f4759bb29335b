"""A run can be killed at any moment: the same command goes on, and ends as if nothing had happened."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.models import tiny
from tests.training.small import config, config_file

import counterscan
from counterscan.errors import DataError, WordsError, WorkError
from counterscan.training import state
from counterscan.training.cache import of_autoencoder
from counterscan.training.session import Session
from counterscan.training.trainer import train

ROOT = Path(__file__).parents[2]
RICH = {
    "train": ["unet", "text_encoder"],
    "ema": 0.99,
    "optimizer": {"schedule": "cosine", "warmup": 5},
    "data": {"balance": ["pacemaker"], "augment": {"flip": "words"}},
}


def started(path: Path, *words: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "counterscan.training", str(path), *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def killed_after(path: Path, steps: int, folder: Path) -> None:
    """Run until the log has so many lines, then pull the plug."""
    process, log = started(path), folder / "log.jsonl"
    deadline = time.monotonic() + 600  # ends a run that hangs, not one on a busy machine
    try:
        while not (log.is_file() and len(log.read_text().splitlines()) >= steps):
            assert process.poll() is None, process.communicate()[1].decode()
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL


def curve(folder: Path) -> list[str]:
    return (folder / "log.jsonl").read_text().splitlines()


def equal_weights(one: Path, other: Path) -> bool:
    files = sorted(
        p.relative_to(one) for part in ("unet", "text_encoder", "vae") for p in (one / part).glob("*.safetensors")
    )
    assert files
    pairs = [(load_file(one / f), load_file(other / f)) for f in files]
    return all(torch.equal(a[name], b[name]) for a, b in pairs for name in a)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_kill_9_twice_and_the_run_ends_as_an_undisturbed_one(tmp_path):
    """Once before the first checkpoint, once between two: losses, gradients and weights are the same to the last bit."""
    path = config_file(tmp_path, steps=40, save_every=6, **RICH)
    whole = started(path, f"output={tmp_path / 'whole'}")
    killed_after(path, 3, tmp_path / "run")
    killed_after(path, 20, tmp_path / "run")
    assert not (tmp_path / "run/model_index.json").exists()
    last = started(path)
    assert (whole.communicate()[1], whole.returncode)[1] == 0
    error = last.communicate()[1].decode()
    assert last.returncode == 0, error
    assert [json.loads(line)["step"] for line in curve(tmp_path / "run")] == list(range(1, 41))
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")
    assert equal_weights(tmp_path / "run", tmp_path / "whole")


TOKEN = {"token": {"word": "<new>", "start": "effusion"}, "data": {"captions": {"text": "chest radiograph: <new>"}}}


@pytest.mark.parametrize("changes", [{"train": ["lora"]}, {"train": ["vae"]}, {"train": ["token"], **TOKEN}], ids=str)
def test_whatever_learns_goes_on(tmp_path, changes):
    train(config(tmp_path, steps=2, **changes))
    assert train(config(tmp_path, steps=4, **changes)).resumed_from == 2
    train(config(tmp_path, steps=4, output=str(tmp_path / "whole"), **changes))
    assert curve(tmp_path / "run") == curve(tmp_path / "whole") and equal_weights(tmp_path / "run", tmp_path / "whole")


def test_more_steps_go_on_where_the_run_ended(tmp_path):
    train(config(tmp_path, steps=2))
    longer = train(config(tmp_path, steps=5))
    assert (longer.resumed_from, longer.steps) == (2, 5)
    with pytest.raises(WordsError, match="is the model that is started from"):
        train(config(tmp_path, model=str(tmp_path / "run"), steps=5))
    again = train(config(tmp_path, steps=5))
    assert again.resumed_from == 5 and math.isfinite(again.loss)
    with pytest.raises(WordsError, match="has 5 steps behind it"):
        train(config(tmp_path, steps=3))


def test_a_damaged_checkpoint_costs_its_steps_only(tmp_path):
    train(config(tmp_path, steps=4, save_every=2))
    whole = curve(tmp_path / "run")
    newest = tmp_path / "run/checkpoints/step-0000004.safetensors"
    newest.write_bytes(newest.read_bytes()[:100])
    assert train(config(tmp_path, steps=4, save_every=2)).resumed_from == 2
    assert curve(tmp_path / "run") == whole


def test_a_run_is_not_gone_on_with_by_other_settings(tmp_path):
    train(config(tmp_path))
    with pytest.raises(WordsError, match=r"optimizer.rate was 0.001, is 0.5.; name another output"):
        train(config(tmp_path, optimizer={"rate": 0.5}))


def test_a_start_that_was_built_for_other_settings_is_kept_by_no_run_without_checkpoints(tmp_path):
    small = {"resolution": 32, "vae_blocks": [8, 16], "unet_heads": 2, "text_hidden": 16, "text_layers": 1,
             "text_heads": 2, "max_length": 24}  # fmt: skip

    def blocks() -> list[int]:
        return json.loads((tmp_path / "run/start/unet/config.json").read_text())["block_out_channels"]

    Session(config(tmp_path, compact=small | {"unet_blocks": [16, 32]}))  # as far as a run comes that is killed early
    asked = config(tmp_path, compact=small | {"unet_blocks": [16, 16]})
    train(asked)
    assert blocks() == [16, 16] and counterscan.load(tmp_path / "run").unet.config.block_out_channels == [16, 16]
    written = (tmp_path / "run/start/model_index.json").stat().st_mtime_ns
    train(asked)
    with pytest.raises(WordsError, match="name another output"):
        train(config(tmp_path, compact=small | {"unet_blocks": [16, 32]}))
    assert blocks() == [16, 16] and (tmp_path / "run/start/model_index.json").stat().st_mtime_ns == written


def test_a_loss_that_is_no_number_ends_the_run_at_the_last_good_checkpoint(tmp_path, monkeypatch):
    train(config(tmp_path, steps=2))
    step = Session.step

    def poisoned(self, number, batches):
        if number == 3:
            batches = [type(b)(b.captions, b.quantile, b.noise * math.nan, b.images, b.latents) for b in batches]
        return step(self, number, batches)

    monkeypatch.setattr(Session, "step", poisoned)
    with pytest.raises(WorkError, match=r"step 4: the loss is nan; the last good checkpoint is .*step-0000002"):
        train(config(tmp_path, steps=6))
    monkeypatch.undo()
    assert train(config(tmp_path, steps=6)).resumed_from == 2


def test_a_full_disk_is_told_and_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    import safetensors.torch

    train(config(tmp_path, steps=2))

    def full(tensors, path, metadata=None):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(WorkError, match=r"No space left on device.*the disk has .*make room"):
        train(config(tmp_path, steps=4))
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] == ["step-0000002.safetensors"]
    assert train(config(tmp_path, steps=4)).resumed_from == 2


def test_a_disk_that_is_full_elsewhere_is_told_too(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "sample.png")

    monkeypatch.setattr("counterscan.training.finish.draw_samples", full)
    with pytest.raises(WorkError, match=r"sample.png: No space left on device; the last good checkpoint is .*0000002"):
        train(config(tmp_path, steps=4, samples={"prompts": ["x"], "every": 3}))


def test_an_image_that_vanishes_on_the_way_is_named(tmp_path):
    asked = config(tmp_path, data={"cache": False}, steps=2)
    train(asked)
    for i in range(12):
        (tmp_path / f"data/images/{i}.png").unlink()
    with pytest.raises(DataError, match=r"manifest.csv: row \d+: .*\.png"):
        train(config(tmp_path, data={"cache": False}, steps=4))
    assert len(state.Run(asked.output).checkpoints) == 1


def test_latents_of_other_images_are_made_anew(tmp_path):
    first = train(config(tmp_path))
    kept = {path.name for path in (first.folder / "latents").iterdir()}
    (tmp_path / "data/images/0.png").write_bytes((tmp_path / "data/images/1.png").read_bytes())
    train(config(tmp_path, steps=3))
    assert kept < {path.name for path in (first.folder / "latents").iterdir()}


def test_latents_belong_to_the_autoencoder_and_not_to_the_denoiser(tmp_path):
    backbone = counterscan.load(tiny(tmp_path / "m"))
    before = of_autoencoder(backbone)
    with torch.no_grad():
        next(backbone.unet.parameters()).add_(1)
    assert of_autoencoder(backbone) == before
    backbone.vae.register_to_config(scaling_factor=0.5)
    rescaled = of_autoencoder(backbone)
    with torch.no_grad():
        next(backbone.vae.parameters()).add_(1)
    assert len({before, rescaled, of_autoencoder(backbone)}) == 3
