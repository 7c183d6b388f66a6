"""The gate's own side: it keeps the list of what has to be reported, and believes nothing but reports.

Two children (`gate.child`) side by side load the target and judge a share of the checks each; a third judges what their
calls did to the process. Shares are the same on every machine, and so is the report. Whatever becomes of a child, a
check that it did not report is broken, and says how the child ended; the checks that are left go on in a new child. A
target that ends the process, or does not come back, as it is loaded has a table of one row, `loads`.
"""

import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

import torch

from iga._runtime import Progress
from iga.report.measured import Curve, Histogram
from iga.report.schema import flaw
from iga.testing.checks import LAST, SIDE_BY_SIDE, TRACES, share_of
from iga.testing.contract import Contract, check_seed, the_profile
from iga.testing.gate.channel import Garbled
from iga.testing.gate.start import forkable
from iga.testing.gate.stopped import stops
from iga.testing.gate.watched import LINES, Ending, Watched, ready_among
from iga.testing.result import LOADS, PROCESS, Finding, Report

__all__ = ["LIMITS", "judge"]

# Seconds that a check may take, by profile; a check of the fast profile takes some seconds, of ci a minute at most.
LIMITS = {"fast": 120.0, "ci": 600.0, "nightly": 3600.0}
HANGS = 2  # after so many checks that did not come back, the others are not begun
ENOUGH = f"not judged, since {HANGS} checks had run out of time"
VERDICTS = ("holds", "broken", "vacuous", "not supported")


@dataclass
class _Known:
    """What the gate knows: the plan, once the target is loaded, and the findings."""

    plan: dict[str, Any] | None = None
    units: dict[str, str] = field(default_factory=dict)  # check → unit, of all that have to report
    found: dict[str, Finding] = field(default_factory=dict)
    died: set[str] = field(default_factory=set)
    records: list[dict[str, object]] = field(default_factory=list)

    def left(self, share: int) -> list[str]:
        """The checks of a share that have not reported."""
        return [name for name in self.units if name not in self.found and share_of(name) == share]

    def broken(self, names: list[str], note: str) -> None:
        for name in names:
            unit = self.units[name]
            self.found[name] = Finding(name, "broken", math.nan, math.nan, unit, 1, 0, 0, PROCESS, note)
            self.died.add(name)


@dataclass
class _Lane:
    """One share of the checks, and the child that judges it: one after another, where they die."""

    share: int
    measured: list[str] = field(default_factory=list)  # the checks that are being measured, or were last
    hangs: int = 0
    finished: bool = False  # the child said that it had reported everything
    printed: bytes = b""  # the first of what the accused printed, in the children before this one
    changed: list[Any] = field(default_factory=list)  # of each child, what its calls did to the process

    def begin(self, request: dict[str, Any], limit: float, *, fork: bool) -> None:
        self.measured = []
        self.changed.append([0, {}])
        self.limit = limit
        self.child = Watched(request | {"share": self.share}, fork=fork, allowed=limit)

    def close(self) -> None:
        self.printed += self.child.printed
        self.child.close()


class _Misuse(ValueError):
    """What the child refused as an argument."""


class _NotLoaded(Exception):
    """The target was not loaded; the words say why."""


class _Stopped(Exception):
    """The gate itself was told to end; the words say by which signal."""


class _Ended(Exception):
    """The child says itself that it will report no more; the words say why."""


def judge(
    target: str | None,
    *,
    preset: str | None = None,
    timeout: float | None = None,
    on_progress: Progress | None = None,
    on_output: Callable[[str], None] | None = None,
    on_stop: Callable[[int], None] | None = None,
    **others: Any,
) -> Report:
    """What `iga.verify(target, **others)` finds of a target that is named by its place, judged in processes of its own.

    preset       judged in place of a target
    timeout      seconds that one check may take, or loading the target; None: `LIMITS` of the profile, of a target
    on_progress  called as on_progress(what, done, total)
    on_output    called with each of the first lines that the accused printed
    on_stop      called with the number of a signal that ended the run (SIGINT, SIGTERM, …): what had not been judged by
                 then is broken, and says so

    Raises ValueError for misuse, as `iga.verify` does.
    """
    started = time.perf_counter()
    options = {"target": target, "preset": preset, "kind": None, "profile": "fast", "seed": 0, "digits": 2} | others
    check_seed(options["seed"])
    limit = LIMITS[the_profile(options["profile"]).name] if timeout is None else timeout
    limit = math.inf if target is None else limit
    report = on_progress or (lambda what, done, total: None)
    known, fork = _Known(), forkable()
    torch.broadcast_shapes((1,), (1,))  # at its first call it loads much, which no child has to do again
    wanted = {share_of(name) for name in options.get("only") or ()} or {*SIDE_BY_SIDE, LAST}
    lanes: list[_Lane] = []
    try:
        for shares in (SIDE_BY_SIDE, (LAST,)):
            if any(lane.hangs >= HANGS for lane in lanes):
                known.broken(known.left(LAST), ENOUGH)
            if not wanted.intersection(shares) or (lanes and not known.left(LAST)):
                continue
            watched = [one for lane in lanes for one in lane.changed]
            now = [_Lane(share) for share in shares if share in wanted]
            lanes += now
            with stops() as came:
                try:
                    _follow(now, known, {"options": options, "watched": watched}, limit, report, came, fork=fork)
                finally:
                    if came and on_stop is not None:
                        on_stop(came[0])
    except _Stopped as end:
        if known.plan is None:
            return _unloadable(options, str(end), time.perf_counter() - started)
        known.broken([name for name in known.units if name not in known.found], f"not judged: {end}")
    except _NotLoaded as end:
        return _unloadable(options, str(end), time.perf_counter() - started)
    finally:
        if on_output is not None:
            _tell(lanes, on_output)
    return _report(known, options, time.perf_counter() - started)


