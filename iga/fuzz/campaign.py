"""A campaign: streams in children side by side, each candidate judged again in a fresh one, and what was found written.

The parent believes nothing but messages. A child that hangs, dies or prints megabytes costs its round, which is a
finding by itself; its stream goes on with the next round in a new child. Streams know nothing of one another.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from iga.fuzz.counterexample import write_counterexample
from iga.fuzz.folder import Folder, new_record
from iga.fuzz.messages import LOADING, TO, Lost, candidate_of, process_verdict
from iga.fuzz.replay import replayed
from iga.fuzz.stream import Judgement
from iga.testing.gate.start import forkable
from iga.testing.gate.watched import Watched, ready_among

__all__ = ["Campaign", "Lost", "Plan"]

ENDS = 3  # children of a stream that did not come back, after which it is given up
SHRINK = 30.0  # seconds for making a counterexample simple
QUIET = 2.0  # seconds, of which a child at work says each that it is alive
LOADED = "as it was loaded"  # where a child ended that never searched

Fact = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is searched, for how long. seconds, examples: of the whole campaign; streams: their numbers, of `count`;
    limit: seconds that the accused may take between two signs of life."""

    target: str
    options: dict[str, Any]
    seconds: float
    examples: float
    streams: tuple[int, ...]
    count: int
    keep_going: bool
    limit: float


@dataclass
class _Stream:
    """A stream as the parent knows it: its record, and the child at work on it."""

    index: int
    record: Fact
    watched: Watched | None = None
    round: int = -1
    engine: str = "loading"
    reason: str = ""  # what the child said of its own end
    heard: float = 0.0  # when it last sent something
    ends: int = 0
    given_up: bool = False


@dataclass
class _Judge:
    """A child that judges one candidate again, and what it has said."""

    watched: Watched
    stream: _Stream
    candidate: Fact
    plan: Fact = field(default_factory=dict)
    first: Fact | None = None  # the verdict on the candidate as it was met
    judged: tuple[Fact, Fact] | None = None  # that on the simplest, and the simplest
    reason: str = ""

    def take(self, message: Fact) -> bool:
        match message:
            case {"misuse": str(words)}:
                raise Lost(words)
            case {"plan": dict(facts)}:
                self.plan = facts
            case {"first": dict(verdict)}:
                self.first = verdict
            case {"judged": dict(verdict), "candidate": dict(candidate)}:
                self.judged = verdict, candidate
            case {"ended": str(words)} | {"unloadable": str(words)}:
                self.reason = f"{words}; "
        return True


