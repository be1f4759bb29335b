"""Weights, gradients and optimizer state spread over the processes (FSDP; Zhao et al. 2023, arXiv 2304.11277).

Each block is put together where it is computed, and taken apart after; the loss is the one of whole weights. Checkpoints are
whole, so a run can go on with other processes than it began with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from counterscan.errors import WordsError

if TYPE_CHECKING:
    from counterscan.training.config import Config


def need_shardable(config: Config, processes: int) -> None:
    """Raises ``WordsError`` for what one process would have to do with weights of which it holds a part."""
    if config.batch % processes:
        raise WordsError(
            f"shard: {processes} processes need equal shares, and batch {config.batch} does not divide by them"
        )
    for name, asked in (
        ("samples.prompts", config.samples.prompts),
        ("validation.findings", config.validation.findings),
    ):
        if asked:
            raise WordsError(
                f"{name}: one process draws them, and with shard it holds a part of the weights; leave it out"
            )
    if config.precision == "float16" or config.optimizer.name != "adamw" or "token" in config.train:
        raise WordsError("shard: works with precision float32 or bfloat16, the optimizer adamw, and not with a token")


def shard(learner: nn.Module, parts: Mapping[str, nn.Module], device: torch.device, *, narrow: bool = False) -> None:
    """Spread the weights of ``learner`` in place, a group for each block of its ``parts``.

    ``narrow``: what is put together is bfloat16, as autocast would have it, which else keeps its own copy of every weight.
    """
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    policy = MixedPrecisionPolicy(torch.bfloat16 if narrow else None, torch.float32, cast_forward_inputs=False)
    for part in parts.values():
        for block in blocks(part):
            fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(learner, mesh=mesh, mp_policy=policy)


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost lists of modules: levels of a U-Net, layers of a transformer."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from (block for block in child if block is not None)  # a level without attention holds None
        else:
            yield from blocks(child)


def whole(value: Tensor) -> Tensor:
    """A tensor of which each process may hold a part, as all of it. Every process has to ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def gathered(values: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Whole copies on the CPU, one after the other; of processes that need not ``keep`` them, nothing."""
    found = {}
    for name, value in values.items():
        full = whole(value.detach())
        if keep:
            found[name] = full.cpu().contiguous()
    return found


def spread(value: Tensor, place: Tensor) -> Tensor:
    """A whole tensor, spread as ``place`` is."""
    if not isinstance(place, DTensor) or value.shape != place.shape:
        return value
    return distribute_tensor(value.to(place.device), place.device_mesh, place.placements)
