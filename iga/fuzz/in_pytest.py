"""A search as a test: `pytest --iga-target my.py:f --iga-fuzz 60s` has one item a target, failing with what breaks it.

One item a target, and not one a check, since a search is of all checks at once: they share its pool and its time, and
an item is what pytest-xdist hands to one worker. The target runs in children alone, each a fresh interpreter: a session
of tests has threads, patches and settings of its own, which neither a search nor its replay by `iga fuzz` should have.
"""

import hashlib
import math
import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from iga.fuzz.campaign import Campaign, Plan, campaign_folder
from iga.fuzz.folder import Folder, new_record
from iga.fuzz.messages import LOADING, TO, Lost
from iga.fuzz.replay import cases_under, replayed
from iga.fuzz.result import document
from iga.report.documents import Fuzz
from iga.testing.gate.watched import Ending, Watched, ready_among

__all__ = ["Broken", "SearchCollector", "SearchItem", "folder_of", "planned", "searched"]

Fact = dict[str, Any]

LIMIT = 120.0  # seconds in which a target must give a sign of life, as `iga fuzz --timeout` has it


class Broken(AssertionError):
    """A search has found something, or could not be made; the words are the failure."""


def planned(target: str, kind: str | None, seed: int, structures: list[str] | None) -> Fact:
    """What a child says of the target: its kind, its checks, those it is expected to break. Empty where the child ended
    or hung: the search says how. Raises ValueError, one line, for misuse."""
    options = {"kind": kind, "seed": seed, "structures": structures}
    request = {"serve": "iga.fuzz.worker:planning", "target": target, "options": options}
    found: Fact = {}

    def take(message: Fact) -> bool:
        match message:
            case {"misuse": str(words)}:
                raise Lost(words)
            case {"plan": dict(facts)}:
                found.update(facts)
        return False

    watched = Watched(request, fork=False, allowed=LIMIT + LOADING, to=TO)
    ended: Ending | None = None
    try:
        while ended is None and not found:
            ended = watched.look(ready_among([watched]), take)
    finally:
        watched.close()
    return found


@dataclass
class Searched:
    """What became of one target: the failures in words, and a summary in a line."""

    failures: list[str] = field(default_factory=list)
    summary: str = ""
    interrupted: bool = False


def searched(
    target: str, kind: str, seed: int, structures: list[str] | None, facts: Fact, seconds: float, place: Path
) -> Searched:
    """Judge what is known in the folder `place` again, then search for `seconds` from where the last search ended.

    facts  of `planned`. Raises ValueError for a folder of another search, or a target that no longer loads; OSError.
    """
    expected = facts.get("expected", {})
    only = [name for name in facts["checks"] if name not in expected] if expected else None
    options = {"kind": kind, "seed": seed, "only": only, "structures": structures}
    plan = Plan(target, options, seconds, math.inf, (0,), 1, False, LIMIT)
    with campaign_folder(place, plan) as folder:
        known = folder.load(0, 1) or new_record()
        plan = Plan(target, options, known["seconds"] + seconds, math.inf, (0,), 1, False, LIMIT)
        done = Searched([_case(one) for one in _others(folder, known, plan) if one["check"] not in expected])
        campaign = Campaign(plan, folder, fork=False)
        try:
            campaign.run()
        except KeyboardInterrupt:  # what there is, is said before the session ends
            done.interrupted = True
    made = document(campaign, "pytest")
    before = known["findings"]
    done.failures += [_finding(one, one in before) for one in made["findings"] if one["check"] not in expected]
    waiting = [one for one in made["doubtful"] if one["verdict"] == "not judged"]
    done.failures += [f"{one['check']} is suspected: {one['where']}; the next run judges it first" for one in waiting]
    new = made["examples"] - known["counts"]["examples"]
    if not done.failures and not done.interrupted:
        if not new:
            words = f"{seconds:.3g} s were over before the first round was; give --iga-fuzz more"
            done.failures.append(f"nothing was searched: {words}")
        elif not made["worst"]:
            done.failures.append("; ".join(["nothing was judged", *made["blind"]]))
    done.summary = _summary(made, new)
    return done


def _others(folder: Folder, known: Fact, plan: Plan) -> list[Fact]:
    """Cases in the folder that its search did not write, judged: those that do not hold."""
    own = {Path(one["inputs"]) / "case.json" for one in known["findings"] if one["inputs"]}
    cases = [path for path in cases_under(folder.path / "found") if path not in own]
    found = replayed(plan.target, plan.options | {"only": None}, cases, plan.limit, fork=False)
    return [one for one in found if one["verdict"] != "fixed"]


def _case(one: Fact) -> str:
    said = ": ".join(one[key] for key in ("check", "where") if one[key])
    return f"a case is {one['verdict']}: {said}\n  inputs: {near(Path(one['inputs']))}"


