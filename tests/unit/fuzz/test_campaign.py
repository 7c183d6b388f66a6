"""A campaign loses nothing: not a candidate that was not judged yet, and not the check that it is of."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.command import called
from iga.fuzz.campaign import Campaign, Plan, campaign_folder
from iga.fuzz.folder import Folder
from iga.fuzz.messages import candidate_of, document_of
from iga.fuzz.overlap import ENGINES
from iga.fuzz.result import document
from iga.fuzz.stream import Candidate
from iga.testing.cases_file import read_case
from iga.testing.gate.channel import LONGEST
from iga.testing.latest import Call
from iga.testing.overlap.subject import ARGUMENTS

MINE = """
import torch
from iga.overlap import gaussian_overlap

def wrong(*pair):
    dist_sq, log_det = gaussian_overlap(*pair)
    return dist_sq, torch.where(pair[2][..., 0] > 100.0, log_det + 1.0, log_det)
"""

# One that behaves otherwise in a process that has not searched, as one that judges a candidate has not.
JUDGED = """
import os, time
searched = []

def fresh(*pair):
    searched.extend([1] * (len(pair[0]) > 4))
    return not searched and len(pair[0]) == 1

def ends(*pair):
    if fresh(*pair):
        os._exit(0)
    return wrong(*pair)

def slow(*pair):
    if fresh(*pair):
        time.sleep(60)
    dist_sq, log_det = wrong(*pair)
    return dist_sq + 1e-3, log_det
"""


def _ending(when: str) -> str:
    return f"""
def ends(*pair):
    if {when}:
        import os
        os._exit(0)
    return wrong(*pair)
"""


def _as_killed_while_judging(file: Path) -> None:
    """The record as it is between a round with a candidate and the judge's word on it."""
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["findings"] and record["waiting"] == []
    file.write_text(json.dumps(record | {"found": [], "findings": []}), encoding="utf-8")


