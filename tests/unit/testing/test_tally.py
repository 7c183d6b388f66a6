"""The judge: what is broken, what holds, what shows nothing; and that nothing slips past as a number that is none."""

import math

import pytest
import torch

from iga.testing.tally import Said, Tally


def judged(value, limit, **options):
    tally = Tally("name", "nm")
    tally.add(torch.tensor(value), torch.tensor(limit), lambda index: f"at {index}", **options)
    return tally.finding()


def test_values_within_their_limits_hold_and_the_nearest_is_named() -> None:
    finding = judged([0.1, 0.9, 4.0], [1.0, 1.0, 10.0])
    assert (finding.verdict, finding.examples, finding.vacuous) == ("holds", 3, 0)
    assert math.isclose(finding.worst, 0.9, rel_tol=1e-6) and finding.worst_example == "at (1,)"


def test_one_value_over_its_limit_breaks_and_is_the_worst() -> None:
    finding = judged([0.1, 2.0, 4.0], [1.0, 1.0, 10.0])
    assert finding.verdict == "broken" and finding.worst == 2.0 and "1 of 3" in finding.note


def test_a_lower_limit_is_a_lower_limit() -> None:
    assert judged([-18.9], [-18.96], lower=True).verdict == "holds"
    assert judged([-19.0], [-18.96], lower=True).verdict == "broken"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("limit", [0.0, 1.0, math.inf])
@pytest.mark.parametrize("lower", [False, True])
def test_a_value_that_is_not_finite_is_broken_whatever_the_limit(value: float, limit: float, lower: bool) -> None:
    finding = judged([0.0, value], [limit, limit], lower=lower)
    assert finding.verdict == "broken" and finding.worst_example == "at (1,)"


def test_a_limit_that_is_no_number_breaks() -> None:
    assert judged([0.0], [math.nan]).verdict == "broken"


def test_zero_within_zero_holds_and_is_never_the_worst() -> None:
    finding = judged([0.0, 0.5], [0.0, 1.0])
    assert finding.verdict == "holds" and finding.worst == 0.5


def test_examples_that_could_not_fail_make_it_vacuous_not_green() -> None:
    assert judged([0.0, 0.0], [1.0, 1.0], could_fail=torch.tensor([True, False])).verdict == "holds"
    finding = judged([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], could_fail=torch.tensor([True, False, False]))
    assert finding.verdict == "vacuous" and finding.vacuous == 2
    assert judged([2.0, 0.0, 0.0], [1.0, 1.0, 1.0], could_fail=False).verdict == "broken"


def test_an_infinite_limit_judges_nothing() -> None:
    assert judged([5.0], [math.inf]).verdict == "vacuous"


def test_nothing_examined_is_vacuous() -> None:
    assert Tally("name", "nm").finding().verdict == "vacuous"
    assert judged([], []).verdict == "vacuous"


def test_void_is_vacuous_whatever_was_added_and_broken_still_breaks() -> None:
    tally = Tally("name", "nm")
    tally.add(0.1, 1.0, "here")
    tally.void("the output is zero")
    assert tally.finding().verdict == "vacuous" and "zero" in tally.finding().note
    tally.fail("there", "raised")
    assert tally.finding().verdict == "broken" and tally.finding().worst_example == "there"


def test_figures_for_the_note_keep_their_largest_and_show_what_is_no_number() -> None:
    tally = Tally("name", "nm")
    tally.add(0.1, 1.0, "here")
    for values in ([1.0, 3.0], [2.0]):
        tally.highest("largest", torch.tensor(values))
    assert "largest 3" in tally.finding().note
    tally.highest("largest", torch.tensor([math.nan]))
    tally.highest("largest", torch.tensor([4.0]))
    assert "largest nan" in tally.finding().note


def test_what_the_accused_says_in_the_worst_example_is_kept_beside_what_is_right() -> None:
    tally = Tally("a check", "1")
    says = (torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
    tally.add(torch.tensor([0.5, 2.0]), 1.0, lambda index: f"row {index[0]}", says=says)
    tally.add(torch.tensor([1.5]), 1.0, "less wrong", says=(torch.tensor([9.0]), torch.tensor([8.0])))
    tally.add(torch.tensor([0.5]), 1.0, "right")
    tally.fail("no answer", "it raised")  # which has no numbers
    assert tally.said == Said("row 1", [3.0, 4.0], [3.0, 5.0]) and tally.worst_example == "no answer"
    clean = Tally("a check", "1")
    clean.add(torch.tensor([0.5]), 1.0, "right", says=(torch.tensor([1.0]), torch.tensor([1.0])))
    assert clean.said is None
