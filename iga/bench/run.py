"""One run of `iga bench`: A/A first, then case after case, judged before timed; the result is schema 1.

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

from iga._runtime import check_room, threads
from iga._statistics import exponent, median, ratio
from iga.bench.gate import Verdict, Yardstick, cotangents, sampled_rows
from iga.bench.implementations import OURS, Implementation, lookup, step
from iga.bench.measure import Clock, clock, interleaved
from iga.bench.memory import available_megabytes, peak_megabytes, peaks_of_child
from iga.bench.probe import Limit, measure_limit
from iga.bench.problem import Case, make_problem

__all__ = ["DEFAULTS", "Options", "Plan", "fits", "plan", "run"]

SCHEMA = 1
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

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Options:
    """What `iga bench` was asked for; None stands for the defaults of the device or of `quick`."""

    device: str = "cpu"
    points: Sequence[int] | None = None
    residues: Sequence[int] | None = None
    heads: int = 8
    implementations: Sequence[str] | None = None
    backward: bool = False
    quick: bool = False
    threads: int | None = None
    repeats: int | None = None
    seed: int = 0
    memory: bool = True


@dataclass(frozen=True)
class Plan:
    """Options, checked: who runs, which cases, and who is left out and why."""

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

    rows: list[dict[str, Any]] = field(default_factory=list)
    ratios: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)


def plan(options: Options) -> Plan:
    """Raises ValueError for what cannot be run, in words for the command line."""
    if options.device not in DEFAULTS:
        raise ValueError(f"--device must be cpu or cuda, got {options.device!r}")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no CUDA device on this machine")
    for name in ("heads", "threads", "repeats"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    cores = os.cpu_count() or 1
    if options.threads is not None and options.threads > cores:
        raise ValueError(f"--threads must be at most {cores}, the cores of this machine, got {options.threads}")
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"--seed must be from 0 to 2³² − 1, got {options.seed}")
    device = torch.device(options.device)
    named = options.implementations is not None
    wanted = lookup(list(options.implementations or DEFAULTS[options.device]))
    absent: dict[str, str] = {}
    present = []
    for entry in wanted:
        reason = entry.obstacle(device)
        if reason is None and options.quick and entry.compiles:
            reason = "must compile, and --quick does not wait"
        if reason is not None and named and entry.name in OURS:
            raise ValueError(f"{entry.name} cannot run here: {reason}")
        if reason is None:
            present.append(entry)
        else:
            absent[entry.name] = reason
    if not present:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
        raise ValueError(f"nothing is left to time ({reasons})")
    points = options.points or ((1, 4, 16) if options.quick else (1, 2, 4, 8, 16, 32, 64))
    residues = options.residues or ((64, 128) if options.quick else (256,))
    directions = DIRECTIONS if options.backward else DIRECTIONS[:1]
    cases = [
        Case(direction, n, options.heads, p)
        for n in dict.fromkeys(residues)
        for p in dict.fromkeys(points)
        for direction in directions
    ]
    cases.sort(key=lambda case: (case.pair_points, case.backward))
    for case in cases:
        sizes = f"--residues {case.residues} --heads {case.heads} --points {case.points}"
        check_room(f"the inputs of {sizes}", case.input_bytes)
    return Plan(
        device,
        present,
        cases,
        absent,
        options.repeats or (7 if options.quick else 21),
        options.threads or torch.get_num_threads(),
        options.seed,
        options.quick,
        options.memory,
    )


def run(
    plan: Plan,
    environment: dict[str, Any],
    *,
    on_progress: Progress | None = None,
    seconds: Clock | None = None,
    limit: Limit | None = None,
) -> dict[str, Any]:
    """The result, schema 1. `seconds` and `limit` are for tests: a clock, and a limit of the machine."""
    with threads(plan.threads):
        return _run(plan, environment, on_progress or (lambda *step: None), seconds or clock(plan.device), limit)


def _run(
    plan: Plan, environment: dict[str, Any], report: Progress, seconds: Clock, limit: Limit | None
) -> dict[str, Any]:
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
    described = {
        "device": _device_name(plan.device),
        "threads": plan.threads,
        "seed": plan.seed,
        "repeats": plan.repeats,
        "limit": None
        if limit is None
        else {"goperations_per_s": limit.operations / 1e9, "how": limit.how, "scaling": limit.scaling},
        "absent": plan.absent,
        "left_out": gathered.left_out,
    }
    return {
        "schema": SCHEMA,
        "environment": environment | described,
        "noise": noise,
        "rows": gathered.rows,
        "ratios": gathered.ratios,
        "exponents": fits(gathered.rows),
    }


def _time_case(plan: Plan, case: Case, seconds: Clock, limit: Limit | None, left: float, gathered: _Gathered) -> None:
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
            gathered.left_out.append({"implementation": entry.name, **_size(case), "reason": reason})
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


def _noise(plan: Plan, seconds: Clock) -> dict[str, Any]:
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
    assert found.interval is not None
    middle = median(samples["first"] + samples["second"])
    deviations = [abs(x / middle.value - 1.0) for x in samples["first"] + samples["second"]]
    return {
        "implementation": entry.name,
        **_size(case),
        "repeats": len(samples["first"]),
        "ratio": found.value,
        "interval": list(found.interval),
        "deviation": median(deviations).value,
    }


def _row(name: str, case: Case, verdict: Verdict, samples: list[float] | None, limit: Limit | None) -> dict[str, Any]:
    """One row; what failed its gate, or was not timed, has nulls in place of times."""
    row: dict[str, Any] = {"implementation": name, **_size(case)}
    row |= dict.fromkeys(("median_ms", "interval_ms", "mpairpoints_per_s", "peak_mb", "share_of_limit"))
    if samples:
        found = median(samples)
        assert found.interval is not None
        rate = case.pair_points / found.value
        row["median_ms"] = 1e3 * found.value
        row["interval_ms"] = [1e3 * x for x in found.interval]
        row["mpairpoints_per_s"] = rate / 1e6
        # The operations are those of Gaussian overlaps: IPA's distance has none of them.
        row["share_of_limit"] = None if limit is None or name == "ipa_sdpa" else limit.share(rate, case.direction)
    finite = math.isfinite(verdict.error)
    return row | {"error": verdict.error if finite else None, "error_budget": verdict.budget}


def _ratios(case: Case, samples: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Time of every other implementation over that of the first that was timed."""
    if not samples:
        return []
    first, *others = samples
    made = []
    for name in others:
        found = ratio(samples[name], samples[first])
        assert found.interval is not None
        size = _size(case)
        made.append({"of": name, "to": first, "median": found.value, "interval": list(found.interval), **size})
    return made


