"""A campaign loses nothing: not a candidate that was not judged yet, and not the check that it is of."""

import json
from pathlib import Path

import pytest

from helpers.command import called
from iga.fuzz.folder import Folder

MINE = """
import torch
from iga.overlap import gaussian_overlap

def wrong(*pair):
    dist_sq, log_det = gaussian_overlap(*pair)
    return dist_sq, torch.where(pair[2][..., 0] > 100.0, log_det + 1.0, log_det)
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
    from iga.fuzz.messages import document_of
    from iga.fuzz.stream import Candidate
    from iga.testing.cases_file import read_case
    from iga.testing.latest import Call

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


@pytest.mark.parametrize("change", [{"findings": None}, {"counts": {}}, {"state": 3}])
def test_a_record_with_a_part_missing_is_named(change: dict[str, object], tmp_path: Path) -> None:
    counts = {"examples": 0, "pair_points": 0, "rounds": {}, "engines": {}, "worst": {}}
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
    counts = {"examples": 1, "pair_points": 1, "rounds": {}, "engines": {}, "worst": {}}
    record = {"schema": 1, "state": {"rounds": 1}, "counts": counts, "next": 1, "seconds": 0.0}
    (out / "streams").mkdir(parents=True)
    file = out / "streams" / "0-of-1.json"
    file.write_text(json.dumps(record | {"found": [], "findings": [], "waiting": [], "covered": None}))
    words = ["fuzz", f"{mine}:wrong", "--kind", "overlap", "--workers", "1", "--max-time", "5s", "--out", str(out)]
    ended = called(capfd, *words)
    assert ended.code == 2 and str(file) in ended.err and len(ended.err.strip().splitlines()) == 1
