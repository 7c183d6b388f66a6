"""tools/compare_results.py: what it leaves out, what it finds, and its exit codes."""

import copy
import json
from pathlib import Path

import pytest

from helpers.scripts import ROOT, load_script

BENCH, FAULTS = ROOT / "benches/results/bench_cpu_points.json", ROOT / "benches/results/faults.json"


def compared(old: Path, new: object, tmp_path: Path) -> int:
    (tmp_path / "new.json").write_text(json.dumps(new), encoding="utf-8")
    return load_script("tools/compare_results.py").main([str(old), str(tmp_path / "new.json")])


def test_times_versions_and_the_machine_are_left_out_and_every_other_number_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = json.loads(BENCH.read_text(encoding="utf-8"))
    other = copy.deepcopy(one)
    other["environment"] |= {"cpu": "another", "date": "", "commit": None, "versions": {}, "threads": 64}
    for row in other["rows"]:
        row |= {"median_ms": 1.0, "interval_ms": [1.0, 1.0], "mpairpoints_per_s": 1.0, "peak_mb": None}
    for part in (*other["ratios"], other["noise"]):
        part["interval"] = [0.5, 2.0]
    other["rows"].reverse()
    assert compared(BENCH, other, tmp_path) == 0
    other["rows"][0]["error"] *= 1.5
    other["rows"][1]["median_ms"] = None
    del other["rows"][2]
    capsys.readouterr()
    assert compared(BENCH, other, tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and sum(".error: " in line for line in lines) == 1, lines
    assert "exit_code: 0 → 1" in lines and "rows.[ipa_sdpa forward 256 8 64]: only in the old one" in lines
    assert "rows.[cpu forward_backward 256 8 64].median_ms: timed in the old one only" in lines


def test_one_check_more_is_one_line_and_another_kind_or_no_document_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = json.loads(FAULTS.read_text(encoding="utf-8"))
    other["faults"][5]["caught_by"].append("determinism")
    assert compared(FAULTS, other, tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].endswith("caught_by: +determinism")
    assert compared(BENCH, other, tmp_path) == 1
    assert compared(FAULTS, {}, tmp_path) == 2 and "new.json" in capsys.readouterr().err
    assert load_script("tools/compare_results.py").main(["one"]) == 2
