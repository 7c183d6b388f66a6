"""The matrix fault × check: what each check sees, the smallest size that it detects, and no alarm on clean targets."""

import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import Any

from iga._runtime import Progress, environment
from iga.report.documents import Faults
from iga.report.schema import SCHEMA
from iga.testing.check import Check
from iga.testing.contract import check_seed, the_profile
from iga.testing.faults import FAULTS, Fault
from iga.testing.faults.clean import CLEAN, CLOSED
from iga.testing.faults.sample import kept, sampled
from iga.testing.faults.subjects import CHECKS, JUDGES, LAYERS, applies, clean_subject, looks_at, run_checks

__all__ = ["SEEDS", "Matrix", "Row", "examine", "measure_matrix"]

# Seeds of the clean targets, by profile.
SEEDS = {"fast": 10, "ci": 20, "nightly": 200}


@dataclass(frozen=True)
class Row:
    """One fault: the checks that saw it, and for each expected one the smallest of its sizes that it still sees."""

    bench: str
    name: str
    kind: str
    size: float
    caught_by: tuple[str, ...]
    expected: tuple[str, ...]
    smallest: dict[str, float]
    not_run: tuple[str, ...] = ()
    region: str = ""
    missed: str = ""


@dataclass
class Matrix:
    """All rows, and false alarms as (target, seed, check). `exit_code` is 0 if every fault is caught by all the checks
    that are expected to, every check catches one, and the clean targets raise no alarm."""

    rows: list[Row] = field(default_factory=list)
    false_alarms: list[tuple[str, int, str]] = field(default_factory=list)
    clean_runs: int = 0
    catalogue: int = 0
    profile: str = "ci"
    seed: int = 0
    seconds: float = 0.0

    @property
    def missed(self) -> list[Row]:
        """Faults that an expected check did not see."""
        return [row for row in self.rows if set(row.expected) - set(row.caught_by)]

    @property
    def idle(self) -> list[tuple[str, str]]:
        """(bench, check) of checks that caught nothing."""
        return [(b, c) for b, checks in CHECKS.items() for c in checks if not any(self._catching(b, c))]

    @property
    def without_fault_of_their_own(self) -> list[tuple[str, str]]:
        """(bench, check) of checks whose every fault another check caught too: candidates for a merger."""
        return [(b, c) for b, checks in CHECKS.items() for c in checks if not self.alone(b, c)]

    def alone(self, bench: str, name: str) -> list[str]:
        """Faults that only this check caught."""
        return [row.name for row in self.rows if row.bench == bench and row.caught_by == (name,)]

    def smallest(self, bench: str, name: str) -> tuple[float, str] | None:
        """The smallest size that the check detected, and of which fault."""
        found = [(row.smallest[name], row.name) for row in self.rows if row.bench == bench and name in row.smallest]
        return min(found, default=None)

    @property
    def exit_code(self) -> int:
        return 1 if self.missed or self.idle or self.false_alarms or not self.clean_runs else 0

    def document(self, command: str) -> Faults:
        """The document of `iga faults`; smallest_detected is null for a check whose faults have no size."""
        found = {(bench, name): self.smallest(bench, name) for bench, checks in CHECKS.items() for name in checks}
        return {
            "schema": SCHEMA,
            "document": "faults",
            "command": command,
            "exit_code": self.exit_code,
            "seconds": round(self.seconds, 1),
            "environment": environment(self.seed),
            "profile": self.profile,
            "catalogue": max(self.catalogue, len(self.rows)),
            "faults": [
                {
                    "name": row.name,
                    "bench": row.bench,
                    "kind": row.kind,
                    "region": row.region,
                    "missed": row.missed,
                    "size": row.size,
                    "caught_by": list(row.caught_by),
                    "expected": list(row.expected),
                    "not_run": list(row.not_run),
                }
                for row in self.rows
            ],
            "false_alarms": [{"target": t, "seed": s, "invariant": name} for t, s, name in self.false_alarms],
            "clean_runs": self.clean_runs,
            "invariants": [
                {
                    "name": name,
                    "bench": bench,
                    "smallest_detected": None if smallest is None else smallest[0],
                    "of_fault": None if smallest is None else smallest[1],
                    "alone": self.alone(bench, name),
                }
                for (bench, name), smallest in found.items()
            ],
        }

    def _catching(self, bench: str, name: str) -> list[Row]:
        return [row for row in self.rows if row.bench == bench and name in row.caught_by]


