"""Peak memory of one implementation over an idle process. 1 MB = 10⁶ bytes.

CPU: a child process of its own loads everything and runs a tiny case (code is compiled, thread pools are up); the rest
above that, inputs and outputs included, is counted: VmHWM of /proc, reset before each case (elsewhere ru_maxrss, which
only rises: cases run in ascending order). CUDA: the allocator's peak over what is held before the inputs are made.

The child is `python -m iga.bench.memory TASK`, a worker for `peaks_of_child` and no command: TASK is the JSON of
implementation, cases, threads and seed.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import astuple

import torch

from iga import _runtime as _memory
from iga.bench.implementations import IMPLEMENTATIONS, step
from iga.bench.problem import Case, Problem, make_problem

__all__ = ["available_megabytes", "peak_megabytes", "peaks_of_child"]

_TINY = 32


def peaks_of_child(
    implementation: str, cases: Sequence[Case], *, threads: int, seed: int, timeout: float = 600.0
) -> list[float | None]:
    """The peak of every case on a CPU, in a child process; None for those that it did not live to report."""
    order = sorted(range(len(cases)), key=lambda i: (cases[i].pair_points, cases[i].backward))
    order_of = [astuple(cases[i]) for i in order]
    task = {"implementation": implementation, "cases": order_of, "threads": threads, "seed": seed}
    command = [sys.executable, "-m", "iga.bench.memory", json.dumps(task)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    try:
        out = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment).stdout
    except subprocess.TimeoutExpired as error:
        out = error.stdout.decode() if isinstance(error.stdout, bytes) else (error.stdout or "")
    found: list[float | None] = [None] * len(cases)
    lines = [line for line in out.splitlines() if line.startswith("peak ")]
    for index, line in zip(order, lines, strict=False):
        found[index] = float(line.split()[1])
    return found


def peak_megabytes(implementation: str, case: Case, *, seed: int, device: torch.device) -> float:
    """The allocator's peak on a CUDA device: inputs, outputs and everything between, of one run after another."""
    forward = IMPLEMENTATIONS[implementation].build(case)
    run_once(forward, case, seed, device)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    held = torch.cuda.memory_allocated(device)
    run_once(forward, case, seed, device)
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - held) / 1e6


def run_once(forward, case: Case, seed: int, device: torch.device) -> None:
    problem = make_problem(case, seed=seed, device=device)
    step(forward, problem, _ones(problem) if case.backward else None)()


def available_megabytes(device: torch.device) -> float:
    """What a case may take: the machine's available memory, or the device's free memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 1e6
    return _memory.available() / 1e6


def _ones(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones_like(problem.v), torch.ones_like(problem.value_points)


def _give_back() -> None:
    """Freed memory to the system, and the high-water mark, where the system can, down to what is resident."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)
    _memory.forget_peak()


def _child(task: dict) -> None:
    torch.set_num_threads(task["threads"])
    entry, device = IMPLEMENTATIONS[task["implementation"]], torch.device("cpu")
    cases = [Case(*case) for case in task["cases"]]
    for direction in sorted({case.direction for case in cases}):
        tiny = Case(direction, _TINY, cases[0].heads, min(case.points for case in cases))
        run_once(entry.build(tiny), tiny, task["seed"], device)
    _give_back()
    idle = _memory.resident()
    for case in cases:
        forward = entry.build(case)
        if entry.compiles:
            run_once(forward, case, task["seed"], device)
        _give_back()
        run_once(forward, case, task["seed"], device)
        print("peak", round((_memory.peak() - idle) / 1e6, 3), flush=True)


if __name__ == "__main__":
    _child(json.loads(sys.argv[1]))
