"""pytest-benchmark over the implementations of `iga.bench`: grouped by direction, P and N; judged before timed.

    pytest benches/test_attention_bench.py --benchmark-group-by=group
    pytest benches/test_attention_bench.py -k "N64-P8 and forward_backward" --benchmark-compare

Not collected by a plain `pytest`. For ratios with intervals, paired in one run, take `iga bench`.
"""

import itertools

import pytest
import torch

from iga.bench.gate import Yardstick, cotangents, sampled_rows
from iga.bench.implementations import IMPLEMENTATIONS, step
from iga.bench.problem import Case, make_problem

DEVICES = ("cpu", "cuda")
SIZES = [(64, 1), (64, 8), (128, 8), (128, 32)]
PLACES = list(itertools.product(DEVICES, SIZES))
HEADS = 8
# Compilers take minutes a case: those implementations are left to `iga bench`.
NAMES = [name for name, entry in IMPLEMENTATIONS.items() if not entry.compiles]
GATE_PAIR_POINTS = 1 << 17


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("direction", ["forward", "forward_backward"])
@pytest.mark.parametrize(("device", "size"), PLACES, ids=[f"{d}-N{n}-P{p}" for d, (n, p) in PLACES])
def test_attention(benchmark, device: str, size: tuple[int, int], direction: str, name: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    entry, where = IMPLEMENTATIONS[name], torch.device(device)
    reason = entry.obstacle(where)
    if reason is not None:
        pytest.skip(reason)
    residues, points = size
    case = Case(direction, residues, HEADS, points)
    benchmark.group = f"{device} {direction} N={residues} P={points}"
    problem = make_problem(case, seed=0, device=where)
    rows = sampled_rows(case, GATE_PAIR_POINTS)
    cotangent = cotangents(problem, rows, 0) if case.backward else None
    call = step(entry.build(case), problem, cotangent)
    verdict = Yardstick(problem, entry.function, rows, cotangent).judge(call())
    assert verdict.passed, f"not timed: {verdict}"

    def synchronised() -> None:
        call()
        if device == "cuda":
            torch.cuda.synchronize()

    benchmark(synchronised)
