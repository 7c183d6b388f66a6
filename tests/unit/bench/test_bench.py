"""The bench: what it says of known data, what it refuses to time, and how its command ends. Nothing here is timed."""

import importlib.util
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from iga._statistics import ratio
from iga.bench import baseline, run
from iga.bench.gate import Yardstick, cotangents, sampled_rows
from iga.bench.implementations import IMPLEMENTATIONS, Implementation, step
from iga.bench.measure import interleaved
from iga.bench.probe import Limit
from iga.bench.problem import CONFIG, Case, Problem, make_problem
from iga.cli.app import main
from iga.functional import PointGaussians, point_scores
from iga.report.documents import Bench as BenchDocument
from iga.report.schema import read_as, write

SMALL = ["--residues", "16", "--heads", "2", "--points", "1,2", "--implementations", "cpu,dense"]
ROW = {
    *("implementation", "direction", "residues", "heads", "points", "median_ms", "interval_ms", "mpairpoints_per_s"),
    *("peak_mb", "share_of_limit", "error", "error_budget"),
}


def _script(name: str) -> Any:
    path = Path(__file__).resolve().parents[3] / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Milliseconds that each implementation appears to take; no clock, no probe, no child process."""
    taken = {"cpu": 1.0, "dense": 8.0, "ipa_sdpa": 0.5, "textbook": 4.0}

    def pretended(calls: dict, repeats: int, seconds: object, *, limit: float = math.inf) -> dict:
        return {name: [1e-3 * taken.get(name, 1.0)] * repeats for name in calls}

    monkeypatch.setattr(run, "interleaved", pretended)
    monkeypatch.setattr(run, "measure_limit", lambda device: Limit(1e9, "pretended"))
    monkeypatch.setattr(run, "peaks_of_child", lambda name, cases, **rest: [12.5] * len(cases))
    return taken


@pytest.fixture
def bench(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as leave:
            main(["bench", *arguments])
        out, err = capfd.readouterr()
        assert isinstance(leave.value.code, int)
        return leave.value.code, out, err

    return call


Bench = Callable[..., tuple[int, str, str]]


def test_every_repeat_calls_everyone_and_the_order_rotates() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}

    def seconds(call: Callable[[], object]) -> float:
        call()
        return 1.0

    samples = interleaved(calls, 4, seconds)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert {name: len(values) for name, values in samples.items()} == {"a": 4, "b": 4, "c": 4}
    assert {len(values) for values in interleaved(calls, 50, seconds, limit=7.0).values()} == {3}


def test_the_same_contestant_twice_has_a_ratio_of_one() -> None:
    samples = interleaved({"first": list, "second": list}, 9, lambda call: 1e-3)
    assert ratio(samples["first"], samples["second"]) == (1.0, (1.0, 1.0))


def _verdict(name: str, forward: Callable[[Problem], object], direction: str = "forward_backward"):
    case = Case(direction, 24, 2, 2)
    problem = make_problem(case, seed=1)
    rows = sampled_rows(case, 600)
    cotangent = cotangents(problem, rows, 1) if case.backward else None
    judged = Yardstick(problem, IMPLEMENTATIONS[name].function, rows, cotangent)
    return judged.judge(step(forward, problem, cotangent)())  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("direction", ["forward", "forward_backward"])
@pytest.mark.parametrize("name", ["cpu", "reference", "dense", "textbook", "ipa_sdpa"])
def test_the_gate_passes_what_is_right(name: str, direction: str) -> None:
    verdict = _verdict(name, IMPLEMENTATIONS[name].build(Case(direction, 24, 2, 2)), direction)
    assert verdict.passed, verdict


def _right(p: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    return IMPLEMENTATIONS["dense"].build(Case("forward", 24, 2, 2))(p)


def _altered(**factors: float) -> Callable[[Problem], object]:
    return lambda p: _right(replace(p, **{name: vars(p)[name] * factor for name, factor in factors.items()}))


FAULTS = {
    "the query scale is 0.1 % too large": _altered(q_sigma=1.001),
    "a head's weight is 1 % too large": _altered(geo_scale=1.01),
    "the last key is forgotten": lambda p: _right(replace(p, k_mean=_far(p.k_mean), k=_far(p.k))),
    "a gradient is cut off": lambda p: _right(replace(p, rot=p.rot.detach())),
    "values are NaN": lambda p: tuple(out * math.nan for out in _right(p)),
    "values are zero": lambda p: tuple(out * 0.0 for out in _right(p)),
}


def _far(x: torch.Tensor) -> torch.Tensor:
    moved = x.clone()
    moved[..., -1, :] = moved[..., -1, :] * 1.5
    return moved


@pytest.mark.parametrize("fault", FAULTS)
def test_the_gate_refuses_what_is_wrong(fault: str) -> None:
    assert not _verdict("dense", FAULTS[fault]).passed


def test_every_bench_problem_is_that_of_a_healthy_layer() -> None:
    p = make_problem(Case("forward", 600, 2, 2), seed=0, dtype=torch.float64)
    assert 0.03 <= float(p.q_sigma.min()) and float(p.q_sigma.max()) < 3.0
    assert (p.trans.mean(1).abs() < 1e-12).all()
    query, key = PointGaussians(p.rot, p.q_mean, p.q_sigma), PointGaussians(p.rot, p.k_mean, p.k_sigma)
    _, log_det, score = point_scores(query, key, CONFIG)
    assert score.isfinite().all() and (log_det > -19.0).all()
    same = make_problem(Case("forward", 600, 2, 2), seed=0, dtype=torch.float64)
    assert torch.equal(p.k_mean, same.k_mean)


def test_sampled_rows_reach_both_ends_and_are_never_more_than_there_are() -> None:
    assert sampled_rows(Case("forward", 5, 1, 1), 10**6).tolist() == [0, 1, 2, 3, 4]
    assert sampled_rows(Case("forward", 100, 8, 8), 1).tolist() == [0, 99]
    assert sampled_rows(Case("forward", 1, 1, 1), 1).tolist() == [0]


def test_the_json_is_schema_1(bench: Bench, times: dict[str, float], tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    code, out, _ = bench(*SMALL, "--backward", "--json", str(file))
    assert code == 0 and "A/A" in out
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
    result = json.loads(file.read_text(encoding="utf-8"))
    assert result["schema"] == 1 and {"device", "cpu", "threads", "versions", "date", "commit"} <= set(
        result["environment"]
    )
    assert len(result["rows"]) == 2 * 2 * 2 and all(set(row) == ROW for row in result["rows"])
    for row in result["rows"]:
        assert row["median_ms"] == times[row["implementation"]] and row["peak_mb"] == 12.5
        assert 0.0 <= row["error"] <= row["error_budget"]
        rate = 16 * 16 * 2 * row["points"] / times[row["implementation"]] / 1e3
        assert row["mpairpoints_per_s"] == pytest.approx(rate)
    assert {(r["of"], r["to"], round(r["median"], 9)) for r in result["ratios"]} == {("dense", "cpu", 8.0)}
    assert {e["exponent"] for e in result["exponents"]["points"]} == {0.0}
    assert result["noise"]["ratio"] == 1.0


def test_a_wrong_implementation_is_not_timed_and_the_command_ends_1(
    bench: Bench, times: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Implementation("textbook", "planted", lambda case: _altered(q_sigma=1.001))  # pyright: ignore
    monkeypatch.setitem(IMPLEMENTATIONS, "textbook", wrong)
    file = tmp_path / "result.json"
    arguments = ["--residues", "16", "--heads", "2", "--points", "1", "--implementations", "cpu,textbook"]
    code, out, _ = bench(*arguments, "--json", str(file))
    assert code == 1 and "FAILED" in out
    result = json.loads(file.read_text(encoding="utf-8"))
    row = next(row for row in result["rows"] if row["implementation"] == "textbook")
    assert row["error"] > row["error_budget"] and row["median_ms"] is None and row["peak_mb"] is None
    assert not result["ratios"]


def test_a_slowed_implementation_fails_its_baseline_and_a_slower_machine_does_not(
    bench: Bench, times: dict[str, float], tmp_path: Path
) -> None:
    file = tmp_path / "then.json"
    assert bench(*SMALL, "--json", str(file))[0] == 0
    against = ["--baseline", str(file), "--max-ratio", "1.25"]
    times["cpu"] *= 10.0
    times["dense"] *= 10.0
    assert bench(*SMALL, *against)[0] == 0
    times["cpu"] *= 1.3
    code, out, _ = bench(*SMALL, *against)
    assert code == 1 and "1.30×" in out
    assert bench(*SMALL, "--baseline", str(file), "--max-ratio", "1.4")[0] == 0


def test_a_baseline_without_a_case_in_common_is_misuse(bench: Bench, times: dict[str, float], tmp_path: Path) -> None:
    file = tmp_path / "then.json"
    assert bench(*SMALL, "--json", str(file))[0] == 0
    other = ["--residues", "20", "--heads", "2", "--points", "1", "--implementations", "cpu"]
    code, _, err = bench(*other, "--baseline", str(file))
    assert code == 2 and "no case in common" in err
    then = read_as(file, BenchDocument)
    compared = baseline.against(then, then, 1.25)["baseline"]
    assert compared is not None and {change["ratio"] for change in compared["changes"]} == {1.0}


MISUSE = {
    "an unknown implementation": (["--implementations", "cpu,denes"], "textbook_compiled"),
    "no such device": (["--device", "tpu"], "cpu or cuda"),
    "points that are no numbers": (["--points", "1,x"], "1,x"),
    "no residues": (["--residues", "0"], "--residues"),
    "no heads": (["--heads", "0"], "--heads"),
    "no repeats": (["--repeats", "0"], "--repeats"),
    "no threads": (["--threads", "0"], "--threads"),
    "more threads than cores": (["--threads", "1000000"], "cores"),
    "a negative seed": (["--seed", "-1"], "--seed"),
    "a ratio of nothing": (["--max-ratio", "nan"], "--max-ratio"),
    "a baseline that is not there": (["--baseline", "nowhere.json"], "nowhere.json"),
    "nothing but compilers, quickly": (["--quick", "--implementations", "closed_compiled"], "nothing is left"),
    "a plot of no known kind": (["--plot", "times.docx"], "times.docx"),
    "a folder that is not there": (["--json", "nowhere/result.json"], "nowhere"),
}


@pytest.mark.parametrize("what", MISUSE)
def test_misuse_ends_2_with_one_line_before_anything_is_timed(
    what: str, bench: Bench, times: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, word = MISUSE[what]
    code, out, err = bench(*arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1) and word in err, err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_misuse(bench: Bench) -> None:
    code, _, err = bench("--device", "cuda")
    assert code == 2 and "no CUDA device" in err


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2}', "\x00"])
def test_a_baseline_that_is_no_result_is_misuse(text: str, bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "then.json"
    file.write_text(text, encoding="utf-8")
    code, _, err = bench("--baseline", str(file))
    assert code == 2 and "then.json" in err


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    write({"schema": 1}, file)
    with pytest.raises(ValueError):
        write({"schema": math.nan}, file)
    assert json.loads(file.read_text()) == {"schema": 1} and len(list(tmp_path.iterdir())) == 1


def test_peers_that_are_missing_and_cases_that_do_not_fit_are_said(
    monkeypatch: pytest.MonkeyPatch, times: dict[str, float]
) -> None:
    monkeypatch.setitem(IMPLEMENTATIONS, "keops", replace(IMPLEMENTATIONS["keops"], needs="no_such_package"))
    planned = run.plan(implementations=["cpu", "dense", "keops"], residues=[16], heads=1, points=[1], memory=False)
    assert planned.absent == {"keops": "not installed"}
    monkeypatch.setattr(run, "available_megabytes", lambda device: 1e-3)
    result = run.run(planned)
    assert [row["implementation"] for row in result["rows"]] == ["cpu"]
    assert "GB" in result["environment"]["left_out"][0]["reason"]


def test_the_page_and_the_picture_carry_the_numbers_of_the_result(
    bench: Bench, times: dict[str, float], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    file, picture = tmp_path / "cpu.json", tmp_path / "cpu.svg"
    assert bench(*SMALL, "--json", str(file), "--plot", str(picture))[0] == 0
    assert "svg" in picture.read_text(encoding="utf-8")[:500]
    page = _script("tools/benchmarks_page.py").render([("cpu.json", read_as(file, BenchDocument))])
    assert "8×" in page and "`cpu.json`" in page
    assert page.split("## GPU")[1].strip() == "not measured"


def test_a_picture_of_one_size_says_the_number_of_every_contestant(
    bench: Bench, times: dict[str, float], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "one.svg"
    one_size = ["--residues", "16", "--heads", "2", "--points", "2", "--implementations", "cpu,dense"]
    assert bench(*one_size, "--plot", str(picture))[0] == 0
    text = picture.read_text(encoding="utf-8")
    for name in ("cpu", "dense"):
        assert f"<!-- {name} -->" in text and f"<!-- {times[name]:g} ms -->" in text


def test_the_renderer_refuses_what_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "other.json"
    file.write_text("{}", encoding="utf-8")
    assert _script("tools/benchmarks_page.py").main([str(file)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def _round() -> Any:
    return _script("benches/gpu_round.py")


def test_the_checks_of_the_gpu_round_run_on_a_cpu_and_pass() -> None:
    gpu_round, device = _round(), torch.device("cpu")
    for check in (gpu_round.check_correctness, gpu_round.check_determinism):
        result = check(device, True)
        assert result["passed"] and len(result["checks"]) >= 2, result
    assert set(gpu_round.CHECKS) == {one.name for one in gpu_round.steps(False) if one.bench is None}


def test_the_steps_of_the_gpu_round_fit_their_nine_minutes_and_name_what_is_known() -> None:
    gpu_round = _round()
    for dry in (False, True):
        for one in gpu_round.steps(dry):
            if one.bench is not None:
                names = one.bench[one.bench.index("--implementations") + 1].split(",")
                assert set(names) <= set(IMPLEMENTATIONS)
    assert gpu_round.TOTAL <= 540.0


def test_a_step_of_the_gpu_round_that_fails_is_recorded_and_the_round_goes_on(tmp_path: Path) -> None:
    gpu_round = _round()
    bad = gpu_round.Step("bad", 20.0, ("--device", "cpu", "--points", "none"))
    late = gpu_round.Step("late", 0.2, ("--device", "cpu", "--quick"))
    assert gpu_round.run_round(tmp_path, "cpu", True, [bad, late]) == 1
    found = json.loads((tmp_path / "round.json").read_text())
    assert [entry["code"] for entry in found["steps"]] == [2, None]
    assert "out of time" in found["steps"][1]["note"] and not found["passed"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_gpu_round_refuses_with_one_line_where_there_is_no_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _round().main([str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
