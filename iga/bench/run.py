"""One run of `iga bench`: A/A first, then case after case, judged before timed; the result is a document.

Cases run in ascending order of pair-points, so that under a time limit what is left out is what costs most. The first
implementation is the one that the others are compared with: ratios say how many times its time they take.
"""

import gc
import importlib.util
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from iga._runtime import Progress, check_room, machine, threads
from iga._statistics import exponent, median, ratio
from iga.bench.gate import Verdict, Yardstick, cotangents, sampled_rows
from iga.bench.implementations import OURS, Implementation, lookup, step
from iga.bench.measure import Clock, clock, interleaved
from iga.bench.memory import available_megabytes, peak_megabytes, peaks_of_child
from iga.bench.probe import OPERATIONS, Limit, measure_limit
from iga.bench.problem import Case, make_problem
from iga.report.documents import Bench, Exponents, LeftOut, Noise, Ratio, Timing
from iga.report.schema import SCHEMA

__all__ = ["DEFAULTS", "Plan", "fits", "plan", "run"]

DIRECTIONS = ("forward", "forward_backward")
# What is timed unless said otherwise, by device; the first is what the others are compared with.
DEFAULTS = {
    "cpu": (*("cpu", "dense", "textbook", "textbook_compiled", "closed_compiled", "flex", "keops", "ipa_sdpa"),),
    "cuda": (*("fused", "dense", "textbook", "textbook_compiled", "closed_compiled", "flex", "keops", "ipa_sdpa"),),
}
# Seconds that --quick may time for; the rest of its minute is for start, probe, gate and memory.
QUICK_SECONDS = 20.0
_GATE_PAIR_POINTS = {False: 1 << 20, True: 1 << 17}
_NOISE_REPEATS = 15
_SPENT_PER_CASE = 60.0  # s, after which a case gets no further repeats


@dataclass(frozen=True)
class Plan:
    """What was asked for, checked: who runs, which cases, and who is left out and why."""

    device: torch.device
    implementations: list[Implementation]
    cases: list[Case]
    absent: dict[str, str]
    repeats: int
    threads: int
    seed: int
    quick: bool
    memory: bool


@dataclass
class _Gathered:
    """What a run collects on its way."""

    rows: list[Timing] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def plan(
    *,
    device: str = "cpu",
    points: Sequence[int] | None = None,
    residues: Sequence[int] | None = None,
    heads: int = 8,
    implementations: Sequence[str] | None = None,
    backward: bool = False,
    quick: bool = False,
    threads: int | None = None,
    repeats: int | None = None,
    seed: int = 0,
    memory: bool = True,
) -> Plan:
    """A run that is ready to start; None stands for the defaults of the device or of `quick`.

    Raises ValueError for what cannot be run, in words for the command line.
    """
    if device not in DEFAULTS:
        raise ValueError(f"--device must be cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no CUDA device on this machine")
    for name, value in (("heads", heads), ("threads", threads), ("repeats", repeats)):
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    cores = os.cpu_count() or 1
    if threads is not None and threads > cores:
        raise ValueError(f"--threads must be at most {cores}, the cores of this machine, got {threads}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed must be from 0 to 2³² − 1, got {seed}")
    absent: dict[str, str] = {}
    present = []
    for entry in lookup(list(implementations or DEFAULTS[device])):
        reason = entry.obstacle(torch.device(device))
        if reason is None and quick and entry.compiles:
            reason = "must compile, and --quick does not wait"
        if reason is not None and implementations is not None and entry.name in OURS:
            raise ValueError(f"{entry.name} cannot run here: {reason}")
        if reason is None:
            present.append(entry)
        else:
            absent[entry.name] = reason
    if not present:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
        raise ValueError(f"nothing is left to time ({reasons})")
    points = points or ((1, 4, 16) if quick else (1, 2, 4, 8, 16, 32, 64))
    residues = residues or ((64, 128) if quick else (256,))
    cases = [
        Case(direction, n, heads, p)
        for n in dict.fromkeys(residues)
        for p in dict.fromkeys(points)
        for direction in (DIRECTIONS if backward else DIRECTIONS[:1])
    ]
    cases.sort(key=lambda case: (case.pair_points, case.backward))
    for case in cases:
        sizes = f"--residues {case.residues} --heads {case.heads} --points {case.points}"
        check_room(f"the inputs of {sizes}", case.input_bytes)
    repeats = repeats or (7 if quick else 21)
    threads = threads or torch.get_num_threads()
    return Plan(torch.device(device), present, cases, absent, repeats, threads, seed, quick, memory)


