"""Inputs that broke an overlap function, judged again: broken by the function that broke, and held by those of today.

Origin: each case.json says it, as its note. A counterexample of `iga fuzz` is kept by copying its case.json here, and
naming the function that it broke in `BROKE`.
"""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers.command import called
from iga.fuzz.overlap import OverlapStream
from iga.fuzz.stream import Candidate, Judgement
from iga.overlap import gaussian_overlap_textbook
from iga.testing.cases_file import read_case
from iga.testing.faults.clean import CLEAN
from iga.testing.latest import Call
from iga.testing.overlap.subject import OverlapSubject

CORPUS = Path(__file__).parent / "corpus"
BROKE: dict[str, Any] = {
    "jitter_on_the_diagonal": partial(gaussian_overlap_textbook, jitter=1e-6),
    "textbook_cholesky_gradient": gaussian_overlap_textbook,
    "textbook_cholesky_under_the_floor": gaussian_overlap_textbook,
}


def _judged(case: str, subject: OverlapSubject) -> Judgement:
    found = read_case(CORPUS / case / "case.json")
    words = found.words
    stream = OverlapStream(subject)
    return stream.judge(Candidate(words["check"], Call("overlap", found.inputs), 9.0, words["where"], "", ""))


def test_every_case_has_the_function_that_it_broke() -> None:
    assert sorted(path.parent.name for path in CORPUS.glob("*/case.json")) == sorted(BROKE)
    assert all(read_case(CORPUS / case / "case.json").words["note"] for case in BROKE)


@pytest.mark.parametrize("case", BROKE)
def test_the_function_that_broke_still_does(case: str) -> None:
    """Else a case shows nothing."""
    verdict = _judged(case, OverlapSubject(case, BROKE[case]))
    assert verdict.verdict == "broken" and verdict.value > 2 * verdict.limit


@pytest.mark.parametrize("name", CLEAN)
@pytest.mark.parametrize("case", BROKE)
def test_the_functions_of_today_hold_on_it(case: str, name: str) -> None:
    verdict = _judged(case, CLEAN[name])
    assert verdict.verdict == "not reproducible" and verdict.value <= verdict.limit, verdict


@pytest.mark.process
def test_the_corpus_is_a_folder_that_the_command_replays(capfd: pytest.CaptureFixture[str]) -> None:
    place = "iga.overlap:gaussian_overlap"
    held = called(capfd, "fuzz", place, "--kind", "overlap", "--replay", str(CORPUS))
    assert held.code == 0 and f"{len(BROKE)} cases: {len(BROKE)} fixed" in held.out
    broken = called(capfd, "fuzz", f"{place}_textbook", "--kind", "overlap", "--replay", str(CORPUS))
    assert broken.code == 1 and "2 still broken" in broken.out  # the third is of a jitter
