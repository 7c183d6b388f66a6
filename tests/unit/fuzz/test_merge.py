"""`iga fuzz merge`: each stream counted once, all findings kept, and nothing changed by misuse or a kill."""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.command import called
from iga.fuzz.findings import Findings
from iga.fuzz.folder import Folder
from iga.fuzz.merge import merge
from iga.fuzz.packed import packed
from iga.fuzz.replay import cases_in
from iga.report.documents import Fuzz
from iga.report.schema import read_as
from iga.testing.cases_file import write_case
from iga.testing.latest import Call
from iga.testing.overlap.subject import ARGUMENTS

CELLS = 20


def _case(folder: Path, number: float, check: str = "accuracy") -> None:
    """A counterexample whose inputs are `number`."""
    shapes = ((3, 3), (3,), (3,)) * 2
    inputs = {name: torch.full(shape, number) for name, shape in zip(ARGUMENTS, shapes, strict=True)}
    facts = {"check": check, "value": 2.0, "limit": 1.0, "unit": "", "where": "", "note": "", "target": "a", "seed": 0}
    write_case(folder / "case.json", Call("overlap", inputs), facts)


def _finding(out: Path, name: str, check: str = "accuracy", verdict: str = "broken", seconds: float = 1.0) -> Any:
    inputs = str(out / "found" / name) if name else ""
    numbers = {"value": 2.0, "limit": 1.0, "unit": "", "where": "round 1", "note": "", "engine": "climb"}
    return {"check": check, "verdict": verdict, **numbers, "seconds": seconds, "examples": 5, "inputs": inputs}


def _record(examples: int, cells: list[int], findings: Any = (), waiting: Any = ()) -> dict[str, Any]:
    met = torch.zeros(CELLS, dtype=torch.long)
    met[cells] = 3
    counts = {"examples": examples, "rounds": {"climb": examples}, "engines": {"climb": examples}}
    covered = {"sides": {"f.py:3": [examples, 0]}, "cells": len(cells), "of_cells": CELLS, "blind": ["numba"]}
    return {
        "schema": 1, "state": {"cells": packed(met), "rounds": examples},
        "counts": counts | {"worst": {"accuracy": examples / 10}}, "next": examples, "seconds": float(examples),
        "found": [one["check"] for one in findings], "findings": list(findings), "waiting": list(waiting),
        "covered": covered,
    }  # fmt: skip


def _campaign(path: Path, records: dict[int, Any], *, count: int = 2, seed: int = 0, target: str = "a") -> Path:
    facts = {"target": target, "count": count, "kind": "overlap", "seed": seed}
    with Folder(path, facts) as folder:
        for index, record in records.items():
            folder.save(index, count, record)
    return path


@pytest.fixture
def shards(tmp_path: Path) -> tuple[Path, Path]:
    """Two shards: one case of accuracy is of both, each has one of its own, and each ended its process once."""
    paths = tmp_path / "one", tmp_path / "two"
    for index, path in enumerate(paths):
        _case(path / "found" / "accuracy", 1.0 + index)
        _case(path / "found" / "accuracy-2", 7.0)
        names = ("accuracy", "accuracy-2")
        found = [_finding(path, name, seconds=1.0 + index) for name in names] + [_finding(path, "", "process")]
        _campaign(path, {index: _record(10 + index, [index, 5], found)})
    return paths


def _tree(*paths: Path) -> dict[str, bytes]:
    files = (file for path in paths for file in path.rglob("*") if file.is_file())
    return {str(file): file.read_bytes() for file in files}


def test_counts_add_up_and_each_finding_is_there_once(shards: tuple[Path, Path], tmp_path: Path) -> None:
    before, out = _tree(*shards), tmp_path / "deep" / "out"
    made = merge(shards, out, "")
    assert (made["examples"], made["exit_code"], made["seconds"]) == (21, 1, 11.0)
    assert made["streams"] == ["0/2", "1/2"] and "seeds" not in made
    assert made["engines"] == [{"name": "climb", "rounds": 21, "examples": 21}]
    assert made["sites"] == [{"place": "f.py:3", "true": 21, "false": 0}] and made["blind"] == ["numba"]
    assert made["cells"] == 3 and made["worst"] == [{"check": "accuracy", "worst": 1.1}]
    names = [Path(one["inputs"]).name for one in made["findings"]]
    assert sorted(names) == ["", "accuracy", "accuracy-2", "accuracy-3"]
    cases = {(Path(one["inputs"]) / "case.json").read_bytes() for one in made["findings"] if one["inputs"]}
    given = {(path / "found" / name / "case.json").read_bytes() for path in shards for name in names[:2]}
    assert cases == given and len(cases) == 3
    assert _tree(*shards) == before


