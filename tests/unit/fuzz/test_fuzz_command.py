"""`iga fuzz`: exit codes, findings, state that outlives a kill, folders, and an accused that misbehaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from helpers.command import called
from helpers.structures import pdb_text, peptide
from iga.cli.fuzz import _duration, _own_interrupt
from iga.fuzz.campaign import Campaign, Plan, _Stream, campaign_folder
from iga.fuzz.folder import Folder, new_record
from iga.fuzz.overlap import OverlapStream
from iga.fuzz.result import document
from iga.overlap import gaussian_overlap
from iga.report.documents import Fuzz
from iga.report.schema import read_as
from iga.testing.checks import checks_of
from iga.testing.overlap.subject import OverlapSubject

MINE = """
import os, time
import torch
from iga.overlap import gaussian_overlap as right

def wrong(*pair):
    dist_sq, log_det = right(*pair)
    return dist_sq, torch.where(pair[2][..., 0] > 100.0, log_det + 1.0, log_det)

def ends(*pair):
    if pair[0].ndim == 3 and len(pair[0]) > 100:
        os._exit(0)
    return right(*pair)

def exits(*pair):
    if pair[0].ndim == 3 and len(pair[0]) > 100:
        raise SystemExit(0)
    return right(*pair)

def layer(**sizes):
    return torch.nn.Linear(1, 1)
"""


def _wrong(*pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As in the file, for who searches it here."""
    dist_sq, log_det = gaussian_overlap(*pair)
    return dist_sq, torch.where(pair[2][..., 0] > 100.0, log_det + 1.0, log_det)


SUBJECT = OverlapSubject("wrong", _wrong)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(MINE, encoding="utf-8")
    return file


def _fuzz(capfd: pytest.CaptureFixture[str], place: str, *words: str):  # noqa: ANN202
    common = ("--kind", "overlap", "--workers", "1", "--only", "accuracy,coincident_means")
    return called(capfd, "fuzz", place, *common, *words)