@pytest.mark.process
def test_a_kill_while_a_candidate_is_judged_loses_no_finding(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mine, out = tmp_path / "mine.py", tmp_path / "out"
    mine.write_text(MINE, encoding="utf-8")
    words = ["fuzz", f"{mine}:wrong", "--kind", "overlap", "--workers", "1", "--only", "accuracy", "--out", str(out)]
    assert called(capfd, *words, "--max-time", "1m").code == 1
    _as_killed_while_judging(out / "streams" / "0-of-1.json")
    again = called(capfd, *words, "--max-time", "2m")
    assert again.code == 1 and "broken: accuracy" in again.out


@pytest.mark.process
def test_a_candidate_that_waited_is_judged_first(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mine, out = tmp_path / "mine.py", tmp_path / "out"
    mine.write_text(MINE, encoding="utf-8")
    words = ["fuzz", f"{mine}:wrong", "--kind", "overlap", "--workers", "1", "--only", "accuracy", "--out", str(out)]
    assert called(capfd, *words, "--max-time", "1m").code == 1
    file = out / "streams" / "0-of-1.json"
    _as_killed_while_judging(file)
    call = Call("overlap", read_case(out / "found" / "accuracy" / "case.json").inputs, {})
    waited = document_of(Candidate("accuracy", call, 2.0, "as it was", "", "sampling"))
    record = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(record | {"waiting": [waited]}), encoding="utf-8")
    # no time is left to search: what waits is judged all the same
    again = called(capfd, *words, "--max-time", "1s")
    assert again.code == 1 and "broken: accuracy" in again.out
    assert json.loads(file.read_text(encoding="utf-8"))["waiting"] == []


@pytest.mark.parametrize("change", [{"findings": None}, {"counts": {}}, {"state": 3}, {"next": None}])
def test_a_record_with_a_part_missing_is_named(change: dict[str, object], tmp_path: Path) -> None:
    counts = {"examples": 0, "rounds": {}, "engines": {}, "worst": {}}
    whole = {"schema": 1, "state": {}, "counts": counts, "next": 0, "seconds": 0.0}
    whole |= {"found": [], "findings": [], "waiting": [], "covered": None}
    with Folder(tmp_path, {"target": "a"}) as folder:
        folder.save(0, 1, whole)
        assert folder.load(0, 1) == whole
        folder.save(0, 1, whole | change)
        with pytest.raises(ValueError, match="0-of-1.json is no record"):
            folder.load(0, 1)


@pytest.mark.process
def test_a_state_that_no_stream_left_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mine, out = tmp_path / "mine.py", tmp_path / "out"
    mine.write_text(MINE, encoding="utf-8")
    counts = {"examples": 1, "rounds": {}, "engines": {}, "worst": {}}
    record = {"schema": 1, "state": {"rounds": 1}, "counts": counts, "next": 1, "seconds": 0.0}
    (out / "streams").mkdir(parents=True)
    file = out / "streams" / "0-of-1.json"
    file.write_text(json.dumps(record | {"found": [], "findings": [], "waiting": [], "covered": None}))
    words = ["fuzz", f"{mine}:wrong", "--kind", "overlap", "--workers", "1", "--max-time", "5s", "--out", str(out)]
    ended = called(capfd, *words)
    assert ended.code == 2 and str(file) in ended.err and len(ended.err.strip().splitlines()) == 1


def _plan(place: str, *, seconds: float = 60.0, limit: float = 60.0, keep_going: bool = False, only: str = "") -> Plan:
    names = (only or "accuracy,coincident_means").split(",")
    options = {"kind": "overlap", "seed": 0, "only": names}
    return Plan(place, options, seconds, math.inf, (0,), 1, keep_going, limit)


def _searched(plan: Plan, out: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Campaign, list[dict[str, Any]]]:
    """A campaign that ran, and each record that was saved on the way: what a kill right after would have left."""
    saved: list[dict[str, Any]] = []
    save = Folder.save

    def kept(folder: Folder, index: int, count: int, record: dict[str, Any]) -> None:
        save(folder, index, count, record)
        saved.append(json.loads(folder.stream(index, count).read_text(encoding="utf-8")))

    monkeypatch.setattr(Folder, "save", kept)
    with campaign_folder(out, plan) as folder:
        campaign = Campaign(plan, folder)
        campaign.run()
    return campaign, saved


@pytest.mark.process
def test_a_round_that_did_not_come_back_is_a_finding_and_passed_over_in_one_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(MINE + _ending("len(pair[0]) > 100"), encoding="utf-8")
    plan = _plan(f"{mine}:ends")
    campaign, saved = _searched(plan, tmp_path / "out", monkeypatch)
    found = [one for one in campaign.findings if one["check"] == "process"]
    assert len(found) == 3 and all("exit code 0" in one["where"] and one["engine"] in ENGINES for one in found)
    for record in saved:  # of each it is known which round it was, and that one is not run again
        rounds = [int(one["where"].split()[1].rstrip(":")) for one in record["findings"]]
        assert record["state"] is None and record["next"] == max(rounds) + 1 == len(rounds)
    # what was found before the first whole round is there when the same campaign goes on
    with campaign_folder(tmp_path / "out", plan) as folder:
        again = Campaign(plan, folder)
        again.plan = replace(plan, seconds=0.0)
        again.run()
    assert [one["where"] for one in again.findings] == [one["where"] for one in found]


@pytest.mark.process
@pytest.mark.parametrize("how", ["os._exit(0)", "sys.exit(0)"])
def test_what_ends_the_process_as_it_is_loaded_is_a_finding(
    how: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(f"import os, sys\n{how}\n", encoding="utf-8")
    ended = called(capfd, "fuzz", f"{mine}:wrong", "--kind", "overlap", "--workers", "1", "--max-time", "20s")
    assert ended.code == 1 and "broken: process" in ended.out and "as it was loaded" in ended.out
    assert "loading" in ended.out and "Traceback" not in ended.err


@pytest.mark.process
def test_what_hangs_as_the_time_is_over_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is shorter than what the accused may take."""
    mine = tmp_path / "mine.py"
    mine.write_text(MINE + _ending("len(pair[0]) > 100").replace("os._exit(0)", "os.read(os.pipe()[0], 1)"))
    plan = _plan(f"{mine}:ends", seconds=20.0, limit=22.0)
    campaign, _ = _searched(plan, tmp_path / "out", monkeypatch)
    (found,) = campaign.findings
    assert found["check"] == "process" and "did not come back" in found["where"]


@pytest.mark.process
def test_what_loads_again_is_forgiven_that_it_did_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("import os\nos._exit(3)\n", encoding="utf-8")
    campaign, _ = _searched(_plan(f"{mine}:wrong", only="coincident_means"), tmp_path / "out", monkeypatch)
    assert [one["check"] for one in campaign.findings] == ["process"]
    mine.write_text(MINE, encoding="utf-8")
    plan = _plan(f"{mine}:wrong", seconds=20.0, only="coincident_means")
    campaign, saved = _searched(plan, tmp_path / "out", monkeypatch)
    assert campaign.findings == [] and saved[-1]["findings"] == []


@pytest.mark.process
def test_a_case_of_too_many_numbers_is_a_finding_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(MINE, encoding="utf-8")
    monkeypatch.setattr("iga.testing.cases_file.MOST", 10)
    campaign, saved = _searched(_plan(f"{mine}:wrong", only="accuracy"), tmp_path / "out", monkeypatch)
    (found,) = campaign.findings
    assert found["check"] == "accuracy" and found["inputs"] == "" and "30 numbers" in found["note"]
    assert saved[-1]["findings"] == [found] and not (tmp_path / "out" / "found").exists()


@pytest.mark.process
def test_a_counterexample_is_kept_where_the_accused_ends_the_process_on_a_simpler_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.py"
    simple = "len(pair[0]) == 1 and bool((pair[0] == torch.eye(3, dtype=pair[0].dtype)).all())"
    mine.write_text(MINE + _ending(simple), encoding="utf-8")
    campaign, _ = _searched(_plan(f"{mine}:ends", only="accuracy"), tmp_path / "out", monkeypatch)
    (found,) = [one for one in campaign.findings if one["check"] == "accuracy"]
    assert "not made simple" in found["note"] and "exit code 0" in found["note"]
    assert found["value"] > found["limit"] and (Path(found["inputs"]) / "case.json").exists()


@pytest.mark.process
def test_the_inputs_on_which_the_accused_ends_the_process_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mine, out = tmp_path / "mine.py", tmp_path / "out"
    mine.write_text(MINE + JUDGED, encoding="utf-8")
    campaign, _ = _searched(_plan(f"{mine}:ends", only="accuracy"), out, monkeypatch)
    (found,) = [one for one in campaign.findings if one["check"] == "accuracy"]
    assert "exit code 0" in found["where"] and found["unit"] == "the process"
    replayed = called(capfd, "fuzz", f"{mine}:ends", "--kind", "overlap", "--replay", str(out))
    assert replayed.code == 1 and "cannot run" in replayed.out
    assert called(capfd, "fuzz", f"{mine}:wrong", "--kind", "overlap", "--replay", str(out)).code == 1


@pytest.mark.process
def test_judging_goes_on_past_the_time_for_one_judgement_and_what_waits_then_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both checks break, and a judgement takes longer than all that is left."""
    mine, out = tmp_path / "mine.py", tmp_path / "out"
    mine.write_text(MINE + JUDGED, encoding="utf-8")
    monkeypatch.setattr("iga.fuzz.campaign.SHRINK", 1.0)
    monkeypatch.setattr("iga.fuzz.campaign.LOADING", 5.0)
    start = time.monotonic()
    plan = _plan(f"{mine}:slow", seconds=6.0, limit=3.0, keep_going=True)
    campaign, saved = _searched(plan, out, monkeypatch)
    assert time.monotonic() - start < 6.0 + (3.0 + 5.0 + 1.0) + 10.0
    waiting = [one["check"] for one in campaign.doubtful if one["verdict"] == "not judged"]
    assert waiting and sorted(waiting) == sorted(one["check"] for one in saved[-1]["waiting"])
    assert document(campaign, "")["exit_code"] == 1


@pytest.mark.process
def test_what_an_interrupt_leaves_half_written_is_said_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> list[str]:
        raise KeyboardInterrupt

    mine, out = tmp_path / "mine.py", tmp_path / "out"
    mine.write_text(MINE, encoding="utf-8")
    monkeypatch.setattr("iga.fuzz.campaign.write_counterexample", interrupted)
    plan = _plan(f"{mine}:wrong", only="accuracy")
    with campaign_folder(out, plan) as folder:
        campaign = Campaign(plan, folder)
        with pytest.raises(KeyboardInterrupt):
            campaign.run()
        assert document(campaign, "")["exit_code"] == 1 and not campaign.findings
        assert [(one["check"], one["verdict"]) for one in campaign.doubtful] == [("accuracy", "not judged")]
        record = folder.load(0, 1)
        assert record is not None and [one["check"] for one in record["waiting"]] == ["accuracy"]


@pytest.mark.parametrize("killed", ["before the record names it", "after"])
def test_a_counterexample_gets_its_place_once_its_record_names_it(killed: str, tmp_path: Path) -> None:
    with Folder(tmp_path, {"target": "a"}) as folder:
        new, place = folder.fresh(), folder.place("accuracy")
        new.mkdir()
        (new / "case.json").write_text("{}", encoding="utf-8")
        if killed == "after":
            folder.settle(place)
            folder.settle(place)  # once more, as a campaign that goes on does
            assert (place / "case.json").exists() and not new.exists()
            assert folder.place("accuracy").name == "accuracy-2"
        else:
            assert folder.place("accuracy") == place and not folder.fresh().exists()


def test_a_large_batch_fits_a_message_and_comes_back_to_the_bit() -> None:
    pairs = [torch.randn(262_145, *shape, dtype=torch.float64) for shape in ((3, 3), (3,), (3,))]
    call = Call("overlap", dict(zip(ARGUMENTS, [*pairs, *pairs], strict=True)))
    text = json.dumps(document_of(Candidate("accuracy", call, math.inf, "", "", "sampling")))
    assert len(text) < LONGEST
    back = candidate_of(json.loads(text))
    assert all(torch.equal(back.call.inputs[name], x) for name, x in call.inputs.items())
