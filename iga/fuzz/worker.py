"""The child's side of a campaign: one stream, searched round by round, or one candidate, judged again and shrunk."""

import json
import math
import os
import time
from itertools import count
from pathlib import Path
from typing import Any

import torch

from iga.fuzz.layer import LayerStream
from iga.fuzz.layer_measure import SAME_LAW
from iga.fuzz.layer_streams import layer_stream, prepared_for, stated
from iga.fuzz.messages import candidate_of, document_of, finite
from iga.fuzz.overlap import OverlapStream
from iga.fuzz.pair_cases import DRAWN
from iga.fuzz.stream import Candidate, Covered, Judgement
from iga.testing.cases_file import SavedCase, read_case
from iga.testing.gate.channel import Channel
from iga.testing.latest import Call
from iga.testing.overlap.pairs import structure_pairs
from iga.testing.run import Run
from iga.testing.targets import Unloadable

__all__ = ["judging", "planning", "replaying", "searching"]

KNOWN = 1024  # pairs of the structures that a search of an overlap begins with: half its pool


def planning(channel: Channel, target: str, options: dict[str, Any]) -> None:
    """What the target is, what is asked of it, and what of that it says that it breaks, for who plans searches."""
    plan = _prepared(channel, target, options)
    if plan is not None:
        expected = dict(plan.expected_broken)
        if plan.kind == "layer":
            expected |= {name: expected[law] for name, law in SAME_LAW.items() if law in expected}
        names = list(_stream(plan, [0, 1], {}).checks)
        channel.send(plan={"kind": plan.kind, "checks": names, "expected": expected})


def searching(
    channel: Channel,
    target: str,
    options: dict[str, Any],
    stream: list[int],
    state: str,
    begin: int,
    done: list[str],
) -> None:
    """Rounds of a stream from number `begin` on, each told of before and after, until the parent has enough.

    state   a file with what the stream was after its last whole round; empty: it is new
    done    checks that are searched no more
    """
    plan = _prepared(channel, target, options)
    if plan is None:
        return
    search = _stream(plan, stream, options)
    names = list(search.checks)
    expected = 0
    if state:
        record = json.loads(Path(state).read_text(encoding="utf-8"))
        try:
            search.restore(record["state"])
            expected = record["state"]["rounds"]
        except ValueError as error:
            channel.send(misuse=f"{state}: {error}; take it away to begin anew")
            return
    if begin != expected:
        search.skip(begin)
    # not those of the state: a check that had a candidate then is searched again unless the candidate was believed
    search.checks = [name for name in names if name not in done]
    channel.send(plan=_facts(plan, search, names))
    last = [0.0]

    def alive() -> None:
        """Now and then: a slow function is not one that hangs."""
        if time.monotonic() - last[0] > 1.0:
            last[0] = time.monotonic()
            channel.send(alive=True)

    search.alive = alive
    search.chosen = lambda engine: channel.send(engine=engine)
    for number in count(begin):
        channel.send(begin=number)
        found = search.round()
        # until the parent has judged it, a check that has a candidate is not searched
        search.checks = [name for name in search.checks if name not in {one.check for one in found.candidates}]
        channel.send(
            round={
                "number": number,
                "engine": found.engine,
                "examples": found.examples,
                "pair_points": found.pair_points,
                "worst": {name: finite(value) for name, value in found.worst.items()},
                "candidates": [document_of(one) for one in found.candidates],
                "covered": _covered(search.covered()),
                "state": search.state(),
            }
        )


def judging(
    channel: Channel, target: str, options: dict[str, Any], stream: list[int], candidate: dict[str, Any], seconds: float
) -> None:
    """What becomes of a candidate in a process that has done nothing else: judged, made simple, judged again."""
    plan = _prepared(channel, target, options)
    if plan is None:
        return
    search, given = _stream(plan, stream, {}), candidate_of(candidate)
    channel.send(plan=_facts(plan, search, list(search.checks)))
    verdict = search.judge(given)
    channel.send(first=_judgement(verdict))
    if verdict.verdict == "broken":
        given = search.shrink(given, seconds)
        again = search.judge(given)
        verdict = again if again.verdict == "broken" else verdict
    channel.send(judged=_judgement(verdict), candidate=document_of(given))