def measure_matrix(
    *, profile: str = "fast", seed: int = 0, workers: int | None = None, on_progress: Progress | None = None
) -> Matrix:
    """Plant faults, run every check of their bench; run all checks on the clean targets over the profile's seeds.

    "fast" plants a sample of the catalogue (`sample`), the other profiles all of it. Of the sample those that are drawn
    are shown to the checks that have to see them. Of right targets one layer, by the seed, sees its checks, and one
    overlap the checks that cost most: the faults that one check alone sees show as well that the others hold.
    `workers` processes at once (None: one a core, four at most). Raises ValueError for an unknown profile.
    """
    profile = the_profile(profile).name
    check_seed(seed)
    started = time.perf_counter()
    report = on_progress or (lambda what, done, total: None)
    chosen = sampled(seed) if profile == "fast" else {bench: list(some) for bench, some in FAULTS.items()}
    faults = [
        (bench, index)
        for bench in ("layer", "overlap", "frames", "diagnostics")
        for index, fault in enumerate(FAULTS[bench])
        if fault in chosen[bench]
    ]
    seeds = range(seed, seed + SEEDS[profile])

    def turn(names: Iterable[str]) -> str:
        return (rows := list(names))[seed % len(rows)]

    clean: list[tuple[str, str, list[int], int, bool]] = [
        ("layer", name, [one], seed, True)
        for name, share in LAYERS.items()
        if profile != "fast" or name == turn(LAYERS)
        for one in seeds[::share]
    ]
    others = [name for name in CLEAN if name != CLOSED]  # that one is what faults are planted in
    clean += [("overlap", name, list(seeds), seed, profile != "fast" or name == turn(others)) for name in CLEAN]
    clean += [(bench, bench, list(seeds), seed, True) for bench in ("frames", "diagnostics")]
    drawn = [(bench, fault) for bench, some in chosen.items() for fault in some if fault not in kept(bench)]
    matrix = Matrix(seed=seed, profile=profile, catalogue=sum(len(some) for some in FAULTS.values()))
    rows: dict[tuple[str, int], Row] = {}
    with _workers(workers or min(os.cpu_count() or 1, 4)) as pool:
        with _deaf():  # a worker starts where its first task is given
            # long tasks first, so that the last one to end is a short one
            asked: dict[Future[Any], tuple[str, Any]] = {pool.submit(_alarms, *task): ("clean", task) for task in clean}
            for bench, index in faults:
                short = profile == "fast" and (bench, FAULTS[bench][index]) in drawn
                asked[pool.submit(_row, bench, index, seed, short)] = ("fault", (bench, index))
        for done, future in enumerate(as_completed(asked), start=1):
            what, key = asked[future]
            if what == "fault":
                rows[key] = future.result()
            else:
                matrix.false_alarms += future.result()
                matrix.clean_runs += len(key[2])
            report("faults and clean targets", done, len(asked))
    order = {bench: place for place, bench in enumerate(FAULTS)}
    matrix.rows = [rows[key] for key in sorted(rows, key=lambda key: (order[key[0]], key[1]))]
    matrix.false_alarms.sort()
    matrix.seconds = time.perf_counter() - started
    return matrix


@contextmanager
def _workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that ends with the block: where an error or an interrupt ends it, at once."""
    pool = ProcessPoolExecutor(count, get_context("spawn"))
    try:
        yield pool
    except BaseException:
        for process in list((pool._processes or {}).values()):  # the pool itself would wait for what they have begun
            process.kill()
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that start meanwhile never hear of a Ctrl-C, which a terminal sends to all: they end from here."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _row(bench: str, index: int, seed: int, short: bool) -> Row:
    """Runs in a process of its own. `short`: by the checks that have to see it."""
    fault = FAULTS[bench][index]
    row = examine(fault, bench, [one for one in JUDGES[bench] if not short or one.name in fault.expected], seed)
    others = [one.name for one in JUDGES[bench] if short and one.name not in fault.expected]
    return replace(row, not_run=(*row.not_run, *others))


def examine(fault: Fault, bench: str, checks: Sequence[Check], seed: int = 0) -> Row:
    """Everything about one fault, planted on the bench and looked for by the checks."""
    clean = clean_subject(bench)
    planted = fault.planted(clean)
    run = [check for check in checks if looks_at(check, fault, planted)]
    caught = _broken(bench, planted, seed, run)
    sized = [check for check in run if fault.sizes and check.name in fault.expected and check.name in caught]
    smallest = {check.name: _smallest(fault, bench, clean, check, seed) for check in sized}
    left_out = tuple(check.name for check in checks if check not in run)
    facts = {"region": fault.region, "missed": fault.missed}
    return Row(bench, fault.name, fault.kind, fault.size, caught, fault.expected, smallest, left_out, **facts)


def _smallest(fault: Fault, bench: str, clean: Any, check: Check, seed: int) -> float:
    """The last of the descending sizes that is still seen, by halving: what is seen at a size is seen above it."""
    known = fault.size
    low, high = 0, len(fault.sizes)  # sizes[:low] are seen, sizes[high:] are not
    while low < high:
        middle = (low + high) // 2
        if _broken(bench, fault.planted(clean, fault.sizes[middle]), seed, [check]):
            known, low = min(known, fault.sizes[middle]), middle + 1
        else:
            high = middle
    return known


def _broken(bench: str, subject: Any, seed: int, checks: Sequence[Check]) -> tuple[str, ...]:
    return tuple(one.name for one in run_checks(bench, subject, checks, seed) if one.verdict != "holds")


def _alarms(bench: str, name: str, seeds: list[int], first: int, costly: bool) -> list[tuple[str, int, str]]:
    """Checks that do not hold on a clean target; runs in a process of its own.

    The `first` of all seeds sees every check, those that few seeds see if `costly`."""
    subject = clean_subject(bench, name)
    alarms = []
    for seed in seeds:
        asked = [one for one in JUDGES[bench] if (seed - first) % one.every == 0 and (costly or one.every < len(seeds))]
        checks = [one for one in asked if applies(one, subject)]
        alarms += [(name, seed, finding) for finding in _broken(bench, subject, seed, checks)]
    return alarms