def _follow(
    lanes: list[_Lane],
    known: _Known,
    request: dict[str, Any],
    limit: float,
    report: Progress,
    came: list[signal.Signals],
    *,
    fork: bool,
) -> None:
    """Take in what the children send until each has finished. A child that will not is followed by another.

    Raises _NotLoaded where the first that ends has not even loaded the target, _Stopped where a signal came.
    """
    waiting, working = list(lanes), list[_Lane]()
    try:
        while waiting or working:
            # what does not load is loaded once
            while waiting and len(working) < (1 if known.plan is None else os.cpu_count() or 1):
                working.append(waiting.pop(0))
                working[-1].begin(request | {"done": list(known.found)}, limit, fork=fork)
            ready = ready_among([lane.child for lane in working])
            if came:
                raise _Stopped(f"the run was ended by {came[0].name}")
            for lane in list(working):
                end = _look(lane, known, ready, report)
                if end is not None and not lane.finished:
                    if known.plan is None:
                        raise _NotLoaded(end.words)
                    _blame(lane, known, end)
                    if known.left(lane.share):
                        waiting.append(lane)
                    else:
                        lane.finished = True
                elif not lane.finished:
                    continue
                working.remove(lane)
                lane.close()
    finally:
        for lane in working:
            lane.close()


def _blame(lane: _Lane, known: _Known, end: Ending) -> None:
    """What ended the child is a finding of the checks that it was measuring, or had measured last."""
    words = end.words
    lane.hangs += end.hung
    unfinished = [name for name in lane.measured if name not in known.found]
    if not lane.measured:  # it did not get so far: the target no longer loads
        known.broken(known.left(lane.share), f"not judged, since loading the target again failed: {words}")
    else:
        known.broken(unfinished or lane.measured, words)
    if lane.hangs >= HANGS:
        known.broken(known.left(lane.share), ENOUGH)


def _look(lane: _Lane, known: _Known, ready: set[int], report: Progress) -> Ending | None:
    """Take in what one child has sent; how it ended, None while it goes on."""
    try:
        return lane.child.look(ready, lambda message: _take(message, lane, known, report))
    except _Ended as end:
        return Ending(str(end))


def _tell(lanes: list[_Lane], on_output: Callable[[str], None]) -> None:
    """The first lines that the accused printed; what each of its processes said as it was loaded, once."""
    texts = [lane.printed.decode(errors="replace").splitlines() for lane in lanes]
    for line in list(dict.fromkeys(line for lines in texts for line in lines))[:LINES]:
        on_output(line)


def _take(message: dict[str, Any], lane: _Lane, known: _Known, report: Progress) -> bool:
    """One message of the child's; whether a measurement begins. Raises Garbled for what none of ours can be."""
    try:
        match message:
            case {"progress": [str(what), int(done), int(total)]}:
                report(what, done, total)
            case {"start": [*names]} if known.plan is not None and set(names) <= set(known.left(lane.share)):
                lane.measured = names
                lane.child.allowed = lane.limit * max(1, len(names))
                return True
            case {"finding": dict(row)} if row.get("name") in lane.measured and row["name"] not in known.found:
                known.found[row["name"]] = _finding(row)
            case {"watch": [int(calls), dict(changes)]}:
                lane.changed[-1] = [calls, changes]
            case {"plan": dict(plan)}:
                if known.plan is None:
                    known.plan, known.records = plan, plan["records"]
                    known.units = {str(name): str(unit) for name, unit in plan["checks"]}
            case {"end": [*records]} if known.plan is not None and not known.left(lane.share):
                lane.finished = True
                if lane.share == TRACES:
                    known.records = records
            case {"misuse": str(words)}:
                raise _Misuse(words) if known.plan is None else _Ended(words)
            case {"unloadable": str(words)} | {"ended": str(words)}:
                raise _Ended(words)
            case _:
                raise Garbled
    except _Misuse:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise Garbled from error
    return False


def _finding(row: dict[str, Any]) -> Finding:
    types = get_type_hints(Finding)
    values = {one.name: types[one.name](row[one.name]) for one in fields(Finding)}
    figures = {"curves": list[Curve], "histograms": list[Histogram]}
    if values["verdict"] not in VERDICTS or any(flaw(values[name], kind) for name, kind in figures.items()):
        raise Garbled
    return Finding(**values)


def _report(known: _Known, options: Mapping[str, Any], seconds: float) -> Report:
    plan = known.plan
    assert plan is not None
    contract = Contract(**{**plan["contract"], "points": tuple(plan["contract"]["points"])})
    return Report(
        plan["name"],
        options["profile"],
        options["seed"],
        contract,
        seconds,
        [known.found[name] for name in known.units],
        known.records,
        kind=plan["kind"],
        not_applicable=plan["skipped"],
        implementation=plan["implementation"],
        taps=plan["taps"],
        missing=plan["missing"],
        # a failure that was expected is a number over its budget, not the end of the process
        expected_broken={name: why for name, why in plan["expected_broken"].items() if name not in known.died},
    )


def _unloadable(options: Mapping[str, Any], words: str, seconds: float) -> Report:
    """A table of one row: the target was not loaded, or not called even once."""
    points, low = options.get("points"), options.get("sigma_min")
    given: dict[str, Any] = {} if points is None else {"points": tuple(points)}
    given |= {} if low is None else {"sigma_min": low}
    row = Finding(LOADS, "broken", math.nan, math.nan, "the process", 1, 0, 0, PROCESS, words)
    return Report(
        options["target"] or options["preset"],
        options["profile"],
        options["seed"],
        Contract(**given, digits=options["digits"]),
        seconds,
        [row],
        [],
        kind=options["kind"] or "unknown",
    )
