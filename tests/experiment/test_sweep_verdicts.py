"""The verdicts of a sweep on results whose right verdict is known by construction, and the page of rules."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.sweeps import INPUT, make_sweep
from iga.experiment.cures import ARMS_APART
from iga.experiment.settings import load_arm
from iga.experiment.sweep import verdicts
from iga.experiment.sweep.decisions import power
from iga.experiment.sweep.readings import cells_of, is_primary, losses_of
from iga.experiment.sweep.sections import blocks_of
from iga.experiment.sweep.verdicts import CURES, DELTA, FACTOR, LEVEL, WORDS, Cure, hypotheses, judge
from iga.report.document import as_markdown

RULES_PAGE = Path(__file__).resolve().parents[2] / "docs/experiment/rules.md"
CURE = next(cure for cure in CURES if cure.name == "σ floor")
Loss = Callable[[int], float | None]


def near(loss: float) -> Loss:
    """Seeds that lie half a per cent apart, each arm in another order."""
    return lambda seed: loss * (1.0 + 0.005 * ((seed * 7 + round(100 * loss)) % 5 - 2))


def of_cure(sick: float, alone: float, full: float, without: float, **options: Any) -> dict[str, Any]:
    arms = (CURE.sick, CURE.alone, CURE.full, CURE.without)
    return make_sweep(dict(zip(arms, map(near, (sick, alone, full, without)), strict=True)), **options)


# What happens: (sick, alone, full, without, verdict).
CASES = {
    "it does all the work": (3.0, 1.5, 1.5, 3.0, "needed and sufficient"),
    "it needs others": (3.0, 3.0, 1.5, 3.0, "needed"),
    "others would do": (3.0, 1.5, 1.5, 1.5, "sufficient"),
    "it does nothing": (3.0, 3.0, 1.5, 1.5, "superfluous"),
    "it hurts in company": (3.0, 2.0, 2.0, 1.5, "harmful"),
    "it hurts alone": (2.0, 3.0, 1.5, 1.5, "harmful"),
    "a gain of the stated factor itself": (3.0, 3.0, 2.0, 2.0 * FACTOR, "undecided"),
}


def words_of(result: Any) -> dict[str, str]:
    return {one.cure.name: one.word for one in judge(result)}


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_is_the_one_known_by_construction(case: str) -> None:
    *losses, word = CASES[case]
    assert words_of(of_cure(*losses))[CURE.name] == word


def test_a_sign_flipped_in_the_effect_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = verdicts.effect
    monkeypatch.setattr(verdicts, "effect", lambda of, to: tuple(-x for x in right(of, to)))
    changed = [case for case, (*losses, word) in CASES.items() if words_of(of_cure(*losses))[CURE.name] != word]
    assert len(changed) >= 4


def test_an_interval_that_lies_above_nothing_and_not_above_the_stated_factor_decides_nothing() -> None:
    """The claim's rule would support it: a mean of 1.07, its whole interval above 1, its lower end under 1.05."""
    r = (0.02, 0.05, 0.07, 0.09, 0.11)
    arms = {CURE.full: lambda seed: 1.5, CURE.without: lambda seed: 1.5 * math.exp(r[seed])}
    (found,) = [one for one in judge(make_sweep(arms)) if one.cure == CURE]
    difference = found.cells[0].differences["r"]
    assert difference.mean > DELTA and 0.0 < difference.low < DELTA and found.word == "undecided"


def test_the_words_of_the_primary_condition_are_those_of_holm_and_others_are_not_corrected() -> None:
    """Needed at p = 0.03 of one hypothesis; the family of three, and of eighteen cells, leaves nothing of it."""
    r = tuple(DELTA + x for x in (0.01, 0.02, 0.05, 0.01, 0.02))
    arms = {CURE.full: lambda seed: 1.5, CURE.without: lambda seed: 1.5 * math.exp(r[seed])}
    points = (1, 2, 4, 8, 16, 32)
    for stress, primary in (("needles", False), ("collapse", True)):
        result = make_sweep(arms, stresses=[stress], points=points)
        (found,) = [one for one in judge(result) if one.cure == CURE]
        assert found.primary == primary and found.word == ("undecided" if primary else "needed")
        assert len(hypotheses(result)) == (3 * len(points) if primary else 0)


def test_the_family_is_that_of_the_plan_whatever_was_made() -> None:
    whole = of_cure(3.0, 1.5, 1.5, 3.0, points=(4, 16))
    part = json.loads(json.dumps(whole))
    part["runs"] = [run for run in part["runs"] if run["points"] == 4]
    assert len(hypotheses(part)) == len(hypotheses(whole)) == 8
    (found,) = [one for one in judge(part) if one.cure == CURE]
    assert found.word == "needed"  # in one cell; sufficient only in those that are made


def test_a_cure_is_sufficient_and_superfluous_only_where_it_is_so_in_every_cell() -> None:
    result = of_cure(3.0, 1.5, 1.5, 1.5, points=(4, 16))
    assert words_of(result)[CURE.name] == "sufficient"
    for run in result["runs"]:
        if run["points"] == 16 and run["arm"] == CURE.alone:
            run["held_out"][0]["se3_vf_loss_raw"] *= 1.5
    assert words_of(result)[CURE.name] == "superfluous"