@pytest.mark.process
def test_a_wrong_function_is_found_and_the_folder_goes_on_where_it_was(
    mine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "out", tmp_path / "fuzz.json"
    ended = _fuzz(capfd, f"{mine}:wrong", "--max-examples", "500000", "--out", str(out), "--json", str(report))
    assert ended.code == 1 and "accuracy" in ended.out
    document = read_as(report, Fuzz)
    (finding,) = [one for one in document["findings"] if one["check"] == "accuracy"]
    assert finding["verdict"] == "broken" and (Path(finding["inputs"]) / "reproduce.py").exists()
    assert document["examples"] >= 500000 and document["cells"] > 10
    again = _fuzz(capfd, f"{mine}:wrong", "--max-examples", "500001", "--out", str(out), "--json", str(report))
    later = read_as(report, Fuzz)
    assert again.code == 1 and later["findings"] == document["findings"]  # it is known, and not found once more
    assert document["examples"] <= later["examples"]
    other = _fuzz(capfd, f"{mine}:ends", "--max-time", "5s", "--out", str(out))
    assert other.code == 2 and "name another folder" in other.err


@pytest.mark.process
def test_cases_are_fixed_still_broken_or_cannot_run(
    mine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert _fuzz(capfd, f"{mine}:wrong", "--max-examples", "100000", "--out", str(out)).code == 1
    again = called(capfd, "fuzz", f"{mine}:wrong", "--kind", "overlap", "--replay", str(out))
    assert again.code == 1 and "broken" in again.out
    fixed = called(capfd, "fuzz", f"{mine}:right", "--kind", "overlap", "--replay", str(out))
    assert fixed.code == 0 and "fixed" in fixed.out
    (out / "found" / "other").mkdir()
    (out / "found" / "other" / "case.json").write_text("{", encoding="utf-8")
    spoiled = called(capfd, "fuzz", f"{mine}:right", "--kind", "overlap", "--replay", str(out))
    assert spoiled.code == 1 and "cannot run" in spoiled.out and "fixed" in spoiled.out
    # a function that was mended in the meantime is no finding of the folder any more
    mine.write_text(MINE.replace("log_det + 1.0", "log_det"), encoding="utf-8")
    (out / "found" / "other" / "case.json").unlink()
    assert _fuzz(capfd, f"{mine}:wrong", "--max-examples", "100001", "--out", str(out)).code == 0
    assert called(capfd, "fuzz", f"{mine}:right", "--replay", str(tmp_path / "none")).code == 2


@pytest.mark.process
def test_a_function_that_ends_the_process_costs_its_round_and_is_a_finding(
    mine: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, words in (("ends", "exit code 0"), ("exits", f"SystemExit: 0 ({mine.name}:")):
        ended = _fuzz(capfd, f"{mine}:{name}", "--max-time", "30s")
        assert ended.code == 1 and words in ended.out and "Traceback" not in ended.out + ended.err


@pytest.mark.process
def test_a_search_that_has_judged_nothing_does_not_end_as_one_that_found_nothing(
    mine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "fuzz.json"
    ended = _fuzz(capfd, f"{mine}:right", "--max-time", "0.001s", "--out", str(tmp_path), "--json", str(report))
    *_, last = ended.out.splitlines()
    assert ended.code == 1 and "nothing was judged" in last and "0 pairs" in last, ended
    assert "accuracy, coincident_means" in " ".join(ended.out.split()) and read_as(report, Fuzz)["exit_code"] == 1
    with campaign_folder(tmp_path, _plan(f"{mine}:right")) as folder:  # it was not searched, and is joined as that
        folder.save(0, 1, new_record())
    joined = called(capfd, "fuzz", "merge", str(tmp_path), "--out", str(tmp_path.with_name("joined")))
    assert joined.code == 1 and "nothing was judged" in joined.out


def _plan(target: str) -> Plan:
    return Plan(target, {"kind": "overlap", "seed": 0, "only": None}, 1.0, 1.0, (0,), 1, False, 1.0)


@pytest.mark.parametrize(("judged", "code"), [({}, 1), ({"accuracy": 0.2}, 0)])
def test_examples_that_no_check_could_fail_on_are_no_search(
    judged: dict[str, float], code: int, tmp_path: Path
) -> None:
    record = new_record()
    record["counts"] |= {"examples": 7, "rounds": {"climb": 1}, "engines": {"climb": 7}, "worst": judged}
    with campaign_folder(tmp_path, plan := _plan("a.py:f")) as folder:
        campaign = Campaign(plan, folder, facts={"kind": "overlap", "checks": list(judged)})
        campaign.started, campaign.before, campaign.streams = time.monotonic(), 0.0, [_Stream(0, record)]
        made = document(campaign, "")
    assert made["exit_code"] == code and any("applies to it" in one for one in made["blind"]) == bool(code)


@pytest.mark.process
def test_a_campaign_that_is_killed_three_times_counts_as_one_that_is_not(mine: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "iga", "fuzz", f"{mine}:wrong", "--kind", "overlap", "--workers", "1"]
    words += ["--only", "coincident_means", "--max-time", "1h", "--out", str(out)]
    counted = []
    for _ in range(3):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        file = out / "streams" / "0-of-1.json"
        before = counted[-1] if counted else 0
        last = time.monotonic() + 90
        while time.monotonic() < last and not (file.exists() and _rounds(file) > before):
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        counted.append(_rounds(file))
    record = json.loads(file.read_text(encoding="utf-8"))
    assert 0 < counted[0] < counted[1] < counted[2] == record["next"] == record["state"]["rounds"]
    stream, rounds = OverlapStream(SUBJECT, checks=[checks_of("overlap")["coincident_means"]]), []
    while len(rounds) < record["next"]:
        rounds.append(stream.round())
    counts, engines = record["counts"], {one.engine for one in rounds}
    assert counts["examples"] == sum(one.examples for one in rounds)
    assert counts["rounds"] == {name: sum(one.engine == name for one in rounds) for name in engines}
    assert counts["worst"] == stream.worst and record["state"]["generator"] == stream.state()["generator"]


def _rounds(file: Path) -> int:
    return json.loads(file.read_text(encoding="utf-8"))["next"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--max-time", "0"], "expected a time above 0"),
        (["--max-time", "soon"], "expected a time above 0"),
        (["--shard", "2/2"], "expected I/N"),
        (["--workers", "0"], "at least 1"),
        (["--timeout", "-1"], "above 0"),
        (["--only", "no_such_check"], "unknown invariant"),
    ],
)
def test_misuse_is_one_line_and_2(words: list[str], line: str, mine: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ended = called(capfd, "fuzz", f"{mine}:wrong", "--kind", "overlap", *words)
    assert ended.code == 2 and line in ended.err and len(ended.err.strip().splitlines()) == 1


@pytest.mark.process
def test_a_search_begins_with_the_structures_that_are_named(
    mine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "six.pdb", tmp_path / "out"
    file.write_text(pdb_text(peptide(*["ALA", "LYS"] * 3)), encoding="utf-8")
    words = ["--structures", str(file), "--max-examples", "1", "--out", str(out)]
    assert _fuzz(capfd, f"{mine}:right", *words).code == 0
    record = json.loads((out / "streams" / "0-of-1.json").read_text(encoding="utf-8"))
    assert record["state"]["pool"]["shape"][0] >= 100  # its pairs
    other = _fuzz(capfd, f"{mine}:right", "--max-examples", "1", "--out", str(out))
    assert other.code == 2 and "structures" in other.err and len(other.lines) == 1
    for wrong in (str(tmp_path / "none.pdb"), str(mine), ""):
        ended = _fuzz(capfd, f"{mine}:right", "--structures", wrong)
        assert ended.code == 2 and len(ended.lines) == 1 and "Traceback" not in ended.err, ended.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--max-time", "5s"], "TARGET or --preset"),
        (["iga:InvariantPointAttention", "--preset", "bounded"], "TARGET or --preset"),
        (["bounded"], "package.module:attribute"),
        (["iga:InvariantPointAttention", "--implementation", "cpu"], "for a preset"),
        (["--preset", "none"], "unknown preset"),
        (["iga.overlap:gaussian_overlap", "--kind", "overlap", "--only", "sample_alone"], "asked of layers"),
    ],
)
def test_a_search_is_of_one_target_and_misuse_is_one_line(
    words: list[str], line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = called(capfd, "fuzz", *words)
    assert ended.code == 2 and line in " ".join(ended.err.split()), ended.err


def test_a_folder_has_one_campaign_at_a_time_and_a_spoiled_record_is_named(tmp_path: Path) -> None:
    with Folder(tmp_path, {"target": "a"}) as first:
        with pytest.raises(ValueError, match="another campaign is running"):
            Folder(tmp_path, {"target": "a"})
        first.stream(0, 1).parent.mkdir()
        first.stream(0, 1).write_text("{", encoding="utf-8")
        with pytest.raises(ValueError, match="0-of-1.json is no JSON"):
            first.load(0, 1)
    with pytest.raises(ValueError, match="name another folder"):
        Folder(tmp_path, {"target": "b"})


def test_a_folder_of_a_target_that_could_not_be_searched_is_nobody_s(tmp_path: Path) -> None:
    Folder(tmp_path, {"target": "a", "kind": None}).close()
    Folder(tmp_path, {"target": "a", "kind": "overlap"}).close()
    file = tmp_path / "campaign.json"
    assert "overlap" in file.read_text(encoding="utf-8")
    file.write_text('{"of": "another program"}', encoding="utf-8")
    with pytest.raises(ValueError, match="campaign.json"):  # a stranger's file is not written over
        Folder(tmp_path, {"target": "a", "kind": "overlap"})
    assert "another program" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("10m", 600.0), ("1h", 3600.0), ("1.5m", 90.0), ("7", 7.0)]
)
def test_a_time_is_read_as_it_is_written(text: str, seconds: float) -> None:
    assert _duration(text) == seconds


class Swallows:
    """Its finalizer is interrupted: Python drops what is raised there."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # that it is dropped is the case
def test_an_interrupt_that_python_drops_is_heeded_at_the_next_tick() -> None:
    before, interrupt = signal.getsignal(signal.SIGINT), _own_interrupt()
    with interrupt:
        interrupt.heed()
        one = Swallows()
        del one
        with pytest.raises(KeyboardInterrupt):
            interrupt.heed()
    assert signal.getsignal(signal.SIGINT) is before
