"""The gate's own side: it keeps the list of what has to be reported, and believes nothing but reports.

A child (`gate.child`) loads the target and judges it. Whatever becomes of the child, a check that it did not report is
broken, and says how the child ended; the checks that are left go on in a new child. A target that ends the process, or
does not come back, as it is loaded has a table of one row, `loads`.
"""

import math
import os
import selectors
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

import torch

from iga._runtime import Progress
from iga._text import one_line
from iga.testing.contract import Contract, check_seed, the_profile
from iga.testing.gate.channel import Garbled, Lines
from iga.testing.gate.start import Child, forkable
from iga.testing.result import LOADS, PROCESS, Finding, Report

__all__ = ["LIMITS", "OUTPUT", "judge"]

# Seconds that a check may take, by profile; a check of the fast profile takes some seconds, of ci a minute at most.
LIMITS = {"fast": 120.0, "ci": 600.0, "nightly": 3600.0}
OUTPUT = 1 << 20  # bytes that the accused may print during one check
SHOWN = 200  # characters of them in a note
LINES = 20  # of them that are shown where all went well
HANGS = 2  # after so many checks that did not come back, the others are not begun
TICK = 0.05
VERDICTS = ("holds", "broken", "vacuous", "not supported")


@dataclass
class _Known:
    """What the gate knows: the plan, once the target is loaded; the findings; the checks that are being measured."""

    plan: dict[str, Any] | None = None
    units: dict[str, str] = field(default_factory=dict)  # check → unit, of all that have to report
    found: dict[str, Finding] = field(default_factory=dict)
    died: set[str] = field(default_factory=set)
    measured: list[str] = field(default_factory=list)
    records: list[dict[str, object]] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)  # of the process, not yet judged
    finished: bool = False  # the child said that it had reported everything
    printed: bytes = b""  # the first of what the accused printed

    @property
    def left(self) -> list[str]:
        """The checks that have not reported."""
        return [name for name in self.units if name not in self.found]

    def broken(self, names: list[str], note: str) -> None:
        for name in names:
            unit = self.units[name]
            self.found[name] = Finding(name, "broken", math.nan, math.nan, unit, 1, 0, 0, PROCESS, note)
            self.died.add(name)


class _Misuse(ValueError):
    """What the child refused as an argument."""


class _Ended(Exception):
    """The child will report no more; the words say why. `hung`: the limit ran out."""

    def __init__(self, words: str, *, hung: bool = False) -> None:
        super().__init__(words)
        self.hung = hung


def judge(
    target: str,
    *,
    timeout: float | None = None,
    on_progress: Progress | None = None,
    on_output: Callable[[str], None] | None = None,
    **others: Any,
) -> Report:
    """What `iga.verify(target, **others)` finds of a target that is named by its place, judged in a process of its own.

    timeout      seconds that one check may take, or loading the target; None: `LIMITS` of the profile
    on_progress  called as on_progress(what, done, total)
    on_output    called with each of the first lines that the accused printed

    Raises ValueError for misuse, as `iga.verify` does.
    """
    started = time.perf_counter()
    options = {"target": target, "kind": None, "profile": "fast", "seed": 0, "digits": 2} | others
    check_seed(options["seed"])
    limit = LIMITS[the_profile(options["profile"]).name] if timeout is None else timeout
    report = on_progress or (lambda what, done, total: None)
    known, fork, hangs = _Known(), forkable(), 0
    torch.broadcast_shapes((1,), (1,))  # at its first call it loads much, which no child has to do again
    while not known.finished:
        known.measured = []
        child = Child({"options": options, "done": list(known.found), "changes": known.changes}, fork=fork)
        try:
            _follow(child, known, limit, report)
        except _Ended as end:
            if known.plan is None:
                return _unloadable(options, str(end), time.perf_counter() - started)
            hangs += end.hung
            _blame(known, str(end), enough=hangs >= HANGS)
            known.finished = not known.left
        finally:
            child.close()
            if known.finished and on_output is not None:
                for line in known.printed.decode(errors="replace").splitlines()[:LINES]:
                    on_output(line)
    return _report(known, options, time.perf_counter() - started)