def run(
    plan: Plan,
    command: str = "iga bench",
    *,
    on_progress: Progress | None = None,
    seconds: Clock | None = None,
    limit: Limit | None = None,
) -> Bench:
    """The document of a run. `seconds` and `limit` are for tests: a clock, and a limit of the machine."""
    with threads(plan.threads):
        return _run(plan, command, on_progress or (lambda *step: None), seconds or clock(plan.device), limit)


def _run(plan: Plan, command: str, report: Progress, seconds: Clock, limit: Limit | None) -> Bench:
    started = time.perf_counter()
    report("machine's limit", 0, 1)
    if limit is None and (plan.device.type == "cuda" or importlib.util.find_spec("numba") is not None):
        limit = measure_limit(plan.device)
    report("A/A", 0, 1)
    gathered = _Gathered()
    noise = _noise(plan, seconds)
    for done, case in enumerate(plan.cases):
        what = f"N={case.residues} H={case.heads} P={case.points} {case.direction}"
        report(what, done, len(plan.cases))
        left = QUICK_SECONDS - (time.perf_counter() - started) if plan.quick else math.inf
        _time_case(plan, case, seconds, limit, left, gathered)
        report(what, done + 1, len(plan.cases))
    if plan.memory:
        report("peak memory", 0, 1)
        _add_memory(plan, gathered.rows)
    return {
        "schema": SCHEMA,
        "document": "bench",
        "command": command,
        "exit_code": int(any(row["median_ms"] is None for row in gathered.rows)),
        "environment": {
            **machine(),
            "operations_per_pairpoint": OPERATIONS,
            "device": torch.cuda.get_device_name(plan.device) if plan.device.type == "cuda" else "cpu",
            "threads": plan.threads,
            "seed": plan.seed,
            "repeats": plan.repeats,
            "limit": None if limit is None else limit.described(),
            "absent": plan.absent,
            "left_out": gathered.left_out,
        },
        "implementations": {entry.name: entry.what for entry in plan.implementations},
        "noise": noise,
        "rows": gathered.rows,
        "ratios": gathered.ratios,
        "exponents": fits(gathered.rows),
        "baseline": None,
    }


def _time_case(plan: Plan, case: Case, seconds: Clock, limit: Limit | None, left: float, gathered: _Gathered) -> None:
    if any(entry.compiles for entry in plan.implementations):
        torch.compiler.reset()  # compiled code is made for one size, and torch keeps a few sizes only
    problem = make_problem(case, seed=plan.seed, device=plan.device)
    rows = sampled_rows(case, _GATE_PAIR_POINTS[plan.quick])
    cotangent = cotangents(problem, rows, plan.seed) if case.backward else None
    yardsticks: dict[str, Yardstick] = {}
    calls: dict[str, Callable[[], object]] = {}
    verdicts: dict[str, Verdict] = {}
    for entry in plan.implementations:
        reason = _reason_to_leave_out(entry, case, plan.device, left)
        if reason is None:
            if entry.function not in yardsticks:
                yardsticks[entry.function] = Yardstick(problem, entry.function, rows, cotangent)
            try:
                call = step(entry.build(case), problem, cotangent)
                verdict = yardsticks[entry.function].judge(call())
            except RuntimeError as error:
                # Compilers and allocators of others; an error of ours is a bug and keeps its trace.
                if entry.name in OURS and not isinstance(error, torch.OutOfMemoryError):
                    raise
                reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        if reason is not None:
            gathered.left_out.append({"implementation": entry.name, **case.size, "reason": reason})
            continue
        verdicts[entry.name] = verdict
        if verdict.passed:
            calls[entry.name] = call
    samples = interleaved(calls, plan.repeats, seconds, limit=min(_SPENT_PER_CASE, left / 2)) if calls else {}
    for name, verdict in verdicts.items():
        gathered.rows.append(_row(name, case, verdict, samples.get(name), limit))
    gathered.ratios += _ratios(case, samples)
    calls.clear()
    gc.collect()


def _reason_to_leave_out(entry: Implementation, case: Case, device: torch.device, left: float) -> str | None:
    if case.backward and device.type not in entry.backward:
        return "forward only"
    most = entry.most_points.get(device.type)
    if most is not None and case.points > most:
        return f"takes minutes to compile beyond P = {most}"
    if left <= 0:
        return "no time left"
    needed, there = entry.megabytes(case), available_megabytes(device)
    if needed > 0.8 * there:
        return f"would need about {needed / 1e3:.3g} GB, {there / 1e3:.3g} GB are free"
    return None


