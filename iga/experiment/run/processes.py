"""The processes that share a run (torchrun): their number, what they exchange, and which of them writes files.

Without torchrun there is one process, and nothing here communicates. With it every process trains on its share of each
batch: DistributedDataParallel averages the gradients, and what is logged is gathered in the order of the samples.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn

from iga._typing import Tensor

__all__ = ["gathered", "initialised", "rank", "together", "wait", "world"]


def world() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process; 0 writes the files. Before there is a group, torchrun's environment says it."""
    return dist.get_rank() if world() > 1 else int(os.environ.get("RANK", "0"))


@contextmanager
def initialised(device: str) -> Iterator[None]:
    """The process group that torchrun's environment asks for, if it does; with "cuda" every process has a GPU of its
    own. Raises ValueError where there are fewer GPUs than processes."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    if torch.device(device).type == "cuda":
        number, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if number >= there:
            raise ValueError(f"process {number + 1} has no GPU: there are {there}; start as many processes as GPUs")
        torch.cuda.set_device(number)
    # NCCL moves what is on GPUs alone; what is logged is on the CPU
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.device(device).type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def together(network: nn.Module) -> nn.Module:
    """`network`, or where there are several processes one whose gradients are the mean over them."""
    return nn.parallel.DistributedDataParallel(network) if world() > 1 else network


def gathered(x: Tensor) -> Tensor:
    """[k, …] of every process as one [k · world, …]: sample s of process r at place s · world + r, as in the batch."""
    if world() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world())]
    dist.all_gather(parts, x.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)


def wait() -> None:
    """Returns when all processes have called it."""
    if world() > 1:
        dist.barrier()