def test_two_runs_that_learned_nothing_say_nothing_of_each_other() -> None:
    """Both stand at the loss of the input: equal by the cap, which is no equality of cures."""
    result = of_cure(5.0, 6.0, 1.5, 5.5)
    (cell,) = cells_of(result)
    assert all(capped for _, capped in losses_of(result, cell)[CURE.sick].values())
    (found,) = [one for one in judge(result) if one.cure == CURE]
    assert "a" not in found.cells[0].differences and found.word == "needed"


def test_a_run_that_went_non_finite_has_the_loss_of_the_input_and_one_that_is_not_finished_has_none() -> None:
    arms: dict[str, Loss] = {CURE.full: near(1.5), CURE.without: lambda seed: None}
    result = make_sweep(arms)
    (cell,) = cells_of(result)
    assert set(losses_of(result, cell)[CURE.without].values()) == {(math.log(INPUT), True)}
    assert words_of(result)[CURE.name] == "needed"
    for run in result["runs"]:
        run["status"] = "running"
    assert losses_of(result, cell) == {} and words_of(result)[CURE.name] == "undecided"


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][-1] != "undecided"])
def test_one_seed_decides_nothing(case: str) -> None:
    *losses, _ = CASES[case]
    assert words_of(of_cure(*losses, seeds=1))[CURE.name] == "undecided"


def test_the_primary_condition_comes_first_and_is_drawn_collapse_of_fixed_gaussians() -> None:
    result = of_cure(3.0, 1.5, 1.5, 3.0, stresses=["none", "both", "collapse"])
    assert [is_primary(result, cell) for cell in cells_of(result)] == [True, False, False]
    for changes in ({"gaussians": "free"}, {"doses": (-4.0,)}):
        other = of_cure(3.0, 1.5, 1.5, 3.0, **changes)
        assert not any(is_primary(other, cell) for cell in cells_of(other))


def test_a_cure_without_arms_is_not_judged() -> None:
    assert judge(make_sweep({"ipa": near(1.5), "bounded": near(1.5)})) == []


def test_every_arm_of_a_cure_exists_and_the_pairs_differ_in_that_cure_alone() -> None:
    """Of the factorial: alone differs from sick, and full from without, in the same fields of the configuration."""
    for cure in CURES:
        for arm in filter(None, (cure.sick, cure.alone, cure.full, cure.without)):
            load_arm(arm)
    for cure in CURES[:4]:
        changed = []
        for plain, with_it in ((cure.sick, cure.alone), (cure.without, cure.full)):
            old, new = load_arm(plain).config, load_arm(with_it).config
            assert old is not None and new is not None
            changed.append({name for name in vars(old) if getattr(old, name) != getattr(new, name)})
        assert changed[0] == changed[1] and changed[0], cure.name


def test_conditions_exchanged_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cure whose arms alone and without are exchanged gives other verdicts."""
    exchanged = replace(CURE, alone=CURE.without, without=CURE.alone)
    monkeypatch.setattr(verdicts, "CURES", (exchanged,))
    assert any(words_of(of_cure(*losses))[CURE.name] != word for *losses, word in CASES.values())


def test_the_rules_page_has_the_words_and_numbers_of_the_code() -> None:
    text = RULES_PAGE.read_text(encoding="utf-8")
    for word in (*WORDS, "undecided"):
        assert f"\n| {word} | " in text
    assert f"The stated factor is {FACTOR:g}: δ = ln {FACTOR:g}." in text and f"held to {100 * LEVEL:g} %" in text
    for count in (1, 32, 128):
        row = (f"{power(seeds, math.log(1.2), 0.03, DELTA, LEVEL / count):.2f}" for seeds in (3, 5, 8))
        assert f"| {count} | {' | '.join(row)} |" in text


def test_a_cure_that_was_added_later_is_in_no_family_and_is_marked_in_the_primary_condition() -> None:
    """Its own p decides, and the words of the others are those that they were without it."""
    late = next(one for one in CURES if one.alone == "softplus")
    family = {cure.name for cure in CURES if not cure.exploratory}
    added = {"softplus σ", "softplus σ, not the floor", "σ floor of bounded", "smooth floor", "mean of bounded"}
    assert {one.name for one in CURES} - family == added
    arms = {late.sick: 3.0, late.alone: 1.5, late.full: 1.5, "cap": 1.5}
    with_it = make_sweep({arm: near(loss) for arm, loss in arms.items()})
    without = make_sweep({arm: near(loss) for arm, loss in arms.items() if arm != late.alone})
    assert len(hypotheses(with_it)) == len(hypotheses(without)) == 3
    found, before = ({one.cure.name: one for one in judge(result)} for result in (with_it, without))
    assert (found[late.name].primary, found[late.name].word) == (False, "sufficient") and late.name not in before
    assert found["cap"].primary and found["cap"].cells[0].p == before["cap"].cells[0].p
    assert f"| {late.name} | collapse | exploratory | sufficient |" in as_markdown(blocks_of(with_it))


def test_a_cure_that_is_one_arm_against_the_default_takes_only_full_and_without() -> None:
    gate = Cure("x", full="bounded_time_gate", without="bounded")
    assert set(gate.arms) == {"r"} and set(CURE.arms) == {"r", "a", "g"}


def test_the_page_of_the_sweep_has_every_cure_and_every_arm() -> None:
    text = (RULES_PAGE.parent / "sweep.md").read_text(encoding="utf-8")
    for cure in CURES:
        cells = (f"`{arm}`" if arm else "–" for arm in (cure.sick, cure.alone, cure.full, cure.without))
        assert f"| {cure.name} | {' | '.join(cells)} |" in text
    assert all(f"`{arm}`" in text for arm in ARMS_APART)
