"""The choice between numba and torch.compile for the CPU kernels: scores of all pairs, cold start included.

    python benches/choose_cpu.py [--threads 2] [--json benches/results/choose_cpu.json]

N = 256 residues, 8 heads, 8 points, float32, the closed form, keys contiguous; for torch.compile the same formula on
the same layout, `iga.overlap.closed_form` component by component. Each contender runs in processes of its own, first
with an empty cache, then with the one it left. *first call* is the time to the first result, import of torch not
counted. Limit and share are those of `iga bench`: what a loop of fused multiply-adds reaches in the same process, and
100 of them a pair-point.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from iga._runtime import machine
from iga.bench.probe import Limit, measure_limit
from iga.kernels.engine import Geometry
from iga.report.schema import write
from iga.rotation import exp

RESIDUES, HEADS, POINTS = 256, 8, 8
PAIR_POINTS = RESIDUES**2 * HEADS * POINTS
SCORES = ("gaussian", "student_t")
DOF = 4.0
ROUNDS = 61
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description="numba against torch.compile's C++ backend, scores of all pairs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the result there")
    parser.add_argument("--child", choices=sorted(CONTENDERS), help="measure one contender here and print JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        print(json.dumps(CONTENDERS[options.child]()))
        return
    contenders = {name: _cold_and_cached(name, options.threads) for name in CONTENDERS}
    result = {
        "schema": 1,
        "environment": machine() | {"device": "cpu", "threads": options.threads, "seed": SEED},
        "problem": {"residues": RESIDUES, "heads": HEADS, "points": POINTS, "dtype": "float32"},
        "contenders": contenders,
    }
    _print_table(contenders)
    if options.json:
        write(result, options.json)


def measure_numba() -> dict[str, float]:
    from iga.kernels.engine import Score

    start = time.perf_counter()
    from iga.kernels.cpu.engine import CpuEngine

    geometry = _geometry()
    gamma = torch.randn(1, HEADS, RESIDUES, RESIDUES)
    engines = {kind: CpuEngine(geometry, Score(kind, DOF, float("-inf"))) for kind in SCORES}
    engines["gaussian"].sums(0, RESIDUES)
    found = {"first_call_s": time.perf_counter() - start}
    engines["gaussian"].add_gradients(0, RESIDUES, gamma)
    found["first_call_with_backward_s"] = time.perf_counter() - start
    limit = measure_limit(torch.device("cpu"))
    for kind, engine in engines.items():
        _record(found, f"{kind}_forward", _seconds(partial(engine.sums, 0, RESIDUES)), limit)
        _record(found, f"{kind}_backward", _seconds(partial(engine.add_gradients, 0, RESIDUES, gamma)), limit)
    return found | {"limit_gfma_per_s": limit.operations / 1e9}


def measure_inductor() -> dict[str, float]:
    from iga.overlap import closed_form, gaussian_score, relative_rotation, student_t_score

    geometry = _geometry()
    r = [[geometry.rot[0, :, a, b].contiguous() for b in range(3)] for a in range(3)]
    r_i, r_j = (tuple(tuple(x[index] for x in row) for row in r) for index in ((slice(None), None), (None,)))

    def parts(x: torch.Tensor, *, query: bool) -> tuple[torch.Tensor, ...]:
        split = (x[0, ..., k].contiguous() for k in range(3))
        return tuple(c[..., :, None] if query else c[..., None, :] for c in split)

    mu_i, s_i = parts(geometry.q_mean, query=True), parts(geometry.q_sigma, query=True)
    mu_j, s_j = parts(geometry.k_mean, query=False), parts(geometry.k_sigma, query=False)

    def into(rot: tuple, delta: tuple) -> tuple:
        return tuple(rot[0][k] * delta[0] + rot[1][k] * delta[1] + rot[2][k] * delta[2] for k in range(3))

    def sums(kind: str) -> torch.Tensor:
        delta = tuple(a - b for a, b in zip(mu_i, mu_j, strict=True))
        v_i, v_j = tuple(x * x for x in s_i), tuple(x * x for x in s_j)
        q = relative_rotation(r_i, r_j)
        dist_sq, log_det = closed_form(q, into(r_i, delta), into(r_j, delta), v_i, v_j)
        if kind == "gaussian":
            return gaussian_score(dist_sq, log_det).sum(1)
        return student_t_score(dist_sq, log_det, dof=DOF).sum(1)

    start = time.perf_counter()
    compiled = torch.compile(sums, dynamic=False)
    compiled("gaussian")
    found = {"first_call_s": time.perf_counter() - start}
    compiled("student_t")
    limit = measure_limit(torch.device("cpu"))
    for kind in SCORES:
        _record(found, f"{kind}_forward", _seconds(partial(compiled, kind)), limit)
    return found | {"limit_gfma_per_s": limit.operations / 1e9}


CONTENDERS: dict[str, Callable[[], dict[str, float]]] = {"numba": measure_numba, "torch.compile": measure_inductor}


def _geometry() -> Geometry:
    generator = torch.Generator().manual_seed(SEED)
    shape = (1, HEADS, POINTS, RESIDUES, 3)
    rot = exp(3.0 * torch.randn(1, RESIDUES, 3, generator=generator))
    means = [2.0 * torch.randn(shape, generator=generator) for _ in range(2)]
    sigmas = [0.05 * 40.0 ** torch.rand(shape, generator=generator) for _ in range(2)]
    mask = torch.ones(1, RESIDUES, dtype=torch.bool)
    return Geometry(rot, mask, means[0], sigmas[0], means[1], sigmas[1])


def _seconds(run: Callable[[], object]) -> tuple[float, float]:
    """(median, shortest): the second is what the code can do on a machine that others use too."""
    run()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times)), min(times)


def _record(found: dict[str, float], name: str, seconds: tuple[float, float], limit: Limit) -> None:
    for of, value in zip(("median", "best"), seconds, strict=True):
        found[f"{name}_{of}_ms"] = value * 1e3
        found[f"{name}_{of}_mpairpoints_per_s"] = PAIR_POINTS / value / 1e6
    if name.endswith("forward"):
        found[f"{name}_best_share_of_limit"] = limit.share(PAIR_POINTS / seconds[1], "forward")


def _cold_and_cached(name: str, threads: int) -> dict[str, dict[str, float]]:
    command = [sys.executable, __file__, "--child", name, "--threads", str(threads)]
    with tempfile.TemporaryDirectory() as folder:
        paths = {"NUMBA_CACHE_DIR": folder, "TORCHINDUCTOR_CACHE_DIR": folder, "OMP_NUM_THREADS": str(threads)}
        root = str(Path(__file__).resolve().parents[1])
        env = os.environ | paths | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
        runs = {}
        for state in ("cold", "cached"):
            done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
            runs[state] = json.loads(done.stdout.splitlines()[-1])
    return runs


def _print_table(contenders: dict[str, dict[str, dict[str, float]]]) -> None:
    columns = ("cold, s", "cached, s", "gaussian, M/s", "(best)", "of limit", "student_t", "(best)", "backward, ms")
    print(f"{'':14}" + "".join(f"{c:>15}" for c in columns))
    for name, runs in contenders.items():
        warm = runs["cached"]
        gaussian, student = "gaussian_forward", "student_t_forward"
        back = warm.get("gaussian_backward_median_ms")
        cells = (
            f"{runs['cold']['first_call_s']:.1f}",
            f"{warm['first_call_s']:.1f}",
            *(f"{warm[f'{gaussian}_{of}_mpairpoints_per_s']:.0f}" for of in ("median", "best")),
            f"{warm[f'{gaussian}_best_share_of_limit']:.0%}",
            *(f"{warm[f'{student}_{of}_mpairpoints_per_s']:.0f}" for of in ("median", "best")),
            "—" if back is None else f"{back:.1f}",
        )
        print(f"{name:14}" + "".join(f"{c:>15}" for c in cells))


if __name__ == "__main__":
    main()
