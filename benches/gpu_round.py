"""The GPU round: every step a child process with its own time budget; what fails is recorded, and the round goes on.

    python benches/gpu_round.py FOLDER                          all steps on the CUDA device
    python benches/gpu_round.py FOLDER --device cpu --dry-run   the same steps, tiny, on the CPU: is the round sound?

FOLDER/round.json: device, and for each step its command, exit code, seconds and file. Ends 0 if every step ended 0, 1
if one did not, 2 without a CUDA device.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from iga._runtime import machine
from iga.bench.gate import Yardstick, cotangents, sampled_rows
from iga.bench.implementations import IMPLEMENTATIONS, step
from iga.bench.memory import peak_megabytes, peaks_of_child
from iga.bench.problem import Case, make_problem
from iga.report.schema import write

TOTAL = 525.0  # s: under nine minutes, with room to write the summary
RUNS = 20
GATE_PAIR_POINTS = 1 << 22
# (N, P): ragged, single, the standard case, many points, and beyond the flash threshold of 2^26 scores
SIZES = [(1, 1), (33, 3), (127, 64), (256, 8), (1024, 8), (3000, 2)]
TINY = [(1, 1), (33, 3)]


@dataclass(frozen=True)
class Step:
    """`seconds`: what it may take. `bench`: arguments of `iga bench`; None: a check of this file, by name."""

    name: str
    seconds: float
    bench: tuple[str, ...] | None = None


def steps(dry: bool) -> list[Step]:
    """In the order of what matters most: what is right, then what it costs, then the peers that must be compiled."""
    sweep_p = ("--points", "1,2" if dry else "1,2,4,8,16,32,64", "--residues", "32" if dry else "512")
    sweep_n = ("--points", "2" if dry else "8", "--residues", "16,32" if dry else "256,512,1024,2048,4096")
    peers = ("--points", "2" if dry else "8", "--residues", "32" if dry else "1024")
    ours = "cpu" if dry else "fused"
    quick = ("--backward", "--repeats", "3" if dry else "15")
    compiled = f"{ours},dense,ipa_sdpa" if dry else f"{ours},textbook_compiled,closed_compiled,ipa_sdpa"
    return [
        Step("correctness", 90.0),
        Step("correctness_tf32", 60.0),
        Step("determinism", 40.0),
        Step("memory", 50.0),
        Step("sweep_p", 80.0, (*sweep_p, *quick, "--implementations", f"{ours},dense")),
        Step("sweep_n", 70.0, (*sweep_n, *quick, "--implementations", f"{ours},dense,ipa_sdpa")),
        Step("compiled", 110.0, (*peers, *quick, "--implementations", compiled)),
        Step(
            "peers", 90.0, (*peers, "--repeats", "7", "--implementations", f"{ours},{'dense' if dry else 'flex,keops'}")
        ),
    ]


def check_correctness(device: torch.device, dry: bool, *, tf32: bool = False) -> dict[str, Any]:
    """Outputs and all gradients of our kernels and the dense forms against float64, size by size."""
    found = []
    with matmul_precision(tf32):
        for residues, points in TINY if dry else SIZES:
            case = Case("forward_backward", residues, 2 if dry else 8, points)
            problem = make_problem(case, seed=0, device=device)
            rows = sampled_rows(case, GATE_PAIR_POINTS)
            cotangent = cotangents(problem, rows, 0)
            judged = Yardstick(problem, "gaussian", rows, cotangent, tf32=tf32)
            for name in ("cpu" if dry else "fused", "dense", "textbook"):
                entry = IMPLEMENTATIONS[name]
                if entry.megabytes(case) > 8000:
                    continue
                verdict = judged.judge(step(entry.build(case), problem, cotangent)())
                size = {"implementation": name, "residues": residues, "points": points}
                found.append(size | verdict._asdict() | {"passed": verdict.passed})
    return {"tf32": tf32, "checks": found, "passed": all(entry["passed"] for entry in found)}


def check_determinism(device: torch.device, dry: bool) -> dict[str, Any]:
    """The same bits in 20 runs, outputs and gradients."""
    found = []
    for residues, points in TINY if dry else [(33, 3), (256, 8), (3000, 2)]:
        case = Case("forward_backward", residues, 2 if dry else 8, points)
        problem = make_problem(case, seed=0, device=device)
        name = "cpu" if dry else "fused"
        call = step(IMPLEMENTATIONS[name].build(case), problem, cotangents(problem, torch.arange(residues), 0))
        first = call()
        same = all(all(torch.equal(a, b) for a, b in zip(first, call(), strict=True)) for _ in range(RUNS - 1))
        found.append({"implementation": name, "residues": residues, "points": points, "runs": RUNS, "same": same})
    return {"checks": found, "passed": all(entry["same"] for entry in found)}


def check_memory(device: torch.device, dry: bool) -> dict[str, Any]:
    """Peak memory, forward and with backward, up to N = 16 384 without z; MB over what is held before."""
    found = []
    for residues in (16, 32) if dry else (1024, 4096, 16384):
        for direction in ("forward", "forward_backward"):
            case = Case(direction, residues, 8, 8)
            if device.type == "cuda":
                peak = peak_megabytes("fused", case, seed=0, device=device)
            else:
                peak = peaks_of_child("cpu", [case], threads=1, seed=0)[0]
            found.append({"direction": direction, "residues": residues, "heads": 8, "points": 8, "peak_mb": peak})
    return {"checks": found, "passed": all(entry["peak_mb"] is not None for entry in found)}


CHECKS: dict[str, Callable[[torch.device, bool], dict[str, Any]]] = {
    "correctness": check_correctness,
    "correctness_tf32": lambda device, dry: check_correctness(device, dry, tf32=True),
    "determinism": check_determinism,
    "memory": check_memory,
}


def run_round(folder: Path, device: str, dry: bool, planned: list[Step], total: float = TOTAL) -> int:
    """Every step in a child process; writes round.json after each, so that a round that is cut off has its results."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    records: list[dict[str, Any]] = []
    where = torch.cuda.get_device_name() if device == "cuda" else device
    environment = machine() | {"device": where, "cuda": torch.version.cuda}
    for one in planned:
        left = total - (time.monotonic() - started)
        record = {"step": one.name, "code": None, "seconds": 0.0, "file": f"{one.name}.json"}
        if left < 5.0:
            record["note"] = "no time left"
        else:
            record |= run_step(one, folder, device, dry, min(one.seconds, left))
        records.append(record)
        print(f"{one.name}: {record['note']}, {record['seconds']:.0f} s", flush=True)
        passed = all(entry["code"] == 0 for entry in records)
        write({"environment": environment, "dry_run": dry, "steps": records, "passed": passed}, folder / "round.json")
    return 0 if all(entry["code"] == 0 for entry in records) else 1


