"""`pytest --iga-fuzz`: searches as tests, in runs of pytest inside this one or beside it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from iga.fuzz import in_pytest
from iga.fuzz.in_pytest import Searched, folder_of
from iga.testing.checks import checks_of

pytest_plugins = ["pytester"]

PLUGIN = ("-p", "iga.testing.plugin", "-p", "no:cacheprovider")

MINE = """
import os
import torch
import iga
from iga.overlap import gaussian_overlap as right
from iga.testing import target

def only(*names):
    broken = {{name: "not asked here" for name in {checks} if name not in names}}
    return target(kind="overlap", expected_broken=broken)

@only("accuracy")
def wrong(*pair):
    dist_sq, log_det = right(*pair)
    return dist_sq, torch.where(pair[2][..., 0] > 100.0, log_det + 1.0, log_det)

@only("accuracy", "coincident_means")
def searched_on(*pair):
    return wrong(*pair)

@only("coincident_means")
def held(*pair):
    return right(*pair)

@only("accuracy")
def ends(*pair):
    if pair[0].ndim == 3 and len(pair[0]) > 100:
        os._exit(0)
    return right(*pair)

@only("accuracy")
def hangs(*pair):
    while pair[0].ndim == 3 and len(pair[0]) > 100:
        pass
    return right(*pair)

class Layer(torch.nn.Module):  # its mask is forgotten, and the third sample of a batch is another
    def __init__(self, **sizes):
        super().__init__()
        self.inner = iga.InvariantGaussianAttention(**sizes, config="bounded", implementation="reference")

    def forward(self, s, z, r, mask):
        output = self.inner(s, z, r, torch.ones_like(mask))
        return torch.cat([output[:2], 1.01 * output[2:]]) if s.ndim == 3 else output

@target(kind="layer", expected_broken={{"mask_inertness": "to be mended", "calls_agree": "also"}})
def known_layer(**sizes):
    return Layer(**sizes)

@target(kind="layer", expected_broken={{name: "not asked here" for name in {layer_checks} if name != "calls_agree"}})
def layer(**sizes):
    return Layer(**sizes)

@only()
def known(*pair):
    return right(*pair)
"""


@pytest.fixture
def mine(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with the targets above, where pytest runs with the plugin alone."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    names = {"checks": list(checks_of("overlap")), "layer_checks": list(checks_of("layer"))}
    pytester.makepyfile(mine=MINE.format(**names), test_other="def test_other(): pass")
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    return pytester


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess(*PLUGIN, *arguments)


def targets(*names: str) -> list[str]:
    return [word for name in names for word in ("--iga-target", f"mine.py:{name}")]


@pytest.mark.process
def test_a_wrong_function_fails_with_its_counterexample_and_passes_once_it_is_mended(mine: pytest.Pytester) -> None:
    result = run(mine, "-x", "-rA", *targets("wrong", "held"), "--iga-fuzz", "1m", "test_other.py")
    assert result.ret == 1
    result.assert_outcomes(failed=1, passed=1)  # -x: the second search is not begun
    folder = folder_of(Path(".iga-fuzz"), "mine.py:wrong")
    result.stdout.fnmatch_lines(
        [
            "mine.py:wrong: accuracy is broken",
            "accuracy is broken: value *, limit 1 (of the budget)",
            "  at *sigma*",
            "  @example(",
            "          q_sigma=(*",
            f"  inputs: {folder}/found/accuracy",
            f"  shown by: python {folder}/found/accuracy/reproduce.py",
            f"replay: iga fuzz mine.py:wrong --kind overlap --replay {folder}",
            "*pairs in this run*",
            "FAILED iga::mine.py:wrong::fuzz*accuracy is broken*",
        ]
    )
    result.stdout.no_fnmatch_line("*in_pytest.py*")
    text = (mine.path / "mine.py").read_text(encoding="utf-8")
    (mine.path / "mine.py").write_text(text.replace("log_det + 1.0", "log_det + 0.0"), encoding="utf-8")
    # a case of somebody else's in the folder is judged as well
    found = mine.path / folder / "found"
    (found / "theirs").mkdir()
    (found / "theirs" / "case.json").write_text("{", encoding="utf-8")
    record = mine.path / folder / "streams" / "0-of-1.json"
    before = json.loads(record.read_text(encoding="utf-8"))["seconds"]
    again = run(mine, "iga::mine.py:wrong::fuzz", "--iga-fuzz", "1s")
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["mine.py:wrong: a case is cannot run", "  inputs: *theirs/case.json"])
    again.stdout.no_fnmatch_line("*accuracy is broken*")
    (found / "theirs" / "case.json").unlink()
    assert run(mine, *targets("wrong"), "--iga-fuzz", "8s", "-k", "fuzz").ret == 0
    after = json.loads(record.read_text(encoding="utf-8"))
    assert after["findings"] == [] and after["seconds"] > before > 0  # each run goes on where the last one ended


@pytest.mark.process
def test_a_function_that_ends_its_process_or_hangs_fails_its_test_and_not_the_session(
    mine: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The targets are found where pytest finds modules, though their processes are fresh ones."""
    monkeypatch.setattr(in_pytest, "LIMIT", 5.0)
    mine.mkdir("src")
    (mine.path / "mine.py").rename(mine.path / "src" / "away.py")
    mine.makeini("[pytest]\npythonpath = src\n")
    named = ["--iga-target", "away:ends", "--iga-target", "away:hangs"]
    result = run(mine, *named, "--iga-fuzz", "16s", "test_other.py")
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines(
        [
            "away:ends: process is broken",
            "  at round *: it ended the process, with exit code 0*",
            "search: iga fuzz away:ends --kind overlap --workers 1 --seed 0",
            "away:hangs: process is broken",
            "  at round *: it did not come back within 5 s*",
        ]
    )
    assert "away" not in sys.modules