@dataclass
class Campaign:
    """Run it; what was found, counted and covered is then here, whatever ended it.

    on_news  called with a line when something is found
    fork     whether children are forked from this process; None: where that is safe
    """

    plan: Plan
    folder: Folder
    on_news: Callable[[str], None] = lambda line: None
    on_tick: Callable[["Campaign"], None] = lambda campaign: None
    findings: list[Fact] = field(default_factory=list)
    doubtful: list[Fact] = field(default_factory=list)
    facts: Fact = field(default_factory=dict)
    fork: bool | None = None

    def run(self) -> None:
        """Until time, examples or checks are out. Raises Lost where the target does not load; OSError from the disk."""
        self.started, self._fork = time.monotonic(), forkable() if self.fork is None else self.fork
        self.streams = [_Stream(index, self._record(index)) for index in self.plan.streams]
        self.before = max(one.record["seconds"] for one in self.streams)
        self._again()
        self._waiting = [(one, candidate) for one in self.streams for candidate in one.record["waiting"]]
        self._judge: _Judge | None = None
        self._stopped: float | None = None  # when no more was searched
        try:
            while not self._over():
                self._start()
                self._step()
                self.on_tick(self)
        finally:
            self._say_what_waits()
            for one in [*(stream.watched for stream in self.streams), self._judge and self._judge.watched]:
                if one is not None:
                    one.close()

    def _again(self) -> None:
        """What an earlier run found is judged first: what holds by now is searched again, and no finding."""
        self._unloaded = [one for one in self.findings if one["where"].startswith(LOADED)]
        known = [one for one in self.findings if one["inputs"]]
        for one in known:  # of a campaign that was killed as it wrote one
            self.folder.settle(Path(one["inputs"]))
        cases = [path for one in known if (path := Path(one["inputs"]) / "case.json").exists()]
        plan = self.plan
        for fact in replayed(plan.target, plan.options | {"only": None}, cases, plan.limit, fork=self._fork):
            self.on_news(f"{fact['inputs']}: {'still broken' if fact['verdict'] == 'broken' else fact['verdict']}")
            if fact["verdict"] == "fixed":
                folder = str(Path(fact["inputs"]).parent)
                self.findings = [one for one in self.findings if one["inputs"] != folder]
                for stream in self.streams:
                    gone = [one["check"] for one in stream.record["findings"] if one["inputs"] == folder]
                    stream.record["findings"] = [one for one in stream.record["findings"] if one["inputs"] != folder]
                    stream.record["found"] = [name for name in stream.record["found"] if name not in gone]

    def _loaded(self, facts: Fact) -> None:
        """The search begins, and its time; what the target did to an earlier run as it was loaded is no finding now."""
        self.facts, self.started = facts, time.monotonic()
        self.findings = [one for one in self.findings if one not in self._unloaded]
        for record in (stream.record for stream in self.streams):
            record["findings"] = [one for one in record["findings"] if one not in self._unloaded]

    @property
    def seconds(self) -> float:
        """Seconds that the campaign has searched, those before it was stopped too."""
        return self.before + time.monotonic() - self.started

    @property
    def examples(self) -> int:
        return sum(one.record["counts"]["examples"] for one in self.streams)

    @property
    def found(self) -> set[str]:
        """The checks of which there is a counterexample."""
        return {one["check"] for one in self.findings if one["verdict"] == "broken"}

    @property
    def worst(self) -> dict[str, float]:
        """The largest value over limit of each check; infinite what was not finite."""
        worst: dict[str, float] = {}
        for stream in self.streams:
            for name, value in stream.record["counts"]["worst"].items():
                worst[name] = max(worst.get(name, 0.0), math.inf if value is None else value)
        return worst

    def _over(self) -> bool:
        """Whether it ends: nothing is left to search, or the time is over, and what is suspected is judged.

        Past its time nothing is searched, so nothing new is suspected, and judging has as long as one judgement may
        take: what a slow accused leaves waiting then is judged first by the same command. A quiet child has until its
        next sign of life: else one that hangs would be right for as long as the time is short.
        """
        idle = all(stream.given_up or self._left(stream) == [] for stream in self.streams)
        # before the target is loaded nothing can be said of it, so that takes what it takes
        spent = self.seconds >= self.plan.seconds or self.examples >= self.plan.examples
        spent = spent and (bool(self.facts) or self._stopped is not None)
        if not idle and not spent:
            return False
        if spent and self._stopped is None:
            self._stopped = time.monotonic()
            for stream in self.streams:
                if self._stopped - stream.heard < QUIET:
                    self._anew(stream)
        silent = spent and any(stream.watched is not None for stream in self.streams)
        if not self._waiting and self._judge is None and not silent:
            return True
        return self._past() > self.plan.limit + LOADING + SHRINK

    def _past(self) -> float:
        """Seconds since nothing is searched any more."""
        return 0.0 if self._stopped is None else time.monotonic() - self._stopped

    def _say_what_waits(self) -> None:
        """What is suspected and was not judged is said; the streams' records keep it."""
        judged = [] if self._judge is None else [self._judge.candidate]
        for candidate in [*(candidate for _, candidate in self._waiting), *judged]:
            verdict = {"verdict": "not judged", "value": None, "limit": None, "unit": "", "where": candidate["where"]}
            self.doubtful.append(self._fact(candidate, verdict | {"note": "the same command judges it first"}))

    def _left(self, stream: _Stream) -> list[str] | None:
        """The checks that a stream still searches; None before it has said which there are."""
        names = self.facts.get("checks")
        if names is None:
            return None
        found = [] if self.plan.keep_going else stream.record["found"]
        return [name for name in names if name not in found]

    def _record(self, index: int) -> Fact:
        known = self.folder.load(index, self.plan.count)
        if known is not None:
            self.findings += [one for one in known["findings"] if one not in self.findings]
            return known
        return new_record()

    def _start(self) -> None:
        """Children for the streams that have none, and one for a candidate that waits to be judged."""
        if self._judge is None and self._waiting:
            stream, candidate = self._waiting[0]
            seconds = max(1.0, SHRINK - self._past())
            request = self._request("judging", stream) | {"candidate": candidate, "seconds": seconds}
            self._judge = _Judge(self._watched(request, self.plan.limit + SHRINK + LOADING), stream, candidate)
            del self._waiting[0]
        for stream in self.streams:
            searched = self._stopped is None and not stream.given_up and self._left(stream) != []
            if stream.watched is None and searched:
                file = self.folder.stream(stream.index, self.plan.count)
                state = str(file) if stream.record["state"] is not None else ""
                request = self._request("searching", stream) | {"state": state, "begin": stream.record["next"]}
                request |= {"done": [] if self.plan.keep_going else stream.record["found"]}
                stream.engine, stream.reason = "loading", ""
                stream.watched = self._watched(request, self.plan.limit + LOADING)

    def _watched(self, request: Fact, allowed: float) -> Watched:
        return Watched(request, fork=self._fork, allowed=allowed, to=TO)

    def _request(self, what: str, stream: _Stream) -> Fact:
        facts = {"target": self.plan.target, "options": self.plan.options, "stream": [stream.index, self.plan.count]}
        return {"serve": f"iga.fuzz.worker:{what}", **facts}

    def _step(self) -> None:
        working = [stream for stream in self.streams if stream.watched is not None]
        children = [stream.watched for stream in working if stream.watched is not None]
        ready = ready_among([*children, *([] if self._judge is None else [self._judge.watched])])
        for stream, watched in zip(working, children, strict=True):
            ended = watched.look(ready, partial(self._take, stream, watched))
            if ended is not None:
                self._ended(stream, ended.words)
            elif self._stopped is not None and stream.heard > self._stopped:
                self._anew(stream)
        if self._judge is not None:
            self._look_at_judge(ready)

    def _look_at_judge(self, ready: set[int]) -> None:
        judge = self._judge
        assert judge is not None
        ended = judge.watched.look(ready, judge.take)
        if judge.plan and not self.facts:
            self._loaded(judge.plan)
        if judge.judged is None and ended is None:
            return
        judge.stream.record["waiting"].remove(judge.candidate)
        if judge.judged is not None:
            self._judged(judge.stream, *judge.judged)
        elif ended is not None and judge.first is not None and judge.first["verdict"] == "broken":
            words = f"not made simple, since meanwhile {ended.words}"  # it ended on a simpler one
            note = "; ".join(part for part in (judge.first["note"], words) if part)
            self._judged(judge.stream, judge.first | {"note": note}, judge.candidate)
        elif ended is not None:
            words = f"as it was judged again: {judge.reason}{ended.words}"
            self._judged(judge.stream, process_verdict(words), judge.candidate)
        judge.watched.close()
        self._judge = None  # and not before: of what an interrupt leaves half written it is said that it waits

    def _take(self, stream: _Stream, watched: Watched, message: Fact) -> bool:
        stream.heard = time.monotonic()
        match message:
            case {"misuse": str(words)}:
                raise Lost(words)
            case {"ended": str(words)} | {"unloadable": str(words)}:  # as it is loaded: wrong, and not misused
                stream.reason = f"{words}; "
            case {"plan": dict(facts)}:
                if not self.facts:
                    self._loaded(facts)
            case {"begin": int(number)}:
                stream.round, watched.allowed = number, self.plan.limit
            case {"engine": str(name)}:
                stream.engine = name
            case {"round": dict(found)} if self._stopped is None:
                self._counted(stream, found)
        return True

    def _counted(self, stream: _Stream, found: Fact) -> None:
        """A whole round: counted, and kept in one file with the state that it left."""
        record, counts = stream.record, stream.record["counts"]
        counts |= {name: counts.get(name, 0) + found.get(name, 0) for name in ("examples", "pair_points")}
        counts["rounds"][found["engine"]] = counts["rounds"].get(found["engine"], 0) + 1
        counts["engines"][found["engine"]] = counts["engines"].get(found["engine"], 0) + found["examples"]
        for name, value in found["worst"].items():
            known = counts["worst"].get(name, 0.0)
            counts["worst"][name] = None if value is None or known is None else max(known, value)
        record |= {"state": found["state"], "next": found["number"] + 1, "covered": found["covered"]}
        record["seconds"] = self.seconds
        stream.ends = 0
        asked = {candidate["check"] for _, candidate in self._waiting}
        asked |= set() if self._judge is None else {self._judge.candidate["check"]}
        for candidate in found["candidates"]:
            if candidate["check"] not in asked and (self.plan.keep_going or candidate["check"] not in record["found"]):
                self._waiting.append((stream, candidate))
                record["waiting"].append(candidate)
        self._save(stream)

    def _judged(self, stream: _Stream, verdict: Fact, candidate: Fact) -> None:
        fact = self._fact(candidate, verdict)
        if verdict["verdict"] != "broken":
            self.doubtful.append(fact)
            self.on_news(f"{candidate['check']}: {verdict['verdict']}: {candidate['where']}")
            self._save(stream)
            self._anew(stream)
            return
        if candidate["check"] in self.found and not self.plan.keep_going:
            stream.record["found"].append(candidate["check"])  # by another stream, earlier
            self._save(stream)
            return
        place = self.folder.place(candidate["check"])
        facts = {"target": self.plan.target, "seed": self.plan.options["seed"], **self.facts}
        facts["implementation"] = self.plan.options.get("implementation")
        numbers = {name: math.inf if verdict[name] is None else verdict[name] for name in ("value", "limit")}
        try:
            judgement = Judgement(**{**verdict, **numbers})
            notes = write_counterexample(self.folder.fresh(), candidate_of(candidate), judgement, facts)
            fact["inputs"] = str(place)
        except ValueError as error:  # too many numbers for a file
            notes = [f"not written: {error}"]
        fact["note"] = "; ".join(part for part in (fact["note"], *notes) if part)
        self._finding(stream, fact)
        if fact["inputs"]:  # once the record names it
            self.folder.settle(place)

    def _fact(self, candidate: Fact, verdict: Fact) -> Fact:
        return {
            "check": candidate["check"], **verdict, "engine": candidate["engine"], "seconds": self.seconds,
            "examples": self.examples, "inputs": "",
        }  # fmt: skip

    def _finding(self, stream: _Stream, fact: Fact) -> None:
        self.findings.append(fact)
        stream.record["findings"].append(fact)
        if fact["check"] not in stream.record["found"] and not self.plan.keep_going:
            stream.record["found"].append(fact["check"])
        self._save(stream)
        self.on_news(f"{fact['check']}: {fact['verdict']} after {fact['seconds']:.1f} s: {fact['where']}")
        if self.plan.keep_going:
            self._anew(stream)

    def _save(self, stream: _Stream) -> None:
        self.folder.save(stream.index, self.plan.count, stream.record)

    def _ended(self, stream: _Stream, words: str) -> None:
        """A child that did not come back: a finding, and the round that it was at is passed over, by one record."""
        assert stream.watched is not None
        stream.watched.close()
        stream.watched = None
        stream.ends += 1
        stream.given_up = stream.ends >= ENDS or not self.facts  # what does not load is loaded once
        where = f"round {stream.round}" if self.facts else LOADED
        stream.record["next"] = max(stream.record["next"], stream.round + 1)
        candidate = {"check": "process", "engine": stream.engine}
        fact = self._fact(candidate, process_verdict(f"{where}: {stream.reason}{words}"))
        if any(one["check"] == "process" and one["where"] == fact["where"] for one in self.findings):
            self._save(stream)
        else:
            self._finding(stream, fact)

    def _anew(self, stream: _Stream) -> None:
        """The stream's child starts again from its last state, with all the checks that are left."""
        if stream.watched is not None:
            stream.watched.close()
            stream.watched = None


def folder_facts(plan: Plan) -> Fact:
    """What a folder's campaign must have in common with one that goes on there."""
    own = {name: plan.options.get(name) for name in ("kind", "seed", "structures")}
    return {"target": plan.target, "count": plan.count, **own}


def campaign_folder(path: Path, plan: Plan) -> Folder:
    """The folder of a plan, locked; ValueError and OSError as `Folder`."""
    return Folder(path, folder_facts(plan))
