"""`iga fuzz --ray`: what died begins again from its last record, and a cluster finds what shards on this machine do."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.command import called
from helpers.ray_tasks import tasks_of
from iga import _ray_cluster as ray_cluster
from iga.fuzz.campaign import Lost, Plan, campaign_folder
from iga.fuzz.ray_shards import RayCampaign, searched
from iga.fuzz.result import document
from iga.report.documents import Fuzz
from iga.report.fuzz import blocks
from iga.report.schema import read_as

MINE = """
import torch
from iga.overlap import gaussian_overlap as right

def wrong(*pair):
    dist_sq, log_det = right(*pair)
    return dist_sq, torch.where(pair[2][..., 0] > 100.0, log_det + 1.0, log_det)
"""
CHECKS = ("accuracy", "coincident_means")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(MINE, encoding="utf-8")
    return file


def _plan(mine: Path, index: int = 0, count: int = 2, examples: float = 1_500_000.0) -> Plan:
    options = {"kind": "overlap", "seed": 0, "only": list(CHECKS)}
    return Plan(f"{mine}:wrong", options, 600.0, examples, (index,), count, False, 60.0)


class Reports(list[tuple[int, int, dict[str, Any]]]):
    """A queue that keeps what it is given."""

    put = list.append


@pytest.mark.process
def test_a_task_that_begins_again_finds_and_counts_what_it_would_have(mine: Path, tmp_path: Path) -> None:
    reports, later = Reports(), Reports()
    whole = searched(_plan(mine), "", {}, 1, reports, str(tmp_path), None)
    assert {(index, attempt) for index, attempt, _ in reports} == {(0, 1)}
    early = reports[0][2]  # what is known of one that is killed right after
    again = searched(_plan(mine), early["record"], early["files"], 2, later, str(tmp_path), None)
    started, *ended = (json.loads(one["record"]) for one in (early, whole, again))
    assert started["next"] == 1 and not early["files"]
    for one in ended:
        assert one["next"] == sum(one["counts"]["rounds"].values()) == one["state"]["rounds"] > 1
    found = [_told([*told, (0, 0, last)]) for told, last in ((reports, whole), (later, again))]
    assert found[0] == found[1] and len(found[0]) == 1
    unknown = searched(_plan(tmp_path / "none.py"), "", {}, 1, Reports(), str(tmp_path), None)
    assert "none.py" in unknown["misuse"]


def _told(reports: list[tuple[int, int, dict[str, Any]]]) -> set[bytes]:
    """The cases that came with these reports."""
    return {files["case.json"] for _, _, report in reports for files in report["files"].values()}


class FakeRay:
    """Ray whose worker of stream 0 dies before it has said anything; the others end with `report`."""

    def __init__(self, **changed: Any) -> None:
        self.report = _empty() | changed

    class exceptions:  # noqa: N801 - as Ray names it
        class RayError(Exception):
            pass

    def wait(self, refs: list[Any], **options: Any) -> tuple[list[Any], list[Any]]:
        return refs, []

    def get(self, ref: Any, **options: Any) -> Any:
        if ref[0] == 0:
            raise self.exceptions.RayError("the node is gone")
        return self.report


class OnFake(RayCampaign):
    """The campaign without a queue; a task is its stream's number and its attempt."""

    begun: int = 0

    def _open(self) -> None:
        for task in self._tasks.values():
            self._begin(task)

    def _begin(self, task: Any) -> None:
        self.begun += 1
        task.attempt += 1
        task.ref = task.stream.index, task.attempt

    def _hear(self) -> None: ...

    def _alive(self) -> bool:
        return True

    def _close(self) -> None: ...


def _empty() -> dict[str, Any]:
    counts = {"examples": 7, "rounds": {"climb": 1}, "engines": {"climb": 7}, "worst": {}}
    covered = {"sides": {}, "cells": 0, "of_cells": 9, "blind": []}
    record = {"schema": 1, "state": None, "counts": counts, "next": 1, "seconds": 1.0, "found": [], "findings": []}
    return {
        "record": json.dumps(record | {"waiting": [], "covered": covered}), "files": {}, "doubtful": [],
        "facts": {"kind": "overlap", "checks": ["accuracy"]},
    }  # fmt: skip