@pytest.mark.process
def test_a_layer_is_searched_for_what_it_does_not_say_that_it_breaks(mine: pytest.Pytester) -> None:
    result = run(mine, *targets("layer"), "--iga-fuzz", "15s")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            "sample_alone is broken: value *",
            "replay: iga fuzz mine.py:layer --kind layer --replay *",
            "*calls in this run*",
        ]
    )
    facts = in_pytest.planned("mine.py:known_layer", None, 0, None)
    left = {"masked_numbers", "masked_removed", "sample_alone", "memory_layouts", "copied_layer"}
    assert left | {"mask_inertness", "calls_agree"} == set(facts["expected"]) and left < set(facts["checks"])


@pytest.mark.process
def test_with_xdist_each_search_runs_once_and_the_time_is_shared(mine: pytest.Pytester) -> None:
    words = [*PLUGIN, "-p", "xdist.plugin", "-n", "2", *targets("held", "wrong", "known"), "--iga-fuzz", "20s"]
    result = mine.runpytest_subprocess(*words, "-v", "-rs", "test_other.py", "--iga-fuzz-out", "kept")
    result.assert_outcomes(passed=2, failed=1, skipped=1)
    for name, word in (("held", "PASSED"), ("wrong", "FAILED"), ("known", "SKIPPED")):
        assert len(re.findall(rf"{word} iga::mine.py:{name}::fuzz *$", result.stdout.str(), re.MULTILINE)) == 1
    record = folder_of(mine.path / "kept", "mine.py:held") / "streams" / "0-of-1.json"
    assert 0 < json.loads(record.read_text(encoding="utf-8"))["seconds"] < 10 + 1  # of which what is skipped has none
    result.stdout.fnmatch_lines(["*each of its checks is expected to be broken"])


@pytest.mark.process
def test_ctrl_c_says_what_was_found_and_keeps_it(mine: pytest.Pytester) -> None:
    words = [sys.executable, "-m", "pytest", *PLUGIN, *targets("searched_on", "held"), "--iga-fuzz", "2h"]
    process = subprocess.Popen(words, cwd=mine.path, stdout=subprocess.PIPE, text=True)
    case = folder_of(mine.path / ".iga-fuzz", "mine.py:searched_on") / "found" / "accuracy" / "case.json"
    last = time.monotonic() + 120
    while time.monotonic() < last and not case.exists():
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, out
    assert "mine.py:searched_on: accuracy is broken" in out and "1 failed" in out and "interrupted" in out
    assert case.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--iga-fuzz", "soon"], "--iga-fuzz: expected a time above 0 such as 90s, 10m or 1h; got 'soon'"),
        (["--iga-fuzz", "0"], "--iga-fuzz: expected a time above 0 such as 90s, 10m or 1h; got '0'"),
        (["--iga-fuzz", "5s", "--iga-fuzz-out", "mine.py"], "--iga-fuzz-out: mine.py is no folder"),
        (["--iga-save", "mine.py"], "--iga-save: mine.py is no folder"),
    ],
)
def test_a_bad_value_is_one_line_and_exit_code_4(mine: pytest.Pytester, words: list[str], said: str) -> None:
    result = run(mine, *targets("wrong"), *words)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert [line for line in result.errlines if line.strip()] == [f"ERROR: {said}"]


def test_a_search_of_nothing_is_a_bad_value(mine: pytest.Pytester) -> None:
    result = run(mine, "--iga-fuzz", "5s")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --iga-fuzz: nothing to search: name a target with --iga-target"])


@pytest.mark.process
def test_a_target_that_is_none_is_a_bad_value(mine: pytest.Pytester) -> None:
    result = run(mine, *targets("none"), "--iga-fuzz", "5s", "--iga-kind", "overlap")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert [line for line in result.errlines if line.strip()] == [
        "ERROR: --iga-target: mine.py has no attribute 'none'"
    ]


def test_what_is_not_run_takes_none_of_the_time(mine: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: dict[str, float] = {}

    def planned(target: str, *options: Any) -> dict[str, Any]:
        return {"kind": "overlap", "checks": ["accuracy"], "expected": {"accuracy": ""} if "known" in target else {}}

    def searched(target: str, kind: str, seed: int, paths: Any, facts: Any, seconds: float, place: Path) -> Searched:
        shares[target] = seconds
        return Searched(["accuracy is suspected: here"] if target.endswith("b") else [], "5 pairs")

    monkeypatch.setattr(in_pytest, "planned", planned)
    monkeypatch.setattr(in_pytest, "searched", searched)
    result = run(mine, *targets("a", "b", "c", "known"), "--iga-fuzz", "1m", "-k", "fuzz and not mine.py:c", "-rs")
    assert shares == {"mine.py:a": 30.0, "mine.py:b": 30.0}
    result.assert_outcomes(passed=1, failed=1, skipped=1, deselected=2)
    result.stdout.fnmatch_lines(["mine.py:b: accuracy is suspected", "*is expected to be broken*"])


def test_targets_have_folders_of_their_own() -> None:
    names = [folder_of(Path("x"), target).name for target in ("a-b.py:f", "a/b.py:f", "é" * 300, "..:f")]
    assert len(set(names)) == 4 and all(re.fullmatch(r"[\w.-]{8,80}", name, re.ASCII) for name in names)
