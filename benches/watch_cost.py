"""The cost of `iga.watch` in a training step: one that is looked at, one that is not, and a hundred of both.

    python benches/watch_cost.py [--json benches/results/watch_cost.json] [--rounds 30] [--only NAME]

Models: the comparison's network of size small with the presets bounded (by the CPU kernels) and pre_fix, and with its
blocks checkpointed; a transformer of scaled_dot_product_attention, plain, under torch.compile, checkpointed, and
under DistributedDataParallel (gloo, one process). Each round times a plain step, one with a recorder that does not look
at it, and one that it looks at, in an order that rotates, on one thread; all three are forward, backward and Adam.
Medians over rounds of processor time, and of the ratio to the plain step of the same round; wall time beside.

    share of a step at every = 100:  (r_look − 1) / 100 + (r_idle − 1) · 99 / 100

r_idle is the clock's noise as far as it can be told; `idle_us` is the recorder's own part of it, one call of
`Recorder.step` between two steps that are not looked at, timed alone, and `share` counts that:
(r_look − 1) / 100 + idle / step. Each model is first compared with itself: a look changes no output by a bit where the
step is not compiled, and breaks no graph and compiles nothing where it is.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from experiment_step import batch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import iga
from iga._runtime import machine
from iga.experiment.model.arms import network_of
from iga.experiment.settings import load_settings
from iga.recording import Recorder
from iga.report.schema import write

WARM_UP = 3
EVERY = 100
HOW = ("plain", "compiled", "checkpointed", "DDP")
IDLE_CALLS = 10**5


class Block(nn.Module):
    """Attention and a transition, as in any transformer."""

    def __init__(self, width: int = 128, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.transition = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        attended = F.scaled_dot_product_attention(*(one.transpose(-3, -2) for one in (q, k, v)))
        x = x + self.out(attended.transpose(-3, -2).flatten(-2))
        return x + self.transition(self.second(x))


class Transformer(nn.Module):
    """Four blocks over 4 samples of 128 tokens."""

    def __init__(self, again: bool = False) -> None:
        super().__init__()
        self.again = again
        self.blocks = nn.ModuleList(Block() for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.again else block(x)  # type: ignore[assignment]
        return x


def of_comparison(arm: str, again: bool = False) -> tuple[nn.Module, nn.Module, Callable[[nn.Module], torch.Tensor]]:
    settings = load_settings(arm, "small")
    noised, clean = batch(settings.training.max_samples, settings.training.crop)
    mask = torch.ones(noised.shape, dtype=torch.bool)
    t, index = torch.full(noised.shape[:1], 0.5), torch.arange(noised.shape[1]).expand(noised.shape)
    network = network_of(settings)
    if again:
        for block in network.blocks:
            plain = block.forward
            block.forward = lambda *args, plain=plain: checkpoint(plain, *args, use_reentrant=False)  # type: ignore[method-assign]

    def loss(model: nn.Module) -> torch.Tensor:
        return (model(noised, t, mask, index, []).trans - clean.trans).square().mean()

    return network, network, loss


def of_transformer(how: str) -> tuple[nn.Module, nn.Module, Callable[[nn.Module], torch.Tensor]]:
    torch.manual_seed(0)
    model = Transformer(again=how == "checkpointed")
    x = torch.randn(4, 128, 128)
    run: nn.Module = model
    if how == "compiled":
        run = torch.compile(model, fullgraph=True)  # type: ignore[assignment]
    if how == "DDP":
        run = DistributedDataParallel(model)

    def loss(of: nn.Module) -> torch.Tensor:
        return of(x).square().mean()

    return model, run, loss


MODELS: dict[str, Callable[[], tuple[nn.Module, nn.Module, Callable[[nn.Module], torch.Tensor]]]] = {
    "comparison, bounded": lambda: of_comparison("bounded"),
    "comparison, pre_fix": lambda: of_comparison("pre_fix"),
    "comparison, bounded, checkpointed": lambda: of_comparison("bounded", again=True),
    **{
        f"transformer, {how}": lambda how=how: of_transformer(how)
        for how in ("plain", "compiled", "checkpointed", "DDP")
    },
}


def cost(name: str, rounds: int) -> dict[str, Any]:
    model, run, loss = MODELS[name]()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        optimiser.zero_grad()
        loss(run).backward()
        optimiser.step()

    def timed(recorder: Recorder | None) -> tuple[float, float]:
        wall, own = time.perf_counter(), time.process_time()
        step()
        if recorder is not None:
            recorder.step()
        return time.process_time() - own, time.perf_counter() - wall

    def idle() -> tuple[float, float]:
        with iga.watch(model, every=EVERY, first_step=0) as recorder:
            recorder.step()  # the first step, which is looked at, is empty
            return timed(recorder)

    def look() -> tuple[float, float]:
        with iga.watch(model, every=EVERY, on_limit="record") as recorder:
            found = timed(recorder)
            assert recorder.metrics()
        return found

    check(model, run, loss)
    ways = {"plain": lambda: timed(None), "idle": idle, "look": look}
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for number in range(WARM_UP + rounds):
        order = list(ways)[number % 3 :] + list(ways)[: number % 3]
        for way in order:
            took = ways[way]()
            if number >= WARM_UP:
                found[way].append(took)
    ratios = {way: ratio(found[way], found["plain"]) for way in ("idle", "look")}
    plain = statistics.median(own for own, _ in found["plain"])
    alone = idle_call(model)
    return {
        "plain_ms": 1e3 * plain,
        "plain_wall_ms": 1e3 * statistics.median(wall for _, wall in found["plain"]),
        "look_ms": 1e3 * statistics.median(own for own, _ in found["look"]),
        "idle_ratio": ratios["idle"][0],
        "idle_ratio_wall": ratios["idle"][1],
        "look_ratio": ratios["look"][0],
        "look_ratio_wall": ratios["look"][1],
        "idle_us": 1e6 * alone,
        "share": (ratios["look"][0] - 1) / EVERY + alone / plain,
        "rounds": rounds,
    }


def ratio(these: list[tuple[float, float]], those: list[tuple[float, float]]) -> tuple[float, float]:
    """(of processor time, of wall time): medians over rounds."""
    pairs = list(zip(these, those, strict=True))
    return statistics.median(a[0] / b[0] for a, b in pairs), statistics.median(a[1] / b[1] for a, b in pairs)


def idle_call(model: nn.Module) -> float:
    """Seconds of one call of `step` between two steps that are not looked at."""
    with iga.watch(model, every=2 * IDLE_CALLS) as recorder:
        recorder.step()
        start = time.process_time()
        for _ in range(IDLE_CALLS):
            recorder.step()
        return (time.process_time() - start) / IDLE_CALLS


def check(model: nn.Module, run: nn.Module, loss: Callable[[nn.Module], torch.Tensor]) -> None:
    """Raises AssertionError where a look changes what is computed, or how it is compiled."""
    from torch._dynamo.utils import counters

    before = loss(run).detach()
    compiled = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
    with iga.watch(model, every=2, on_limit="record") as recorder:
        values = [float(loss(run).detach()) for _ in range(4) if recorder.step() is not None]
    assert all(abs(value - float(before)) <= 1e-5 * abs(float(before)) for value in values), (values, before)
    assert compiled == (counters["stats"]["unique_graphs"], sum(counters["graph_break"].values()))


def main() -> None:
    parser = argparse.ArgumentParser(description="what iga.watch costs a training step, on one thread")
    parser.add_argument("--json", type=Path, help="write the result there")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", help="one of the models")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        print(f"{'model':36} {'step ms':>8} {'look/step':>10} {'idle/step':>10} {'idle us':>8} {'share at 100':>13}")
        for name in MODELS if options.only is None else [options.only]:
            rows[name] = row = cost(name, options.rounds)
            print(
                f"{name:36} {row['plain_ms']:8.1f} {row['look_ratio']:10.3f} {row['idle_ratio']:10.3f} "
                f"{row['idle_us']:8.2f} {row['share']:13.3%}",
                flush=True,
            )
        dist.destroy_process_group()
    if options.json:
        environment = machine() | {"device": "cpu", "threads": 1}
        write({"schema": 1, "environment": environment, "every": EVERY, "models": rows}, options.json)


if __name__ == "__main__":
    main()