def run_step(one: Step, folder: Path, device: str, dry: bool, seconds: float) -> dict[str, Any]:
    target = folder / f"{one.name}.json"
    target.unlink(missing_ok=True)  # never an earlier round's
    if one.bench is None:
        command = [sys.executable, __file__, str(folder), "--device", device, "--step", one.name]
        command += ["--dry-run"] if dry else []
    else:
        command = [sys.executable, "-m", "iga", "bench", "--device", device, "--json", str(target), *one.bench]
    begun = time.monotonic()
    with (folder / f"{one.name}.log").open("w", encoding="utf-8") as log:
        try:
            code = subprocess.run(command, stdout=log, stderr=log, timeout=seconds).returncode
        except subprocess.TimeoutExpired:
            code = None
    note = "ok" if code == 0 else "out of time" if code is None else f"ended {code}, see {one.name}.log"
    return {"code": code, "seconds": round(time.monotonic() - begun, 1), "note": note, "budget_s": seconds}


def run_check(name: str, folder: Path, device: str, dry: bool) -> int:
    """One check in this process: writes its file, ends 0 if it passed."""
    result = CHECKS[name](torch.device(device), dry)
    write({"environment": machine()} | result, folder / f"{name}.json")
    return 0 if result["passed"] else 1


@contextmanager
def matmul_precision(tf32: bool) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes")
    parser.add_argument("--step", choices=tuple(CHECKS), help="run one check in this process")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu_round: torch sees no CUDA device on this machine", file=sys.stderr)
        return 2
    if options.device == "cpu" and not options.dry_run:
        print("gpu_round: --device cpu is for --dry-run", file=sys.stderr)
        return 2
    if options.step:
        return run_check(options.step, options.folder, options.device, options.dry_run)
    return run_round(options.folder, options.device, options.dry_run, steps(options.dry_run))


if __name__ == "__main__":
    sys.exit(main())
