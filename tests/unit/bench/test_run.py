"""`iga bench` with a pretended clock: what its document, page and picture say, and with which code it ends."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.command import called
from helpers.scripts import load_script
from iga.bench import run
from iga.bench.baseline import against
from iga.bench.implementations import IMPLEMENTATIONS, Implementation
from iga.bench.peers import dense
from iga.bench.probe import Limit
from iga.report.documents import Bench
from iga.report.schema import read_as

SIZES = ("--residues", "16", "--heads", "2", "--points", "1,2")
SMALL = ("bench", *SIZES, "--implementations", "cpu,dense")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Milliseconds that each implementation appears to take; no clock, no probe, no child process."""
    taken = {"cpu": 1.0, "dense": 8.0, "ipa_sdpa": 0.5, "textbook": 4.0}

    def pretended(calls: dict, repeats: int, seconds: object, *, limit: float = math.inf) -> dict:
        return {name: [1e-3 * taken.get(name, 1.0)] * repeats for name in calls}

    monkeypatch.setattr(run, "interleaved", pretended)
    monkeypatch.setattr(run, "measure_limit", lambda device: Limit(1e9, "pretended"))
    monkeypatch.setattr(run, "peaks_of_child", lambda name, cases, **rest: [12.5] * len(cases))
    return taken


def test_the_document_the_page_and_the_picture_carry_the_same_numbers(
    times: dict[str, float], tmp_path: Path, capfd: Capture
) -> None:
    pytest.importorskip("matplotlib")
    file, picture = tmp_path / "cpu.json", tmp_path / "cpu.svg"
    ended = called(capfd, *SMALL, "--backward", "--json", str(file), "--plot", str(picture))
    assert ended.code == 0 and "A/A" in ended.out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cpu.json", "cpu.svg"]
    result = read_as(file, Bench)
    assert result["command"].startswith("iga bench --residues 16") and result["environment"]["versions"]["iga"]
    assert result["implementations"] == {name: IMPLEMENTATIONS[name].what for name in ("cpu", "dense")}
    assert len(result["rows"]) == 2 * 2 * 2
    for row in result["rows"]:
        milliseconds = times[row["implementation"]]
        assert row["median_ms"] == milliseconds and row["peak_mb"] == 12.5
        assert row["error"] is not None and 0.0 <= row["error"] <= row["error_budget"]
        assert row["mpairpoints_per_s"] == pytest.approx(16 * 16 * 2 * row["points"] / milliseconds / 1e3)
    assert {(r["of"], r["to"], round(r["median"], 9)) for r in result["ratios"]} == {("dense", "cpu", 8.0)}
    assert {e["exponent"] for e in result["exponents"]["points"]} == {0.0}
    assert result["noise"]["ratio"] == 1.0
    page = load_script("tools/benchmarks_page.py").render([("cpu.json", result)])
    assert "8×" in page and "`cpu.json`" in page and "- cpu: iga.kernels" in page
    assert page.split("## GPU")[1].strip() == "not measured"
    assert "svg" in picture.read_text(encoding="utf-8")[:500]


def test_a_picture_of_one_size_says_the_number_of_every_contestant(
    times: dict[str, float], tmp_path: Path, capfd: Capture
) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "one.svg"
    assert called(capfd, *SMALL, "--points", "2", "--plot", str(picture)).code == 0
    text = picture.read_text(encoding="utf-8")
    for name in ("cpu", "dense"):
        assert f"<!-- {name} -->" in text and f"<!-- {times[name]:g} ms -->" in text


def test_a_wrong_implementation_is_not_timed_and_the_command_ends_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    wrong = Implementation("textbook", "planted", lambda case: lambda p: dense(replace(p, q_sigma=1.001 * p.q_sigma)))
    monkeypatch.setitem(IMPLEMENTATIONS, "textbook", wrong)
    file, before = tmp_path / "result.json", tmp_path / "before.json"
    assert called(capfd, *SMALL, "--points", "1", "--json", str(before)).code == 0
    ended = called(capfd, "bench", *SIZES, "--points", "1", "--implementations", "cpu,textbook", "--json", str(file))
    assert ended.code == 1 and "FAILED" in ended.out
    result = read_as(file, Bench)
    row = next(row for row in result["rows"] if row["implementation"] == "textbook")
    assert row["error"] is not None and row["error"] > row["error_budget"]
    assert row["median_ms"] is None and row["peak_mb"] is None and not result["ratios"] and result["exit_code"] == 1
    # A baseline with nothing to compare ended in a traceback.
    compared = against(result, read_as(before, Bench), 1.25)
    assert compared["exit_code"] == 1 and compared["baseline"] == {"max_ratio": 1.25, "changes": []}


def test_a_slowed_implementation_fails_its_baseline_and_a_slower_machine_does_not(
    times: dict[str, float], tmp_path: Path, capfd: Capture
) -> None:
    file, one_size = tmp_path / "then.json", (*SMALL, "--points", "1")
    assert called(capfd, *one_size, "--json", str(file)).code == 0
    times["cpu"] *= 10.0
    times["dense"] *= 10.0
    assert called(capfd, *one_size, "--baseline", str(file)).code == 0
    times["cpu"] *= 1.3
    ended = called(capfd, *one_size, "--baseline", str(file), "--max-ratio", "1.25")
    assert ended.code == 1 and "1.30×" in ended.out and "SLOWER than 1.25 allows" in ended.out
    assert called(capfd, *one_size, "--baseline", str(file), "--max-ratio", "1.4").code == 0
    other = called(capfd, *one_size, "--residues", "20", "--baseline", str(file))
    assert other.code == 2 and "no case in common" in other.err


def test_peers_that_are_missing_and_cases_that_do_not_fit_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(IMPLEMENTATIONS, "keops", replace(IMPLEMENTATIONS["keops"], needs="no_such_package"))
    planned = run.plan(implementations=["cpu", "dense", "keops"], residues=[16], heads=1, points=[1], memory=False)
    assert planned.absent == {"keops": "not installed"}
    monkeypatch.setattr(run, "available_megabytes", lambda device: 1e-3)
    result = run.run(planned)
    assert [row["implementation"] for row in result["rows"]] == ["cpu"]
    assert "GB" in result["environment"]["left_out"][0]["reason"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_misuse(capfd: Capture) -> None:
    ended = called(capfd, "bench", "--device", "cuda")
    assert ended.code == 2 and "no CUDA device" in ended.err


def test_the_page_refuses_what_is_no_result(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "other.json").write_text(json.dumps({}), encoding="utf-8")
    page: Any = load_script("tools/benchmarks_page.py")
    assert page.main([str(tmp_path / "other.json")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
