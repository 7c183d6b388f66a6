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
from iga.fuzz.folder import SCHEMA, Folder
from iga.fuzz.messages import LOADING, TO, Lost, candidate_of
from iga.fuzz.replay import replayed
from iga.fuzz.stream import Judgement
from iga.testing.gate.start import forkable
from iga.testing.gate.watched import Watched, ready_among

__all__ = ["Campaign", "Lost", "Plan"]

ENDS = 3  # children of a stream that did not come back, after which it is given up
SHRINK = 30.0  # seconds for making a counterexample simple

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
    ends: int = 0
    given_up: bool = False


@dataclass
class Campaign:
    """Run it; what was found, counted and covered is then here, whatever ended it.

    on_news  called with a line when something is found
    """

    plan: Plan
    folder: Folder
    on_news: Callable[[str], None] = lambda line: None
    on_tick: Callable[["Campaign"], None] = lambda campaign: None
    findings: list[Fact] = field(default_factory=list)
    doubtful: list[Fact] = field(default_factory=list)
    facts: Fact = field(default_factory=dict)

    def run(self) -> None:
        """Until time, examples or checks are out. Raises Lost where the target does not load; OSError from the disk."""
        self.started, self._fork = time.monotonic(), forkable()
        self.streams = [_Stream(index, self._record(index)) for index in self.plan.streams]
        self.before = max(one.record["seconds"] for one in self.streams)
        self._again()
        self._waiting = [(one, candidate) for one in self.streams for candidate in one.record["waiting"]]
        self._judge: tuple[Watched, _Stream, Fact] | None = None
        try:
            while not self._over():
                self._start()
                self._step()
                self.on_tick(self)
        finally:
            for one in [*(stream.watched for stream in self.streams), self._judge and self._judge[0]]:
                if one is not None:
                    one.close()

    def _again(self) -> None:
        """What an earlier run found is judged first: what holds by now is searched again, and no finding."""
        known = [one for one in self.findings if one["inputs"]]
        cases = [path for one in known if (path := Path(one["inputs"]) / "case.json").exists()]
        if not cases:
            return
        options = {**self.plan.options, "only": None}
        for fact in replayed(self.plan.target, options, cases, self.plan.limit):
            self.on_news(f"{fact['inputs']}: {'still broken' if fact['verdict'] == 'broken' else fact['verdict']}")
            if fact["verdict"] == "fixed":
                folder = str(Path(fact["inputs"]).parent)
                self.findings = [one for one in self.findings if one["inputs"] != folder]
                for stream in self.streams:
                    gone = [one["check"] for one in stream.record["findings"] if one["inputs"] == folder]
                    stream.record["findings"] = [one for one in stream.record["findings"] if one["inputs"] != folder]
                    stream.record["found"] = [name for name in stream.record["found"] if name not in gone]

    @property
    def seconds(self) -> float:
        """Seconds that the campaign has taken, those before it was stopped too."""
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
        if self._waiting or self._judge is not None:
            return False  # what is suspected is judged, whatever the time
        idle = all(stream.given_up or self._left(stream) == [] for stream in self.streams)
        return idle or self.seconds >= self.plan.seconds or self.examples >= self.plan.examples

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
        counts = {"examples": 0, "pair_points": 0, "rounds": {}, "engines": {}, "worst": {}}
        return {
            "schema": SCHEMA, "state": None, "counts": counts, "next": 0, "seconds": 0.0,
            "found": [], "findings": [], "waiting": [], "covered": None,
        }  # fmt: skip

    def _start(self) -> None:
        """Children for the streams that have none, and one for a candidate that waits to be judged."""
        if self._judge is None and self._waiting:
            stream, candidate = self._waiting.pop(0)
            request = self._request("judging", stream) | {"candidate": candidate, "seconds": SHRINK}
            self._judge = (self._watched(request, self.plan.limit + SHRINK + LOADING), stream, candidate)
        for stream in self.streams:
            if stream.watched is None and not stream.given_up and self._left(stream) != []:
                file = self.folder.stream(stream.index, self.plan.count)
                state = str(file) if stream.record["state"] is not None else ""
                request = self._request("searching", stream) | {"state": state, "begin": stream.record["next"]}
                request |= {"done": [] if self.plan.keep_going else stream.record["found"]}
                stream.watched = self._watched(request, self.plan.limit + LOADING)

    def _watched(self, request: Fact, allowed: float) -> Watched:
        return Watched(request, fork=self._fork, allowed=allowed, to=TO)

    def _request(self, what: str, stream: _Stream) -> Fact:
        facts = {"target": self.plan.target, "options": self.plan.options, "stream": [stream.index, self.plan.count]}
        return {"serve": f"iga.fuzz.worker:{what}", **facts}

    def _step(self) -> None:
        working = [stream for stream in self.streams if stream.watched is not None]
        children = [stream.watched for stream in working if stream.watched is not None]
        ready = ready_among([*children, *([] if self._judge is None else [self._judge[0]])])
        for stream, watched in zip(working, children, strict=True):
            ended = watched.look(ready, partial(self._take, stream, watched))
            if ended is not None:
                self._ended(stream, ended.words)
        if self._judge is not None:
            self._look_at_judge(ready)

    def _look_at_judge(self, ready: set[int]) -> None:
        assert self._judge is not None
        watched, stream, candidate = self._judge
        said: list[Fact] = []

        def take(message: Fact) -> bool:
            said.append(message)
            return True

        ended = watched.look(ready, take)
        judged = next((message for message in said if "judged" in message), None)
        if judged is None and ended is None:
            return
        self._close_judge()
        stream.record["waiting"].remove(candidate)
        if judged is not None:
            self._judged(stream, judged["judged"], judged["candidate"])
        elif ended is not None:
            words = f"as it was judged again: {ended.words}"
            self._process_finding(stream, candidate["check"], candidate["engine"], words)

    def _close_judge(self) -> None:
        assert self._judge is not None
        self._judge[0].close()
        self._judge = None

    def _take(self, stream: _Stream, watched: Watched, message: Fact) -> bool:
        match message:
            case {"misuse": str(words)} | {"unloadable": str(words)}:
                raise Lost(words)
            case {"plan": dict(facts)}:
                self.facts = self.facts or facts
            case {"begin": int(number)}:
                stream.round, watched.allowed = number, self.plan.limit
            case {"round": dict(found)}:
                self._counted(stream, found)
        return True

    def _counted(self, stream: _Stream, found: Fact) -> None:
        """A whole round: counted, and kept in one file with the state that it left."""
        record, counts = stream.record, stream.record["counts"]
        counts["examples"] += found["examples"]
        counts["pair_points"] += found["pair_points"]
        counts["rounds"][found["engine"]] = counts["rounds"].get(found["engine"], 0) + 1
        counts["engines"][found["engine"]] = counts["engines"].get(found["engine"], 0) + found["examples"]
        for name, value in found["worst"].items():
            known = counts["worst"].get(name, 0.0)
            counts["worst"][name] = None if value is None or known is None else max(known, value)
        record |= {"state": found["state"], "next": found["number"] + 1, "covered": found["covered"]}
        record["seconds"] = self.seconds
        stream.ends = 0
        asked = {candidate["check"] for _, candidate in self._waiting}
        asked |= set() if self._judge is None else {self._judge[2]["check"]}
        for candidate in found["candidates"]:
            if candidate["check"] not in asked and (self.plan.keep_going or candidate["check"] not in record["found"]):
                self._waiting.append((stream, candidate))
                record["waiting"].append(candidate)
        self.folder.save(stream.index, self.plan.count, record)

    def _judged(self, stream: _Stream, verdict: Fact, candidate: Fact) -> None:
        fact = {
            "check": candidate["check"], **verdict, "engine": candidate["engine"], "seconds": self.seconds,
            "examples": self.examples, "inputs": "",
        }  # fmt: skip
        if verdict["verdict"] != "broken":
            self.doubtful.append(fact)
            self.on_news(f"{candidate['check']}: {verdict['verdict']}: {candidate['where']}")
            self.folder.save(stream.index, self.plan.count, stream.record)
            self._anew(stream)
            return
        if candidate["check"] in self.found and not self.plan.keep_going:
            stream.record["found"].append(candidate["check"])  # by another stream, earlier
            return
        folder = self.folder.place(candidate["check"])
        facts = {
            "target": self.plan.target,
            "seed": self.plan.options["seed"],
            "sigma_max": self.facts["sigma_range"][1],
        }
        numbers = {name: math.inf if verdict[name] is None else verdict[name] for name in ("value", "limit")}
        write_counterexample(folder, candidate_of(candidate), Judgement(**{**verdict, **numbers}), facts)
        fact["inputs"] = str(folder)
        self._finding(stream, fact)

    def _finding(self, stream: _Stream, fact: Fact) -> None:
        self.findings.append(fact)
        stream.record["findings"].append(fact)
        if fact["check"] not in stream.record["found"] and not self.plan.keep_going:
            stream.record["found"].append(fact["check"])
        if stream.record["state"] is not None:
            self.folder.save(stream.index, self.plan.count, stream.record)
        self.on_news(f"{fact['check']}: {fact['verdict']} after {fact['seconds']:.1f} s: {fact['where']}")
        if self.plan.keep_going:
            self._anew(stream)

    def _ended(self, stream: _Stream, words: str) -> None:
        """A child that did not come back: a finding, and the round that it was at is passed over."""
        assert stream.watched is not None
        stream.watched.close()
        stream.watched = None
        if not self.facts:
            raise Lost(f"{self.plan.target} cannot be loaded: {words}")
        stream.ends += 1
        stream.given_up = stream.ends >= ENDS
        self._process_finding(stream, "process", "", f"round {stream.round}: {words}")
        stream.record["next"] = stream.round + 1

    def _process_finding(self, stream: _Stream, check: str, engine: str, words: str) -> None:
        fact = {
            "check": check, "verdict": "broken", "value": None, "limit": None, "unit": "the process", "where": words,
            "note": "", "engine": engine, "seconds": self.seconds, "examples": self.examples, "inputs": "",
        }  # fmt: skip
        if not any(one["check"] == check and one["where"] == words for one in self.findings):
            self._finding(stream, fact)

    def _anew(self, stream: _Stream) -> None:
        """The stream's child starts again from its last state, with all the checks that are left."""
        if stream.watched is not None:
            stream.watched.close()
            stream.watched = None


def folder_facts(plan: Plan) -> Fact:
    """What a folder's campaign must have in common with one that goes on there."""
    return {"target": plan.target, "count": plan.count, **{name: plan.options[name] for name in ("kind", "seed")}}


def campaign_folder(path: Path, plan: Plan) -> Folder:
    """The folder of a plan, locked; ValueError and OSError as `Folder`."""
    return Folder(path, folder_facts(plan))