def replaying(channel: Channel, target: str, options: dict[str, Any], cases: list[str]) -> None:
    """What becomes of each case's inputs, by the target's own check of the case's name."""
    plan = _prepared(channel, target, options)
    if plan is None:
        return
    channel.send(plan={"name": plan.name, "kind": plan.kind})
    search = _stream(plan, [0, 1], {})
    for path in cases:
        found = read_case(Path(path))
        channel.send(replayed={"inputs": path, **_replayed(search, found, plan.kind)})


def _replayed(search: OverlapStream | LayerStream, found: SavedCase, kind: str) -> dict[str, Any]:
    if found.words["kind"] != kind:
        return _cannot(found.words["check"], f"it is a case of a {found.words['kind']}")
    if found.of_test and isinstance(search, OverlapStream):
        return _test_case(search, found)
    return _case(search, found)


def _case(search: OverlapStream | LayerStream, found: SavedCase) -> dict[str, Any]:
    """The check of the case's name on its inputs; of inputs that a check draws itself it has the seed."""
    name = found.words["check"]
    if name not in search.checks:
        return _cannot(name, "no such check")
    layer = stated(found.words["layer"])
    if isinstance(search, OverlapStream) and not search.given(name):  # it draws them of its seed
        layer = {DRAWN: found.words["seed"]}
    call = Call(found.words["kind"], found.inputs, layer)
    judged = _judgement(search.judge(Candidate(name, call, math.inf, found.words["where"], "", "")))
    return {"check": name} | judged | {"verdict": "broken" if judged["verdict"] == "broken" else "fixed"}


def _test_case(search: OverlapStream, found: SavedCase) -> dict[str, Any]:
    """Every check that takes given pairs, on those of a test, in each dtype: the first that is broken.

    None being broken, the case is not called fixed: what the test asserts is not known here.
    """
    test = found.words["check"]
    for dtype in search.subject.dtypes:
        call = Call("overlap", {name: x.to(dtype) for name, x in found.inputs.items()}, {})
        for name in search.judged_in(dtype):
            judged = _judgement(search.judge(Candidate(name, call, math.inf, found.words["where"], "", "")))
            if judged["verdict"] == "broken":
                return {"check": f"{name}, with what {test} drew"} | judged
    return _cannot("", f"no check breaks on what {test} drew, and what it asserts is pytest's to judge: pytest {test}")


def _cannot(check: str, words: str) -> dict[str, Any]:
    numbers = {"value": None, "limit": None, "unit": ""}
    return {"check": check, "verdict": "cannot run", **numbers, "where": words, "note": ""}


def _prepared(channel: Channel, target: str, options: dict[str, Any]) -> Run | None:
    try:
        return prepared_for(target, options)
    except Unloadable as error:
        channel.send(unloadable=str(error))
    except OSError as error:
        words = f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename and error.strerror else str(error)
        channel.send(misuse=words)
    except ValueError as error:
        channel.send(misuse=str(error))
    return None


def _facts(plan: Run, search: OverlapStream | LayerStream, checks: list[str]) -> dict[str, Any]:
    """What a campaign has to know of its target."""
    return {
        "name": plan.name,
        "kind": plan.kind,
        "checks": checks,
        "sigma_range": list(search.sigma_range),
        "dtypes": [str(dtype).removeprefix("torch.") for dtype in search.subject.dtypes],
        "unsupported": list(search.subject.claims.unsupported),
        "inference_only": search.subject.claims.inference_only,
    }


def _stream(plan: Run, stream: list[int], options: dict[str, Any]) -> OverlapStream | LayerStream:
    """The stream, with options["only"] of a layer and ["structures"]; who judges one call alone asks for neither."""
    shard = stream[0], stream[1]
    if plan.kind == "layer":
        return layer_stream(plan, shard, options)
    known = []
    if options.get("structures"):
        known = [structure_pairs(plan.structures, KNOWN, torch.float64, plan.contract.sigma_min, plan.seed + shard[0])]
    return OverlapStream(
        plan.subject, checks=plan.checks, seed=plan.seed, shard=shard, digits=plan.contract.digits, known=known
    )


def _covered(one: Covered) -> dict[str, Any]:
    sides = {name: list(counts) for name, counts in one.sides.items()}
    return {"sides": sides, "cells": one.cells, "of_cells": one.of_cells, "blind": list(one.blind)}


def _judgement(one: Judgement) -> dict[str, Any]:
    return vars(one) | {"value": finite(one.value), "limit": finite(one.limit)}
