"""`pytest --iga-save`: the smallest failing example of a test with Hypothesis as a case."""

import re
from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from helpers.command import called
from iga.testing import failing, parametrize
from iga.testing.cases_file import SavedCase, read_case

pytest_plugins = ["pytester"]
# Runs inside this one put sys.modules back, and what is written in C cannot be loaded twice: it is loaded here.
LOADED = (failing, parametrize)

MINE = """
import torch
from iga.overlap import gaussian_overlap as right

def wrong(*pair):
    dist_sq, log_det = right(*pair)
    return dist_sq, torch.where(pair[2][..., 0] > 100.0, log_det + 1.0, log_det)
"""
SETTINGS = """
import pytest
from hypothesis import Phase, assume, given, settings, strategies as st
from iga.testing.strategies import gaussian_pairs, near_collinear_backbones

settings.register_profile("inner", database=None, deadline=None, max_examples=60, derandomize=True,
                          phases=(Phase.generate, Phase.shrink))
settings.load_profile("inner")
"""


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.Pytester]:
    """A run in this process, whose profile of Hypothesis would be that of the tests after it."""
    name = hypothesis.settings.get_current_profile_name()
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.syspathinsert()
    pytester.makepyfile(mine=MINE)
    pytester.makeini("[pytest]\n")
    yield pytester
    hypothesis.settings.load_profile(name)


def run(pytester: pytest.Pytester, code: str, *words: str) -> pytest.RunResult:
    pytester.makepyfile(test_inner=SETTINGS + code)
    plugins = ("-p", "iga.testing.plugin", "-p", "no:cacheprovider")
    return pytester.runpytest_inprocess(*plugins, "--iga-save", "saved", *words)


def case(pytester: pytest.Pytester, name: str) -> SavedCase:
    return read_case(pytester.path / "saved" / name / "case.json")


@pytest.mark.process
def test_the_smallest_example_is_saved_and_replayed(
    inner: pytest.Pytester, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
@given(gaussian_pairs())
def test_log_det(pair):
    assume(pair.sigma_j[0] > 0.05)
    assert not pair.tensors[2][0] > 100
"""
    result = run(inner, code)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["saved: saved/test_log_det/case.json", "replay: iga fuzz FILE.py:FUNCTION --kind overlap --replay saved"]
    )
    result.stdout.no_fnmatch_line("*in watched")
    found = case(inner, "test_log_det")
    words = found.words
    assert words["check"] == "test_inner.py::test_log_det" and words["target"] == "" and words["kind"] == "overlap"
    assert words["note"].startswith("AssertionError")
    # it is the one that Hypothesis printed
    rows = re.findall(r"^E +(\(\S+\.\S+, \S+, \S+\)),", result.stdout.str(), re.MULTILINE)
    assert [literal_eval(row) for row in rows] == [
        tuple(found.inputs[name].tolist()) for name in ("q_sigma", "k_sigma", "k_mean")
    ]
    assert float(found.inputs["q_sigma"][0]) == 150.0 and found.inputs["k_mean"].tolist() == [0, 0, 0]
    assert torch.equal(found.inputs["q_rot"], torch.eye(3).double())
    monkeypatch.chdir(inner.path)
    broken = called(capfd, "fuzz", "mine.py:wrong", "--kind", "overlap", "--replay", "saved")
    assert broken.code == 1 and "1 still broken" in broken.out
    assert "accuracy, with what test_inner.py::test_log_det drew" in " ".join(broken.out.split())
    # what the test asserts is not known to the checks: none of them says that it is fixed
    held = called(capfd, "fuzz", "mine.py:right", "--kind", "overlap", "--replay", "saved")
    assert held.code == 1 and "1 cannot be run" in held.out
    assert "is pytest's to judge: pytest test_inner.py::test_log_det" in " ".join(held.out.split())


def test_several_pairs_are_a_batch_and_tests_of_one_name_have_folders_of_their_own(inner: pytest.Pytester) -> None:
    code = """
@given(pairs=st.lists(gaussian_pairs(), min_size=2, max_size=3))
@pytest.mark.parametrize("far", [1, 2])
def test_several(far, pairs):
    pytest.fail("too far")

class TestOne:
    @given(gaussian_pairs())
    def test_same(self, pair):
        assert pair is None

class TestTwo:
    @given(gaussian_pairs())
    def test_same(self, pair):
        raise ValueError("in any case")
"""
    result = run(inner, code, "--iga-target", "mine.py:right", "--iga-kind", "overlap", "-k", "test_")
    result.assert_outcomes(failed=4, deselected=result.parseoutcomes()["deselected"])
    found = case(inner, "test_several[1]")
    assert found.inputs["q_rot"].shape == (2, 3, 3) and found.words["target"] == "mine.py:right"
    assert found.words["note"] == "Failed: too far"
    names = sorted(path.parent.name for path in Path(inner.path).rglob("case.json"))
    assert names == [
        "test_inner.py--TestOne--test_same", "test_inner.py--TestTwo--test_same", "test_several[1]", "test_several[2]",
    ]  # fmt: skip
    assert case(inner, names[1]).words["note"] == "ValueError: in any case"


def test_what_is_no_pair_is_said_and_what_does_not_fail_is_not_saved(inner: pytest.Pytester) -> None:
    code = """
@given(near_collinear_backbones())
def test_backbone(backbone):
    assert False

@given(st.integers())
def test_of_no_strategy_of_iga(x):
    assert x < 3

@given(gaussian_pairs())
def test_that_passes(pair):
    assume(pair.delta[0] > 0)

@given(gaussian_pairs())
def test_that_is_skipped(pair):
    pytest.skip("not here")

def test_of_no_hypothesis():
    assert False
"""
    result = run(inner, code)
    result.assert_outcomes(failed=3, passed=1, skipped=1)
    result.stdout.fnmatch_lines(["not saved: a case is of pairs of Gaussians, and this test was given Backbone"])
    assert len(re.findall("saved: ", result.stdout.str())) == 1
    assert not (inner.path / "saved").exists()
