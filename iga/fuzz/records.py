"""The records of a folder of campaigns as they are read: complete, or refused in a line that names the file.

A stream is a search of its own: it is known by seed, number and count, and draws by seed · count + number, so that two
streams of one such number search the same. DIR/streams/I-of-N.json is a stream of the one campaign of a folder;
DIR/streams/seed-S/I-of-N.json is one of several, joined.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from iga.fuzz.folder import SCHEMA
from iga.fuzz.packed import unpacked
from iga.report.found import Counterexample
from iga.report.schema import flaw

__all__ = ["Joined", "StreamId", "at_rest", "cells_met", "file_of", "flaw_of", "read_folder", "waiting_in"]

Fact = dict[str, Any]


class _Counts(TypedDict):
    examples: int
    pair_points: NotRequired[int]
    rounds: dict[str, int]
    engines: dict[str, int]
    worst: dict[str, float | None]


class _Covered(TypedDict):
    sides: dict[str, Annotated[list[int], 2]]
    cells: int
    of_cells: int
    blind: list[str]


class _Waiting(TypedDict):
    check: str
    where: str
    engine: str


class _Record(TypedDict):
    schema: int
    counts: _Counts
    next: int
    seconds: float
    found: list[str]
    findings: list[Counterexample]
    waiting: list[_Waiting]
    covered: _Covered | None


@dataclass(frozen=True, order=True)
class StreamId:
    """Stream `index` of the `count` of a campaign with `seed`."""

    seed: int
    count: int
    index: int

    @property
    def draws(self) -> int:
        """What seeds its generator: streams of one such number are one search."""
        return self.seed * self.count + self.index

    def __str__(self) -> str:
        return f"stream {self.index}/{self.count} of seed {self.seed}"


@dataclass
class Joined:
    """What a folder holds. facts: those of its campaign.json, but for seed and count, which each stream has."""

    path: Path
    facts: Fact
    records: dict[StreamId, Fact]


@contextmanager
def at_rest(path: Path) -> Iterator[None]:
    """While no campaign runs in the folder, and none begins. Raises ValueError, one line, where one runs."""
    try:
        lock = os.open(path / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # a copy
        yield
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{path}: a campaign is running there; end it first") from None
        yield
    finally:
        os.close(lock)


def read_folder(path: Path) -> Joined:
    """All records of a folder. Raises ValueError, one line, for what is no folder of campaigns, or is spoiled."""
    if not (path / "campaign.json").is_file():
        raise ValueError(f"{path} is no folder of a campaign: it has no campaign.json")
    facts = _facts(path / "campaign.json")
    several = isinstance(facts["seed"], list) or isinstance(facts["count"], list)
    files = sorted((path / "streams").glob("seed-*/*-of-*.json" if several else "*-of-*.json"))
    records = {}
    for file in files:
        if (stream := _id(file, facts)) is not None:
            records[stream] = _record(file)
    if not records:
        raise ValueError(f"{path} holds no stream: nothing was searched there")
    others = {name: value for name, value in facts.items() if name not in ("seed", "count")}
    return Joined(path, others, records)


def file_of(stream: StreamId, *, several: bool) -> Path:
    """The place of a stream's record in a folder, of one campaign or of several."""
    name = f"{stream.index}-of-{stream.count}.json"
    return Path("streams") / f"seed-{stream.seed}" / name if several else Path("streams") / name


def flaw_of(record: Any) -> str | None:
    """What is wrong with a stream's record, in words; None where nothing is."""
    wrong = flaw(record, _Record)
    if wrong is not None:
        return wrong
    if record["schema"] != SCHEMA:
        return f"schema must be {SCHEMA}, got {record['schema']!r}"
    counts, covered = record["counts"], record["covered"] or {"sides": {}, "cells": 0, "of_cells": 0}
    numbers = [counts["examples"], *counts["rounds"].values(), *counts["engines"].values(), record["next"]]
    numbers += [counts.get("pair_points", 0), record["seconds"], covered["cells"], covered["of_cells"]]
    numbers += [number for side in covered["sides"].values() for number in side]
    if min(numbers) < 0 or set(counts["rounds"]) != set(counts["engines"]):
        return "counts are of no search"
    state = record.get("state")
    if not isinstance(state, dict | None):
        return "state must be an object or null"
    try:
        _met(record)
    except ValueError as error:
        return f"state.cells: {error}"
    return None


def cells_met(records: Sequence[Fact]) -> int:
    """How many cells any of the streams met; where a state does not say which, at least as many as one met."""
    known: dict[int, Any] = {}
    for record in records:
        met = None
        try:
            met = _met(record)
        except ValueError:  # the state is a child's word
            continue
        if met is not None:
            size = len(met)
            known[size] = met if size not in known else known[size] | met
    single = (record["covered"]["cells"] for record in records if record["covered"] is not None)
    return max([*single, *(int(met.sum()) for met in known.values())], default=0)


def waiting_in(record: Fact) -> list[Fact]:
    """What is suspected in a stream and was not judged, as entries of a document."""
    return [
        {
            "check": one["check"], "verdict": "not judged", "value": None, "limit": None, "unit": "",
            "where": one["where"], "note": "the same command judges it first", "engine": one["engine"],
            "seconds": record["seconds"], "examples": record["counts"]["examples"], "inputs": "",
        }
        for one in record["waiting"]
    ]  # fmt: skip


def _met(record: Fact) -> Any:
    state = record["state"]
    return None if state is None or "cells" not in state else unpacked(state["cells"], (None,)) > 0


def _facts(file: Path) -> Fact:
    found = _json(file)
    facts = found.get("facts") if isinstance(found, dict) else None
    if not isinstance(facts, dict) or found.get("schema") != SCHEMA:
        raise ValueError(f"{file} is no record of a campaign")
    numbers = [one for name in ("seed", "count") for one in _list(facts.get(name))]
    if not isinstance(facts.get("target"), str) or not all(type(one) is int and one >= 0 for one in numbers):
        raise ValueError(f"{file} is no record of a campaign: target, seed and count must be text and whole numbers")
    return facts


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _id(file: Path, facts: Fact) -> StreamId | None:
    """The stream of a file by its name; None for what is no stream's. Raises ValueError for one of another campaign."""
    name = re.fullmatch(r"(\d+)-of-(\d+)\.json", file.name)
    folder = re.fullmatch(r"seed-(\d+)", file.parent.name)
    if name is None or (isinstance(facts["seed"], list) and folder is None):
        return None
    seed: Any = int(folder[1]) if folder is not None else facts["seed"]
    stream = StreamId(seed, int(name[2]), int(name[1]))
    if stream.index >= stream.count or stream.count not in _list(facts["count"]) or seed not in _list(facts["seed"]):
        raise ValueError(f"{file} is no stream of the campaign of {file.parents[1]}")
    return stream


def _record(file: Path) -> Fact:
    found = _json(file)
    wrong = flaw_of(found)
    if wrong is not None:
        raise ValueError(f"{file} is no record of a campaign: {wrong}")
    return found


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