def test_a_worker_that_dies_is_begun_again_twice_and_then_given_up(mine: Path, tmp_path: Path) -> None:
    for number, streams in enumerate(((0, 1), (0,))):
        plan, said = Plan(f"{mine}:wrong", {"kind": None, "seed": 0}, 60.0, 1e9, streams, 2, False, 5.0), []
        with campaign_folder(tmp_path / str(number), plan) as folder:
            campaign = OnFake(plan, folder, ray=FakeRay(), on_loss=said.append)
            if len(streams) == 1:
                with pytest.raises(Lost, match="given up.*the node is gone"):
                    campaign.run()
                continue
            campaign.run()
        assert campaign.begun == 4 and len(said) == 2 and "its worker died" in said[0]
        assert campaign.examples == 7 and "stream 0/2 was given up" in campaign.lacking[0]
        # one stream of two held, and that is not what was asked for
        for stream in campaign.streams:
            stream.record["counts"]["worst"] = {"accuracy": 0.5}
        assert document(campaign, "")["exit_code"] == 0
        made = document(campaign, "", campaign.lacking)
        assert made["exit_code"] == 1 and campaign.lacking[0] in made["blind"]
        assert "a part was not" in str(blocks(made))


def test_a_report_with_what_is_wrong_is_not_kept(mine: Path, tmp_path: Path) -> None:
    plan = Plan(f"{mine}:wrong", {"kind": None, "seed": 0}, 60.0, 1e9, (1,), 2, False, 5.0)
    with campaign_folder(tmp_path / "out", plan) as folder:
        campaign = OnFake(plan, folder, ray=FakeRay(record="{}"))
        with pytest.raises(Lost, match="another version of iga"):
            campaign.run()
    assert not (tmp_path / "out" / "streams").exists()


def test_without_ray_one_line_says_what_to_install(
    mine: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    ended = called(capfd, "fuzz", f"{mine}:wrong", "--kind", "overlap", "--ray", "local")
    assert ended.code == 2 and "invariant-gaussian-attention[ray]" in ended.err and len(ended.lines) == 1


@pytest.fixture
def unanswered() -> Iterator[int]:
    """A port at which somebody listens who never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.process
def test_an_address_without_a_cluster_is_one_line_and_2(
    mine: Path, unanswered: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(ray_cluster, "PATIENCE", 3.0)
    for address, line in (
        ("127.0.0.1:1", "nothing answers there"),
        ("ray://127.0.0.1:1", "nothing answers there"),
        ("nowhere", "expected local, auto"),
        ("", "expected local, auto"),
        (f"127.0.0.1:{unanswered}", "within 3 s"),
    ):
        begun = time.monotonic()
        ended = called(capfd, "fuzz", f"{mine}:wrong", "--kind", "overlap", "--ray", address)
        assert ended.code == 2 and line in ended.err and len(ended.lines) == 1, ended.err
        assert time.monotonic() - begun < 3.0 + ray_cluster.IMPORTING
    assert called(capfd, "fuzz", "a:b", "--ray", "nowhere", "--replay", str(mine)).code == 2


@pytest.mark.process
def test_two_workers_of_which_one_is_killed_find_what_the_same_shards_find_here(
    mine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    words = [f"{mine}:wrong", "--kind", "overlap", "--only", ",".join(CHECKS)]
    here = [tmp_path / f"shard-{index}" for index in range(2)]
    for index, out in enumerate(here):
        shard = ["--shard", f"{index}/2", "--workers", "1", "--max-examples", "1500000", "--out", str(out)]
        assert called(capfd, "fuzz", *words, *shard).code == 1
    joined = called(capfd, "fuzz", "merge", *map(str, here), "--out", str(tmp_path / "here"))
    assert joined.code == 1
    out, report = tmp_path / "there", tmp_path / "there.json"
    words += ["--workers", "2", "--max-examples", "3000000", "--out", str(out), "--json", str(report)]
    process = subprocess.Popen(
        [sys.executable, "-m", "iga", "fuzz", *words, "--ray", "local"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        killed, last = 0, time.monotonic() + 300
        while not killed and process.poll() is None and time.monotonic() < last:
            if list(out.glob("streams/*.json")):
                killed = next(iter(tasks_of(process.pid, "searched")), 0)
            time.sleep(0.1)
        if killed:  # 0 would be this process and all of its group
            os.kill(killed, signal.SIGKILL)
        printed, said = process.communicate(timeout=400)
    finally:
        process.kill()
    assert killed and process.returncode == 1 and said.count("its worker died") == 1, said
    assert all(line.startswith(("…", "found: ")) for line in said.splitlines()) and "raylet" not in printed
    assert _cases(out) == _cases(tmp_path / "here") and len(_cases(out)) >= 1
    told = read_as(report, Fuzz)
    assert told["streams"] == ["0/2", "1/2"]
    records = [json.loads(file.read_text(encoding="utf-8")) for file in out.glob("streams/*.json")]
    assert told["examples"] == sum(one["counts"]["examples"] for one in records)
    for one in records:
        assert one["next"] == sum(one["counts"]["rounds"].values()) == one["state"]["rounds"] > 1


def _cases(out: Path) -> set[tuple[str, bytes]]:
    return {(case.parent.name, case.read_bytes()) for case in out.glob("found/*/case.json")}
