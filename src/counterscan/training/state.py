"""What a run leaves on disk, so that it can go on after any interruption: checkpoints, the loss curve, its settings.

Each file is written beside its place and moved there whole; a run that is killed loses the steps since its last
checkpoint and repeats them exactly.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from counterscan.errors import WordsError, WorkError
from counterscan.training.config import Config
from counterscan.training.parts import Average
from counterscan.training.sharding import gathered, spread

KEPT = 2
# What may change between the two halves of a run without making it another one.
FREE = {
    "output",
    "steps",
    "save_every",
    "samples",
    "validation",
    "tracker",
    "micro_batch",
    "name",
    "credit",
    "default_method",
    "sides",
    "checkpointing",
    "shard",
}


@dataclass(frozen=True)
class Run:
    """The folder of a run: checkpoints, ``log.jsonl`` (one line a step), ``config.json``."""

    folder: Path

    @property
    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted((self.folder / "checkpoints").glob("step-*.safetensors"))

    @property
    def log(self) -> Path:
        """The loss curve."""
        return self.folder / "log.jsonl"

    def begin(self, config: Config) -> None:
        """Keep the settings; refuse to go on with a run that was begun with others, naming the fields."""
        path, now = self.folder / "config.json", json.loads(config.model_dump_json())
        if path.is_file() and self.checkpoints:
            before = json.loads(path.read_text(encoding="utf-8"))
            was, new = leaves(today(before)), leaves(now)
            other = [k for k in new if k.split(".")[0] not in FREE and new[k] != was.get(k)]
            if other:
                changes = "; ".join(f"{k} was {was.get(k)!r}, is {new[k]!r}" for k in other)
                raise WordsError(
                    f"{self.folder}: begun with other settings ({changes}); name another output, or restore them"
                )
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in self.folder.glob("checkpoints/.*"):
            stale.unlink()  # cut off by a kill
        write_text(path, json.dumps(now, indent=2) + "\n")

    def save(self, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> Path:
        """Write the checkpoint of ``step`` and drop all but the last two. A failure leaves the ones before as they are."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path = self.folder / "checkpoints" / f"step-{step:07d}.safetensors"
        draft = path.with_name(f".{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, draft, metadata={"step": str(step), "facts": json.dumps(facts)})
            os.replace(draft, path)
        except (OSError, SafetensorError) as error:
            draft.unlink(missing_ok=True)
            raise WorkError(self._not_written(path, tensors, error)) from error
        for old in self.checkpoints[:-KEPT]:
            old.unlink()
        return path

    def _not_written(self, path: Path, tensors: dict[str, Tensor], error: Exception) -> str:
        need = sum(t.numel() * t.element_size() for t in tensors.values()) / 1e6
        free = shutil.disk_usage(self.folder).free / 1e6
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        return (
            f"{path}: the checkpoint cannot be written ({why}); it needs {need:,.0f} MB, the disk has {free:,.0f} MB; "
            f"{self.last_good()}; make room and run the same command to go on"
        )

    def last_good(self) -> str:
        """Which checkpoint a failed run leaves, in words."""
        return (
            f"the last good checkpoint is {self.checkpoints[-1]}"
            if self.checkpoints
            else "no checkpoint was written yet"
        )

    def newest(self) -> Path:
        """The newest checkpoint. Raises ``WordsError`` where there is none to go on from."""
        if not self.checkpoints:
            raise WordsError(f"{self.folder}: no checkpoint to go on from; leave out --resume to begin")
        return self.checkpoints[-1]

    def restore(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """(step, tensors, facts) of the newest checkpoint that can be read; ``None`` without any."""
        from safetensors import SafetensorError, safe_open

        for path in reversed(self.checkpoints):
            try:
                with safe_open(path, framework="pt") as file:
                    facts = file.metadata()
                    return int(facts["step"]), {k: file.get_tensor(k) for k in file.keys()}, json.loads(facts["facts"])
            except (SafetensorError, OSError, KeyError, ValueError):
                continue
        return None

    def cut_log(self, step: int) -> list[dict[str, Any]]:
        """Drop the lines after ``step``, which will be run again; returns those that stay."""
        lines = []
        if self.log.is_file():
            for text in self.log.read_text(encoding="utf-8").splitlines():
                try:
                    line = json.loads(text)
                except ValueError:
                    break  # cut off by a kill
                if line["step"] <= step:
                    lines.append(line)
        write_text(self.log, "".join(json.dumps(line) + "\n" for line in lines))
        return lines


def today(before: dict[str, Any]) -> dict[str, Any]:
    """The settings of an earlier run, with those that have come since then as they are unless said."""
    try:
        known: dict[str, Any] = json.loads(Config.model_validate(before).model_dump_json())
    except ValueError:  # a setting that is no more
        return before
    return known


def leaves(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Nested settings as one level.

    >>> leaves({"optimizer": {"rate": 1e-4}, "steps": 10})
    {'optimizer.rate': 0.0001, 'steps': 10}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= leaves(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return found


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise WorkError(f"{path}: cannot be written ({error.strerror})") from error


def pack(
    parameters: dict[str, torch.nn.Parameter],
    average: Average | None,
    optimizer: torch.optim.Optimizer,
    *,
    keep: bool = True,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Everything that later steps depend on: tensors by name, and the optimizer's plain numbers.

    Where each process holds a part of the weights, all of them have to ask, and one to ``keep`` them.
    """
    tensors = {f"param/{n}": p.detach() for n, p in parameters.items()}
    if average is not None:
        tensors |= {f"ema/{n}": v for n, v in average.values.items()}
    numbers: dict[str, Any] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value
            else:
                numbers[f"{index}/{key}"] = value
    return gathered(tensors, keep=keep), {"optimizer": numbers}


@torch.no_grad()
def unpack(
    tensors: dict[str, Tensor],
    facts: dict[str, Any],
    parameters: dict[str, torch.nn.Parameter],
    average: Average | None,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Put a checkpoint back in its place. Raises ``WorkError`` where it belongs to another model."""
    names = {n.removeprefix("param/") for n in tensors if n.startswith("param/")}
    if names != set(parameters):
        raise WorkError(
            f"the checkpoint holds {len(names)} parameters, the model trains {len(parameters)} others; name another output"
        )
    for name, parameter in parameters.items():
        parameter.copy_(spread(tensors[f"param/{name}"], parameter))
    if average is not None:
        for name, value in average.values.items():
            value.copy_(spread(tensors[f"ema/{name}"], value))
    owners = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/")
            state.setdefault(int(index), {})[key] = spread(value, owners[int(index)])
    for name, number in facts["optimizer"].items():
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = number
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