def _blame(known: _Known, words: str, *, enough: bool) -> None:
    """What ended the child is a finding of the checks that it was measuring, or had measured last."""
    unfinished = [name for name in known.measured if name not in known.found]
    if not known.measured:  # it did not get so far: the target no longer loads
        known.broken(known.left, f"not judged, since loading the target again failed: {words}")
    else:
        known.broken(unfinished or known.measured, words)
    if enough:
        known.broken(known.left, f"not judged, since {HANGS} checks had run out of time")


def _follow(child: Child, known: _Known, limit: float, report: Progress) -> None:
    """Take in what the child sends until it has finished. Raises _Ended where it will not."""
    lines, said, spent = Lines(child.pid), _Output(), _Clock()
    with selectors.DefaultSelector() as selector:
        for descriptor in (child.messages, child.output):
            selector.register(descriptor, selectors.EVENT_READ)
        while not known.finished:
            ready = {key.fd for key, _ in selector.select(TICK)}
            gone = not ready and child.ended()  # nothing is left in the pipes
            if child.messages in ready:
                data = os.read(child.messages, 1 << 16)
                gone = gone or not data
                try:
                    for message in lines.messages(data):
                        if _take(message, known, report):
                            said, spent = _Output(), _Clock()
                except Garbled:
                    raise _Ended(f"it wrote into the pipe to the gate{said}") from None
            if child.output in ready:
                if data := os.read(child.output, 1 << 16):
                    said.add(data)
                    known.printed += data[: max(0, LINES * SHOWN - len(known.printed))]
                else:
                    selector.unregister(child.output)
            if known.finished:
                return
            if gone:
                raise _Ended(f"{child.how() if child.ended(1.0) else 'it closed the pipe to the gate'}{said}")
            if said.count > OUTPUT:
                raise _Ended(f"it printed more than {OUTPUT >> 20} MB{said}")
            allowed = limit * max(1, len(known.measured))
            if spent.seconds() > allowed:
                raise _Ended(f"it did not come back within {allowed:g} s (--timeout){said}", hung=True)


def _take(message: dict[str, Any], known: _Known, report: Progress) -> bool:
    """One message of the child's; whether a measurement begins. Raises Garbled for what none of ours can be."""
    try:
        match message:
            case {"progress": [str(what), int(done), int(total)]}:
                report(what, done, total)
            case {"start": [*names]} if known.plan is not None and set(names) <= set(known.left):
                known.measured = names
                return True
            case {"finding": dict(row)} if row.get("name") in known.measured and row["name"] not in known.found:
                known.found[row["name"]] = _finding(row)
            case {"changes": dict(changes)}:
                known.changes = changes
            case {"plan": dict(plan)}:
                if known.plan is None:
                    known.plan, known.records = plan, plan["records"]
                    known.units = {str(name): str(unit) for name, unit in plan["checks"]}
            case {"end": [*records]} if known.plan is not None and not known.left:
                known.records, known.finished = records, True
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
    if values["verdict"] not in VERDICTS:
        raise Garbled
    return Finding(**values)


class _Clock:
    """Seconds since it was made, without those in which this process was stopped or the machine asleep."""

    def __init__(self) -> None:
        self._last, self._sum = time.monotonic(), 0.0

    def seconds(self) -> float:
        now = time.monotonic()
        self._sum += min(now - self._last, 20 * TICK)
        self._last = now
        return self._sum


class _Output:
    """What the accused printed: how much, and how it began."""

    def __init__(self) -> None:
        self.count, self._first = 0, b""

    def add(self, data: bytes) -> None:
        self.count += len(data)
        self._first += data[: max(0, 8 * SHOWN - len(self._first))]

    def __str__(self) -> str:
        text = " / ".join(line.strip() for line in self._first.decode(errors="replace").splitlines() if line.strip())
        if not text:
            return ""
        return f"; it printed: {one_line(text[:SHOWN])}{'…' if len(text) > SHOWN else ''}"


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
        options["target"],
        options["profile"],
        options["seed"],
        Contract(**given, digits=options["digits"]),
        seconds,
        [row],
        [],
        kind=options["kind"] or "unknown",
    )