def _add_memory(plan: Plan, rows: list[dict[str, Any]]) -> None:
    """Peaks of the rows that were timed. On a CPU each implementation has a child process of its own."""
    for entry in plan.implementations:
        own = [row for row in rows if row["implementation"] == entry.name and row["median_ms"] is not None]
        cases = [Case(row["direction"], row["residues"], row["heads"], row["points"]) for row in own]
        if plan.device.type == "cuda":
            for row, case in zip(own, cases, strict=True):
                row["peak_mb"] = peak_megabytes(entry.name, case, seed=plan.seed, device=plan.device)
        elif cases:
            found = peaks_of_child(entry.name, cases, threads=plan.threads, seed=plan.seed)
            for row, peak in zip(own, found, strict=True):
                row["peak_mb"] = peak


def fits(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Exponents of the medians in P at fixed N, and in N at fixed P, wherever two sizes or more were timed."""
    made: dict[str, list[dict[str, Any]]] = {"points": [], "residues": []}
    for along, fixed in (("points", "residues"), ("residues", "points")):
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in rows:
            if row["median_ms"] is not None:
                key = (row["implementation"], row["direction"], row["heads"], row[fixed])
                groups.setdefault(key, []).append(row)
        for (name, direction, heads, at), group in groups.items():
            sizes = [row[along] for row in group]
            if len(set(sizes)) < 2:
                continue
            found = exponent(sizes, [row["median_ms"] for row in group])
            interval = None if found.interval is None else list(found.interval)
            made[along].append(
                {
                    "implementation": name,
                    "direction": direction,
                    "heads": heads,
                    fixed: at,
                    "over": sorted(sizes),
                    "exponent": found.value,
                    "interval": interval,
                }
            )
    return made


def _size(case: Case) -> dict[str, Any]:
    return {"direction": case.direction, "residues": case.residues, "heads": case.heads, "points": case.points}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