def test_the_joined_shards_of_one_campaign_are_its_folder(shards: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    merge(shards, out, "")
    with Folder(out, {"target": "a", "count": 2, "kind": "overlap", "seed": 0}) as folder:
        for index, path in enumerate(shards):
            record = folder.load(index, 2)
            assert record is not None
            known = json.loads((path / "streams" / f"{index}-of-2.json").read_text(encoding="utf-8"))
            assert record["state"] == known["state"] and record["counts"] == known["counts"]


def test_what_was_joined_before_counts_once_in_any_order(shards: tuple[Path, Path], tmp_path: Path) -> None:
    said: list[str] = []
    first = merge(shards, tmp_path / "first", "")
    orders = [[tmp_path / "first", *shards], [shards[1], shards[1], tmp_path / "first"]]
    for number, folders in enumerate(orders):
        made = merge(folders, tmp_path / str(number), "", on_news=said.append)
        assert (made["examples"], len(made["findings"]), made["cells"]) == (21, len(first["findings"]), 3)
    assert len(said) == 4 and "stream 0/2 of seed 0" in said[0] and "counts once" in said[0]


def test_a_shard_that_went_on_counts_as_far_as_it_came(tmp_path: Path) -> None:
    early = _campaign(tmp_path / "early", {0: _record(3, [1])})
    late = _campaign(tmp_path / "late", {0: _record(8, [1, 2]), 1: _record(2, [1])})
    for number, folders in enumerate(([early, late], [late, early])):
        assert merge(folders, tmp_path / str(number), "")["examples"] == 10
    other = _record(5, [1])
    other["next"] = 1
    apart = _campaign(tmp_path / "apart", {0: other})
    with pytest.raises(ValueError, match="neither goes on from the other"):
        merge([early, apart], tmp_path / "out", "")


def test_seeds_are_joined_and_joined_again(tmp_path: Path) -> None:
    folders = [_campaign(tmp_path / f"s{seed}", {0: _record(5, [seed])}, seed=seed) for seed in range(3)]
    two = merge(folders[:2], tmp_path / "two", "")
    assert two.get("seeds") == [0, 1] and two["streams"] == ["0/2 of seed 0", "0/2 of seed 1"]
    three = merge([tmp_path / "two", *folders], tmp_path / "three", "")
    assert three.get("seeds") == [0, 1, 2] and (three["examples"], three["cells"]) == (15, 3)
    with pytest.raises(ValueError, match="name another folder"):  # nothing goes on where there are several
        Folder(tmp_path / "two", {"target": "a", "count": 2, "kind": "overlap", "seed": 0})


def test_what_waits_to_be_judged_is_said(tmp_path: Path) -> None:
    waiting = {"check": "accuracy", "where": "there", "engine": "climb", "inputs": {}}
    one = _campaign(tmp_path / "one", {0: _record(3, [1], waiting=[waiting])})
    made = merge([one], tmp_path / "out", "")
    assert made["exit_code"] == 1 and [x["verdict"] for x in made["doubtful"]] == ["not judged"]


def test_a_case_that_a_killed_campaign_had_not_put_in_its_place_is_kept(tmp_path: Path) -> None:
    one = _campaign(tmp_path / "one", {0: _record(3, [1], [_finding(tmp_path / "gone", "accuracy")])})
    _case(one / "new", 1.0)
    made = merge([one], tmp_path / "out", "")
    assert (Path(made["findings"][0]["inputs"]) / "case.json").read_bytes() == (one / "new/case.json").read_bytes()


def _spoil(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")


def _other(path: Path, **facts: Any) -> Path:
    return _campaign(path, {1: _record(1, [0])}, **facts)


MISUSE: dict[str, Any] = {
    "only campaigns of one target": lambda one, two: [one, _other(two.parent / "x", target="b")],
    "are the same search": lambda one, two: [one, two, _overlapping(two)],
    "has no campaign.json": lambda one, two: [one, two / "found"],
    "0-of-2.json is no JSON": lambda one, two: (one / "streams/0-of-2.json").write_text("{"),
    "counts must be an object": lambda one, two: _spoil(one / "streams/0-of-2.json", counts=3),
    "counts are of no search": lambda one, two: _spoil(one / "streams/0-of-2.json", next=-1),
    "findings[0] must be": lambda one, two: _spoil(one / "streams/0-of-2.json", findings=[3]),
    "state.cells": lambda one, two: _spoil(one / "streams/0-of-2.json", state={"cells": {}}),
    "is no stream of the campaign": lambda one, two: (one / "streams/0-of-2.json").replace(one / "streams/0-of-3.json"),
    "holds no stream": lambda one, two: (one / "streams/0-of-2.json").unlink(),
    "is no record of a campaign": lambda one, two: _spoil(one / "campaign.json", schema=2),
    "must be text and whole numbers": lambda one, two: _spoil(one / "campaign.json", facts={"target": "a"}),
    "no whole case": lambda one, two: _spoil(one / "found/accuracy/case.json", check=3),
    "does not hold the case": lambda one, two: (one / "found/accuracy/case.json").unlink(),
}


def _overlapping(two: Path) -> Path:
    """Stream 0 of 1 of seed 1 draws what stream 1 of 2 of seed 0 does."""
    return _campaign(two.parent / "y", {0: _record(1, [0])}, count=1, seed=1)


@pytest.mark.parametrize("line", MISUSE)
def test_misuse_is_one_line_and_changes_nothing(
    line: str, shards: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = MISUSE[line](*shards)
    folders = made if isinstance(made, list) else shards
    before, out = _tree(tmp_path), tmp_path / "out"
    ended = called(capfd, "fuzz", "merge", *map(str, folders), "--out", str(out))
    assert ended.code == 2 and line in ended.err and len(ended.lines) == 1, ended.err
    assert _tree(tmp_path) == before and not out.exists()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with open(folder / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_a_place_that_is_taken_or_in_use_is_refused(
    shards: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    used, file = _campaign(tmp_path / "used", {}), tmp_path / "file"
    file.write_text("", encoding="utf-8")
    words = [*map(str, shards), "--out"]
    for out, line in (
        (used, "is not empty"),
        (file, "is no folder"),
        (shards[0] / "in", "lies in"),
        ("", "name of a folder"),
    ):
        ended = called(capfd, "fuzz", "merge", *words, str(out))
        assert ended.code == 2 and line in ended.err and len(ended.lines) == 1
    with _locked(used):
        assert "a campaign is running there" in called(capfd, "fuzz", "merge", *words, str(used)).err
    with _locked(shards[0]):
        assert "a campaign is running there" in called(capfd, "fuzz", "merge", *words, str(tmp_path / "out")).err
    (tmp_path / ".out.merging").mkdir()
    with _locked(tmp_path / ".out.merging"):
        assert "another merge" in called(capfd, "fuzz", "merge", *words, str(tmp_path / "out")).err
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    ended = called(capfd, "fuzz", "merge", *words, str(tmp_path / "empty"), "--json", str(tmp_path / "made.json"))
    assert ended.code == 1 and read_as(tmp_path / "made.json", Fuzz)["examples"] == 21


def test_what_a_killed_writer_left_is_no_case_and_is_taken_away(shards: tuple[Path, Path], tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = shards[0] / "found" / f".being-written.{socket.gethostname()}.{dead.pid}.accuracy"
    _case(left, 7.0)
    assert left / "case.json" not in cases_in(shards)
    Findings(shards[0])
    assert not left.exists() and cases_in(shards)


def test_a_merge_that_is_killed_at_any_write_leaves_what_was_there(
    shards: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, out, left = _tree(*shards), tmp_path / "out", [0]
    rename, rmtree = os.rename, shutil.rmtree  # on Linux os.replace does the same

    class Killed(BaseException):
        pass

    def counted(*names: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        rename(*names)

    def tidied(*names: Any, **options: Any) -> None:
        if not isinstance(sys.exception(), Killed):  # who is killed tidies nothing
            rmtree(*names, **options)

    ends = 0
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted)
        patch.setattr(os, "rename", counted)
        patch.setattr(Path, "replace", lambda self, to: counted(self, to))
        patch.setattr(shutil, "rmtree", tidied)
        while True:
            left[0] = ends
            try:
                merge(shards, out, "")
                break
            except Killed:
                ends += 1
                assert not out.exists() and _tree(*shards) == before
                assert (tmp_path / ".out.merging").exists()
    assert ends >= 6 and _tree(*shards) == before and not (tmp_path / ".out.merging").exists()
    made = merge([out], tmp_path / "again", "")
    assert (made["examples"], len(made["findings"])) == (21, 4)