def _finding(one: Any, known: bool) -> str:
    """A finding in some lines: the numbers, where, the pair itself, and where it lies."""
    value, limit = ("not finite" if one[key] is None else f"{one[key]:.6g}" for key in ("value", "limit"))
    again = ", still" if known else ""
    if one["unit"] == "the process":
        lines = [f"{one['check']} is broken{again}"]
    else:
        lines = [f"{one['check']} is broken{again}: value {value}, limit {limit} ({one['unit']})"]
    lines += [f"  at {one['where']}"] + [f"  {part}" for part in [one["note"]] if part]
    if not one["inputs"]:
        words = "  no inputs are known of it" + ("; remove the folder to forget it" if known else "")
        return "\n".join([*lines, words])
    place = Path(one["inputs"])
    example = place / "example.txt"
    if example.exists():
        text = example.read_text(encoding="utf-8")
        lines += [f"  {line}" for line in text[text.find("@example") :].splitlines()]
    return "\n".join([*lines, f"  inputs: {near(place)}", f"  shown by: python {near(place / 'reproduce.py')}"])


def _summary(made: Fuzz, new: int) -> str:
    met = f"met: {made['cells']} of {made['of_cells']}"
    if made["kind"] == "layer":
        return f"{new:,} calls in this run, {made['examples']:,} in all; sizes (N, P, H, channels, samples) {met}"
    sides = sum((one["true"] > 0) + (one["false"] > 0) for one in made["sites"])
    return (
        f"{new:,} pairs in this run, {made['examples']:,} in all; sides of branches taken: {sides} of "
        f"{2 * len(made['sites'])}; cells of κ × angle × distance {met}"
    )


def near(path: Path) -> str:
    """The path as one types it here."""
    here = Path.cwd()
    return os.fspath(path.relative_to(here) if path.is_relative_to(here) else path)


def folder_of(base: Path, target: str) -> Path:
    """The folder of a target under `base`: a name that people and every file system can read, and no other target's."""
    mark = hashlib.sha256(target.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return base / f"{re.sub(r'[^A-Za-z0-9._]+', '-', target).strip('-.')[-60:]}-{mark}"


class SearchCollector(pytest.Collector):
    """One target, whose name it has, so that -k finds it."""

    def __init__(self, *, search: Fact, **node: Any) -> None:
        super().__init__(**node)
        self.search = search

    def collect(self) -> "list[SearchItem]":
        return [SearchItem.from_parent(self, name="fuzz", target=self.name, **self.search)]


class SearchItem(pytest.Item):
    """The search of one target: passes if nothing was found."""

    def __init__(self, *, target: str, facts: Fact, seconds: float, base: Path, seed: int, **node: Any) -> None:
        super().__init__(**node)
        self.target, self.facts, self.seconds, self.base, self.seed = target, facts, seconds, base, seed

    @property
    def reason(self) -> str | None:
        """Why it is not searched."""
        if self.facts and set(self.facts["checks"]) <= set(self.facts["expected"]):
            return "each of its checks is expected to be broken"
        return None

    def runtest(self) -> None:
        if self.reason is not None:
            pytest.skip(self.reason)
        # those that were deselected or are skipped take nothing of it
        sharing = [one for one in self.session.items if isinstance(one, SearchItem) and one.reason is None]
        share, place = self.seconds / max(len(sharing), 1), folder_of(self.base, self.target)
        try:
            kind = self.facts.get("kind", "overlap")
            structures = self.config.option.iga_structures
            done = searched(self.target, kind, self.seed, structures, self.facts, share, place)
        except (ValueError, OSError) as error:
            raise Broken(f"{self.target} was not searched: {error}") from error
        self.add_report_section("call", "iga fuzz", done.summary)
        if done.interrupted:
            self.session.shouldstop = "interrupted by the keyboard"
        if done.failures:
            words = ["iga", "fuzz", self.target, "--kind", kind]
            heads = ", ".join(dict.fromkeys(re.split("[:,\n]", one)[0] for one in done.failures))
            lines = [f"{self.target}: {heads}", *done.failures, f"folder: {near(place)}"]
            if cases_under(place / "found"):
                lines.append(f"replay: {shlex.join([*words, '--replay', near(place)])}")
            else:  # what ended its process kept no inputs: the same search meets it again
                lines.append(f"search: {shlex.join([*words, '--workers', '1', '--seed', str(self.seed)])}")
            raise Broken("\n".join(lines))
        if done.interrupted:
            raise KeyboardInterrupt

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *args: Any) -> Any:
        """What was found alone: the search's own lines tell a user nothing. Other errors keep their trace."""
        if isinstance(excinfo.value, Broken):
            return str(excinfo.value)
        return super().repr_failure(excinfo, *args)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        return self.path, None, f"search of {self.target}"