def _noise(plan: Plan, seconds: Clock) -> Noise:
    """A/A: the first implementation against itself, in the case of middling size that it can run."""
    entry = plan.implementations[0]
    forward = [case for case in plan.cases if not case.backward] or plan.cases
    case = forward[len(forward) // 2]
    if _reason_to_leave_out(entry, case, plan.device, math.inf) is not None:
        case = forward[0]
    problem = make_problem(case, seed=plan.seed, device=plan.device)
    call = step(entry.build(case), problem, None)
    samples = interleaved({"first": call, "second": call}, _NOISE_REPEATS, seconds, limit=_SPENT_PER_CASE / 4)
    found = ratio(samples["first"], samples["second"])
    both = samples["first"] + samples["second"]
    middle = median(both).value
    return {
        "implementation": entry.name,
        **case.size,
        "repeats": len(samples["first"]),
        "ratio": found.value,
        "interval": found.range,
        "deviation": median([abs(x / middle - 1.0) for x in both]).value,
    }


def _row(name: str, case: Case, verdict: Verdict, samples: list[float] | None, limit: Limit | None) -> Timing:
    """One row; what failed its gate, or was not timed, has nulls in place of times."""
    row: Timing = {
        "implementation": name,
        **case.size,
        "median_ms": None,
        "interval_ms": None,
        "mpairpoints_per_s": None,
        "peak_mb": None,
        "share_of_limit": None,
        "error": verdict.error if math.isfinite(verdict.error) else None,
        "error_budget": verdict.budget,
    }
    if samples:
        found = median(samples)
        rate = case.pair_points / found.value
        row["median_ms"], row["interval_ms"] = 1e3 * found.value, [1e3 * x for x in found.range]
        row["mpairpoints_per_s"] = rate / 1e6
        # The operations are those of Gaussian overlaps: IPA's distance has none of them.
        row["share_of_limit"] = None if limit is None or name == "ipa_sdpa" else limit.share(rate, case.direction)
    return row


def _ratios(case: Case, samples: dict[str, list[float]]) -> list[Ratio]:
    """Time of every other implementation over that of the first that was timed."""
    if not samples:
        return []
    first, *others = samples
    found = {name: ratio(samples[name], samples[first]) for name in others}
    return [
        {"of": name, "to": first, "median": one.value, "interval": one.range, **case.size}
        for name, one in found.items()
    ]


def _add_memory(plan: Plan, rows: list[Timing]) -> None:
    """Peaks of the rows that were timed. On a CPU each implementation has a child process of its own."""
    for entry in plan.implementations:
        own = [row for row in rows if row["implementation"] == entry.name and row["median_ms"] is not None]
        cases = [Case(row["direction"], row["residues"], row["heads"], row["points"]) for row in own]
        if plan.device.type == "cuda":
            found = [peak_megabytes(entry.name, case, seed=plan.seed, device=plan.device) for case in cases]
        else:
            found = peaks_of_child(entry.name, cases, threads=plan.threads, seed=plan.seed) if cases else []
        for row, peak in zip(own, found, strict=True):
            row["peak_mb"] = peak


def fits(rows: list[Timing]) -> Exponents:
    """Exponents of the medians in P at fixed N, and in N at fixed P, wherever two sizes or more were timed."""
    made: dict[str, list[Any]] = {"points": [], "residues": []}
    timed: list[Any] = [row for row in rows if row["median_ms"] is not None]
    for along, fixed in (("points", "residues"), ("residues", "points")):
        groups: dict[tuple[Any, ...], list[Any]] = {}
        for row in timed:
            key = (row["implementation"], row["direction"], row["heads"], row[fixed])
            groups.setdefault(key, []).append(row)
        for (name, direction, heads, at), group in groups.items():
            sizes = [row[along] for row in group]
            if len(set(sizes)) < 2:
                continue
            found = exponent(sizes, [row["median_ms"] for row in group])
            fit = {"implementation": name, "direction": direction, "heads": heads, fixed: at, "over": sorted(sizes)}
            made[along].append(
                fit | {"exponent": found.value, "interval": None if found.interval is None else found.range}
            )
    return {"points": made["points"], "residues": made["residues"]}
