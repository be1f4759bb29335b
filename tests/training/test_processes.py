"""Two processes learn what one learns."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from tests.training.small import config, config_file

import counterscan
from counterscan.errors import WordsError
from counterscan.training.session import need_whole
from counterscan.training.sharding import need_shardable
from counterscan.training.trainer import train

ROOT = Path(__file__).parents[2]


def launched(path: Path, processes: int, output: Path, *words: str) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    command += ["--master_addr", "127.0.0.1", "--master_port", str(port), "-m", "counterscan.training", str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, f"output={output}", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="gloo")
def test_two_processes_learn_what_one_learns(tmp_path):
    """The same global batch: losses and gradients within 1e-4, in spite of three micro-batches that do not divide evenly."""
    settings = {"steps": 5, "batch": 6, "micro_batch": 2, "train": ["unet", "text_encoder"], "ema": 0.9}
    train(config(tmp_path, output=str(tmp_path / "by-1"), **settings))
    done = launched(config_file(tmp_path, **settings), 2, tmp_path / "by-2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("5 steps") == 1, "one process reports"
    curves = []
    for processes in (1, 2):
        output = tmp_path / f"by-{processes}"
        curves.append([list(json.loads(line).values()) for line in (output / "log.jsonl").open()])
        training = counterscan.load(output).card.training
        assert (training["images_seen"], training["processes"]) == (30, processes)
    assert len(curves[0]) == 5 and np.allclose(*curves, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_launch_files_are_accelerates_own(path):
    from accelerate.commands.config.config_args import load_config_from_file

    told = load_config_from_file(str(path))
    assert told.distributed_type.value == "MULTI_GPU" and told.num_processes == 8 * told.num_machines
    need_whole(told.distributed_type.value)


@pytest.mark.skipif(sys.platform == "win32", reason="gloo")
@pytest.mark.parametrize(
    ("change", "processes"),
    [
        ({"ema": 0.9, "train": ["unet", "text_encoder"]}, 1),
        ({"ema": 0.9, "train": ["unet", "text_encoder"]}, 2),
        ({"train": "lora"}, 1),
        ({"train": "vae"}, 1),
        ({"train": "lora", "precision": "bfloat16", "frozen": "bfloat16", "checkpointing": True}, 2),
    ],
)
def test_two_processes_that_hold_a_part_each_learn_what_one_learns(tmp_path, change, processes):
    """Begun by two that share the weights, and gone on with by two, or by one that has them all: one curve and one model."""
    settings = {"steps": 4, "batch": 4, "micro_batch": 1, "save_every": 2, **change}
    alone, both = tmp_path / "alone", tmp_path / "both"
    train(config(tmp_path, output=str(alone), **settings))
    path = config_file(tmp_path, **settings)
    for steps in (2, 4)[:processes]:
        done = launched(path, 2, both, "shard=true", f"steps={steps}")
        assert done.returncode == 0, done.stderr[-3000:]
    train(config(tmp_path, output=str(both), **settings))
    curves = [[list(json.loads(line).values()) for line in (o / "log.jsonl").open()] for o in (alone, both)]
    close = 1e-4 if "precision" not in change else 0.05
    assert len(curves[1]) == 4 and np.allclose(*curves, rtol=close, atol=close)
    for file in [f for f in alone.glob("*/*.safetensors") if f.parent.name in ("unet", "vae", "text_encoder")]:
        one, two = load_file(file), load_file(both / file.relative_to(alone))
        assert one.keys() == two.keys()
        # where a gradient is nothing but rounding, Adam makes a whole step of it
        assert all(np.allclose(one[k].float(), two[k].float(), atol=2e-3, rtol=close) for k in one), file
    assert counterscan.load(both).card.training["steps"] == 4


@pytest.mark.parametrize(
    "changes",
    [{"samples": {"prompts": ["a"]}}, {"train": "token"}, {"optimizer": {"name": "adamw8bit"}}, {"batch": 5}],
)
def test_what_cannot_be_sharded(tmp_path, changes):
    with pytest.raises(WordsError, match="shard"):
        need_shardable(config(tmp_path, shard=True, **{"batch": 4} | changes), 2)


def test_launchers_do_not_spread_the_weights_themselves():
    with pytest.raises(WordsError, match="FSDP is not how.*shard: true"):
        need_whole("FSDP")


@pytest.mark.skipif(sys.platform == "win32", reason="gloo")
def test_a_fault_in_one_process_ends_all_of_them(tmp_path):
    path = config_file(tmp_path, steps=5, batch=1, micro_batch=1)
    done = launched(path, 2, tmp_path / "out")
    assert done.returncode != 0 and "1 images cannot be shared by 2 processes" in done.stderr
