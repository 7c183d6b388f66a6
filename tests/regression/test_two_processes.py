"""Two processes that train one layer, one of them without z: their gradients are the mean of two calls.

Origin: DDP waited for the gradients of linear_b and down_z, which a call without z did not give.
"""

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from helpers.layers import layer_inputs, small_layer


def attention() -> nn.Module:
    layer = small_layer()
    layer.implementation = "cpu"
    return layer


def step(layer: nn.Module, rank: int) -> dict[str, Tensor]:
    given = layer_inputs(seed=rank)
    layer.zero_grad()
    layer(given.s, given.z if rank == 0 else None, given.r, given.mask).cos().sum().backward()
    found = {name.removeprefix("module."): p.grad for name, p in layer.named_parameters()}
    return {name: g.full_tensor() if hasattr(g, "full_tensor") else g for name, g in found.items()}  # pyright: ignore


def work(rank: int, store: Path, wrap: Callable[[nn.Module], Any], answer: Connection) -> None:
    try:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
        layer = wrap(attention())
        answer.send([{name: g.numpy() for name, g in step(layer, rank).items()} for _ in range(2)])
        dist.destroy_process_group()
    except BaseException:  # whatever it was, the parent has to hear of it: the assertion there shows it
        answer.send(traceback.format_exc())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.parametrize("wrap", [DistributedDataParallel, fully_shard], ids=["DDP", "FSDP2"])
@pytest.mark.filterwarnings("ignore")
def test_two_processes_one_without_z_take_one_step(wrap: Callable[[nn.Module], Any], tmp_path: Path) -> None:
    alone = [step(attention(), rank) for rank in (0, 1)]
    wanted = {name: (alone[0][name] + alone[1][name]) / 2 for name in alone[0]}
    size = max(float(x.abs().max()) for x in wanted.values())
    context = multiprocessing.get_context("fork")
    ends = [context.Pipe(duplex=False) for _ in range(2)]
    children = [
        context.Process(target=work, args=(rank, tmp_path / "store", wrap, ends[rank][1]), daemon=True)
        for rank in (0, 1)
    ]
    for child in children:
        child.start()
    try:
        answers = [receiver.recv() if receiver.poll(60) else "no answer" for receiver, _ in ends]
    finally:
        for child in children:
            child.kill()
            child.join()
    for answer in answers:
        assert not isinstance(answer, str), answer
        for found in answer:
            assert found.keys() == wanted.keys()
            for name, grad in found.items():
                # half of the sum, or the sum of halves: three roundings
                assert float((torch.from_numpy(grad) - wanted[name]).abs().max()) <= 3 * 2.0**-24 * size, name
