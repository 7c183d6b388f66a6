"""The attention on a CPU that others use too: calls beside busy processes, and the same calls on a free machine.

A busy process computes without end at the same priority. Four ways of calling are measured in turns, each turn some
seconds: one thread alone; all threads alone; all threads beside the busy processes; and the same without
`iga.kernels.cpu.share`, which is what there was before. Of each the median and the 95 % quantile, and both over the
median of one thread alone. What else runs on the machine meanwhile counts as busy too: the free turns say how much.

    python benches/shared_machine.py --json benches/results/shared_machine.json
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from iga._runtime import machine, threads
from iga.bench.gate import cotangents, sampled_rows
from iga.bench.implementations import IMPLEMENTATIONS, step
from iga.bench.problem import Case, make_problem
from iga.kernels.cpu import share

BUSY = "while True: pass"
SETTLE = 0.3  # s, after a change of what runs


@contextmanager
def busy(count: int) -> Iterator[None]:
    """`count` processes that compute without end, meanwhile."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        time.sleep(SETTLE)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
        time.sleep(SETTLE)


def timed(call: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each call, for so long."""
    samples, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return samples


def quantile(samples: list[float], at: float) -> float:
    """The least sample that a share `at` of them does not exceed."""
    return sorted(samples)[max(0, math.ceil(at * len(samples)) - 1)]


def measure(case: Case, competitors: int, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """One row for each way of calling."""
    problem = make_problem(case, seed=0)
    cotangent = cotangents(problem, sampled_rows(case, 1 << 17), 0) if case.backward else None
    call, many = step(IMPLEMENTATIONS["cpu"].build(case), problem, cotangent), torch.get_num_threads()
    ways = {
        "one thread, alone": (1, 0, True),
        "all threads, alone": (many, 0, True),
        "all threads, beside busy processes": (many, competitors, True),
        "the same, threads as asked for": (many, competitors, False),
    }
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (count, others, follows) in ways.items():
            with threads(count), busy(others), mock.patch.object(share, "_knobs", _knobs if follows else lambda: None):
                share._look_at = share._try_at = 0.0  # as if nothing had been seen before
                call()
                samples[name] += timed(call, seconds)
    alone = quantile(samples["one thread, alone"], 0.5)
    return [
        {
            **case.size,
            "way": name,
            "threads": ways[name][0],
            "busy": ways[name][1],
            "calls": len(found),
            "median_ms": 1e3 * quantile(found, 0.5),
            "q95_ms": 1e3 * quantile(found, 0.95),
            "median_over_one_alone": quantile(found, 0.5) / alone,
            "q95_over_one_alone": quantile(found, 0.95) / alone,
        }
        for name, found in samples.items()
    ]


_knobs = share._knobs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--residues", type=int, default=256)
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--busy", type=int, default=1, help="processes that compute without end (1)")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each way of calling (4)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a turn (5)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    rows = []
    for direction in ("forward", "forward_backward"):
        case = Case(direction, given.residues, 8, given.points)
        for row in measure(case, given.busy, given.rounds, given.seconds):
            rows.append(row)
            times = f"{row['median_ms']:7.2f} ms, 95 % {row['q95_ms']:7.2f} ms"
            over = f"{row['median_over_one_alone']:.2f} and {row['q95_over_one_alone']:.2f} of one thread alone"
            print(f"{direction:17} {row['way']:36} {times}: {over}")
    if given.json:
        document = {"command": " ".join(["python", *sys.argv]), "machine": machine(), "rows": rows}
        given.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
