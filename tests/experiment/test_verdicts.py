"""The verdicts on the four claims, on results whose right verdict is known by construction."""

import gzip
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.comparison import STEPS, find_run, make_result, stop
from iga._statistics import student
from iga.experiment.results import verdicts
from iga.experiment.results.readings import (
    check_result,
    estimate,
    matched_steps,
    reached,
    read_result,
    runs_of,
    series,
    window_length,
)
from iga.experiment.results.verdicts import CLAMP, GENERAL_RULES, RULES, judge, judge_all
from iga.experiment.task.flow import TRANS_CLAMP

RULES_PAGE = Path(__file__).resolve().parents[2] / "docs/experiment/rules.md"
STUCK, FREE = -39.37, -19.0


def steps_at(value: float, count: int, rest: float, of: int = STEPS) -> list[float]:
    """`count` steps at `value`, then `rest`."""
    return [value] * count + [rest] * (of - count)


def pair(name: str, before: Any, after: Any) -> dict[str, Any]:
    """A result in which logdet_clamp and sigma_floor differ in one series: a value, one a step, or a function of the
    seed that returns either."""

    def of(values: Any) -> Callable[[int], dict[str, Any]]:
        return lambda seed: {name: values(seed) if callable(values) else values}

    return make_result({"logdet_clamp": of(before), "sigma_floor": of(after)})


def clamped(count: int) -> list[float]:
    return steps_at(5.0, count, 1.0)


SERIES = {"a": "log_det_min", "b": "geo_scaled_absmax", "c": "wmax_sat_frac", "d": "trans_loss"}
# Claim and what happens: (before, after, verdict). Each verdict of each claim, and what makes it undecided.
CASES: dict[str, tuple[Any, Any, str]] = {
    "a: always stuck, then never": (STUCK, FREE, "supported"),
    "a: stuck before and after": (STUCK, STUCK, "refuted"),
    "a: half as often is not stopped": (STUCK, lambda s: steps_at(STUCK, 18 + s, FREE), "refuted"),
    "a: stuck after in one seed of three": (STUCK, lambda s: steps_at(STUCK, 20 * (s == 0), FREE), "undecided"),
    "a: stuck before in one seed of three": (lambda s: STUCK if s == 0 else FREE, FREE, "undecided"),
    "a: never stuck": (-30.0, FREE, "undecided"),
    "b: a thousandth": (lambda s: 1e7 * (1 + 0.1 * s), 1e4, "supported"),
    "b: to below one": (1e3, lambda s: 0.5 - 0.01 * s, "supported"),
    "b: to nothing": (1e3, 0.0, "undecided"),
    "b: from nothing": (0.0, 1.0, "undecided"),
    "b: a half": (1e7, lambda s: 5e6 * (1 + 0.1 * s), "refuted"),
    "b: it rises": (1e4, 1e7, "refuted"),
    "b: a twentieth in the mean, the seeds apart by decades": (1e7, lambda s: (1e7, 1e6, 1e4)[s], "undecided"),
    "b: a fifth, the seeds apart": (1e7, lambda s: (1e6, 2e6, 5e6)[s], "undecided"),
    "b: never large": (90.0, 0.1, "undecided"),
    "c: nine rows in ten, then one": (0.9, lambda s: 0.1 + 0.01 * s, "supported"),
    "c: a fall by a hundredth": (0.9, lambda s: 0.89 + 0.001 * s, "refuted"),
    "c: it rises": (0.5, 0.9, "refuted"),
    "c: a fall in two seeds of three": (0.9, lambda s: (0.1, 0.2, 0.9)[s], "undecided"),
    "c: a fall by three hundredths in the mean, of one seed": (0.9, lambda s: (0.9, 0.9, 0.81)[s], "undecided"),
    "c: never saturated": (0.09, 0.0, "undecided"),
    "d: thirty steps, then three": (lambda s: clamped(30 + s), clamped(3), "supported"),
    "d: thirty steps, then none": (clamped(30), clamped(0), "supported"),
    "d: as many as before": (clamped(30), lambda s: clamped(29 + s), "refuted"),
    "d: more than before": (clamped(10), clamped(30), "refuted"),
    "d: a fall in two seeds of three": (clamped(30), lambda s: clamped((2, 3, 30)[s]), "undecided"),
    "d: a factor of 1.4 in the mean, of one seed": (clamped(30), lambda s: clamped((30, 30, 10)[s]), "undecided"),
    "d: none before and none after": (clamped(0), clamped(0), "undecided"),
}
SUPPORTED = [case for case, (_, _, word) in CASES.items() if word == "supported"]
PREMISE_ABSENT = ("a: never stuck", "b: never large", "c: never saturated", "d: none before and none after")


def of_case(case: str) -> tuple[str, dict[str, Any], str]:
    """(claim, result, the verdict that is right)."""
    before, after, word = CASES[case]
    return case[0], pair(SERIES[case[0]], before, after), word


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_is_the_one_known_by_construction(case: str) -> None:
    letter, result, word = of_case(case)
    found = judge(result, letter)
    assert found.word == word, found


def test_the_clamp_that_is_counted_is_the_one_of_the_loss() -> None:
    """The report loads no torch, so the number stands twice."""
    assert CLAMP == TRANS_CLAMP


def test_the_cases_reach_each_verdict_of_each_claim() -> None:
    reached_words = {(case[0], word) for case, (_, _, word) in CASES.items()}
    assert reached_words == {(letter, word) for letter in RULES for word in ("supported", "refuted", "undecided")}


@pytest.mark.parametrize("case", PREMISE_ABSENT)
def test_without_the_premise_the_reason_is_the_premise(case: str) -> None:
    letter, result, _ = of_case(case)
    reason = judge(result, letter).reason
    assert reason.startswith("the premise did not occur") and RULES[letter].premise in reason


@pytest.mark.parametrize("case", SUPPORTED)
def test_with_the_arms_swapped_nothing_is_supported(case: str) -> None:
    letter, result, _ = of_case(case)
    assert judge(result, letter, "logdet_clamp", "sigma_floor").word != "supported"


@pytest.mark.parametrize("case", SUPPORTED)
def test_a_sign_flipped_in_the_effect_is_noticed(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    letter, result, _ = of_case(case)
    rule = RULES[letter]

    def flipped(before: float, after: float, steps: int) -> float:
        return -rule.effect(before, after, steps)

    monkeypatch.setitem(RULES, letter, replace(rule, effect=flipped))
    assert judge(result, letter).word != "supported"


@pytest.mark.parametrize("letter", RULES)
def test_conditions_exchanged_are_noticed(letter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RULES[letter]
    exchanged = replace(rule, supported_when=rule.refuted_when, refuted_when=rule.supported_when)
    monkeypatch.setitem(RULES, letter, exchanged)
    cases = [of_case(case) for case in CASES if case[0] == letter]
    assert any(judge(result, letter).word != word for _, result, word in cases)


@pytest.mark.parametrize("letter", RULES)
def test_supported_and_refuted_exclude_each_other(letter: str) -> None:
    rule = RULES[letter]
    ends = [
        [x, x + y, x + 2 * y] for x in (-3.0, -0.1, 0.0, 0.005, 0.05, 0.3, 1.0, 3.0) for y in (0.0, 0.001, 0.2, 2.0)
    ]
    for effect in map(estimate, ends):
        for after in map(estimate, ends):
            assert not (rule.supported_when(effect, after) and rule.refuted_when(effect, after)), (effect, after)


@pytest.mark.parametrize("case", [case for case, (_, _, word) in CASES.items() if word != "undecided"])
def test_one_seed_decides_nothing(case: str) -> None:
    letter, result, _ = of_case(case)
    result["runs"] = [run for run in result["runs"] if run["seed"] == 0]
    found = judge(result, letter)
    assert (found.word, found.reason) == ("undecided", "one seed: no interval")
    assert found.effect is not None and found.effect.interval is None


@pytest.mark.parametrize("case", SUPPORTED)
def test_an_arm_that_dies_where_the_one_before_lived_is_not_supported(case: str) -> None:
    letter, result, _ = of_case(case)
    stop(find_run(result, "sigma_floor", 1), 30)
    found = judge(result, letter)
    assert found.word == "undecided" and "non-finite" in found.reason and "seed 1" in found.reason
    assert found.steps == {0: STEPS, 1: 30, 2: STEPS}


@pytest.mark.parametrize("case", SUPPORTED)
def test_the_death_of_the_run_before_the_change_leaves_the_verdict_of_the_steps_that_both_made(case: str) -> None:
    letter, result, _ = of_case(case)
    stop(find_run(result, "logdet_clamp", 1), 36)
    found = judge(result, letter)
    assert found.word == "supported" and found.steps[1] == 36


def test_steps_that_one_run_did_not_make_count_for_neither() -> None:
    """20 of 20 against 0 of 20; the arm's clamped steps come later, where the other run is no more."""
    result = pair("trans_loss", clamped(20), [1.0] * 20 + [5.0] * 20)
    for seed in range(3):
        stop(find_run(result, "logdet_clamp", seed), 20)
    found = judge(result, "d")
    assert found.word == "supported"
    assert found.before is not None and found.after is not None and (found.before.mean, found.after.mean) == (20.0, 0.0)


def test_seeds_with_under_a_quarter_of_the_planned_steps_are_left_out() -> None:
    result = pair("wmax_sat_frac", 0.9, lambda s: 0.1 + 0.01 * s)
    stop(find_run(result, "logdet_clamp", 0), STEPS // 4)
    assert judge(result, "c").steps == {0: STEPS // 4, 1: STEPS, 2: STEPS}
    stop(find_run(result, "logdet_clamp", 0), STEPS // 4 - 1)
    assert judge(result, "c").steps == {1: STEPS, 2: STEPS}
    for seed in (1, 2):
        stop(find_run(result, "logdet_clamp", seed), 2)
    assert judge(result, "c").reason.startswith("no seed")


@pytest.mark.parametrize("letter, name", [("a", "log_det_min"), ("b", "geo_scaled_absmax"), ("c", "wmax_sat_frac")])
def test_a_value_that_is_not_finite_counts_as_the_worst(letter: str, name: str) -> None:
    """Two steps of three null: stuck, an infinite median, saturated."""
    good, bad = {"a": (FREE, STUCK), "b": (1.0, 1e7), "c": (0.0, 1.0)}[letter]
    gaps: Sequence[float | None] = [None, None, good] * (STEPS // 3) + [good] * (STEPS % 3)
    found = judge(pair(name, bad, gaps), letter)
    assert letter == "c" or found.word != "supported"
    worst = {"a": 26 / STEPS, "b": math.inf, "c": 26 / STEPS}[letter]
    assert found.after is not None and found.after.mean == pytest.approx(worst)


COLLAPSED = 3.0 * math.log(2e-6)


@pytest.mark.parametrize(
    ("letter", "inside", "outside", "of"),
    [
        ("d", 5.0, math.nextafter(5.0, 0.0), STEPS),
        ("a", COLLAPSED + 0.99, COLLAPSED + 1.01, 1.0),
        ("a", verdicts.STUCK, math.nextafter(verdicts.STUCK, 0.0), 1.0),
    ],
    ids=["the clamp", "one above the log-det of two jitters", "the bound itself"],
)
def test_a_step_counts_up_to_its_bound_and_not_beyond(letter: str, inside: float, outside: float, of: float) -> None:
    found = judge(pair(SERIES[letter], inside, outside), letter)
    assert found.before is not None and found.after is not None
    assert (found.before.mean, found.after.mean) == (of, 0.0)


def test_the_same_rules_are_applied_to_bounded_in_rows_of_its_own() -> None:
    result = make_result(
        {
            "logdet_clamp": lambda seed: {"geo_scaled_absmax": 1e7},
            "sigma_floor": lambda seed: {"geo_scaled_absmax": 1e7},
            "bounded": lambda seed: {"geo_scaled_absmax": 10.0 + seed},
        }
    )
    words = {(verdict.arm, verdict.rule.letter): verdict.word for verdict in judge_all(result)}
    assert len(words) == 8
    assert words["sigma_floor", "b"] == "refuted" and words["bounded", "b"] == "supported"


@pytest.mark.parametrize("absent", ["logdet_clamp", "sigma_floor"])
def test_a_missing_arm_leaves_its_claims_undecided_and_named(absent: str) -> None:
    result = make_result(arms=[arm for arm in ("ipa", "logdet_clamp", "sigma_floor") if arm != absent])
    assert all(judge(result, letter).reason == f"no run of {absent}" for letter in RULES)


def test_a_claim_of_an_arm_that_records_no_log_det_is_undecided() -> None:
    found = judge(pair("log_det_min", STUCK, None), "a")
    assert (found.word, found.reason) == ("undecided", "log_det_min was not recorded")


def test_an_unknown_claim_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="a, b, c, d"):
        judge(make_result(), "e")


def test_the_rules_page_says_what_the_code_does_word_for_word() -> None:
    text = RULES_PAGE.read_text(encoding="utf-8")
    for rule in RULES.values():
        row = f"| ({rule.letter}) {rule.claim} | {rule.quantity} | {rule.premise} | {rule.supported} | {rule.refuted} |"
        assert row in text
    for sentence in GENERAL_RULES:
        assert f"- {sentence}\n" in text


def test_the_width_of_three_seeds_on_the_rules_page_is_that_of_the_code() -> None:
    assert f"±{student(2) / math.sqrt(3):.2f} standard deviations" in RULES_PAGE.read_text(encoding="utf-8")


def test_the_interval_of_known_values_is_the_textbooks() -> None:
    """Mean 2, s = 1, t(2) = 4.3027: 2 ± 4.3027/√3."""
    found = estimate([1.0, 2.0, 3.0])
    assert found.interval == pytest.approx((2.0 - 4.302652730 / math.sqrt(3), 2.0 + 4.302652730 / math.sqrt(3)))
    assert estimate([4.0]).interval is None and estimate([1.0, math.inf]).interval is None
    with pytest.raises(ValueError, match="at least one"):
        estimate([])


def test_matched_steps_are_those_of_the_shortest_run_that_is_sound_of_each_seed() -> None:
    result = make_result(seeds=2)
    for name, values in find_run(result, "bounded", 0)["steps"].items():
        find_run(result, "bounded", 0)["steps"][name] = values[:25]
    find_run(result, "bounded", 0)["status"] = "running"
    stop(find_run(result, "sigma_floor", 1), 7)
    assert matched_steps(result) == {0: 25, 1: STEPS}
    assert (window_length(25), window_length(STEPS), window_length(0)) == (7, 10, 0)
    assert reached(find_run(result, "sigma_floor", 1)) == 7


def test_a_run_that_has_not_begun_is_no_run() -> None:
    result = make_result(seeds=1)
    run = find_run(result, "bounded", 0)
    run["steps"] = {name: [] for name in run["steps"]}
    run["status"] = "running"
    assert "bounded" not in runs_of(result) and matched_steps(result) == {0: STEPS}


def test_nan_and_infinity_read_as_null_do() -> None:
    run = find_run(make_result(), "ipa", 0)
    run["steps"]["trans_loss"] = [1, math.nan, math.inf, None, 2.5]
    assert series(run, "trans_loss") == [1.0, None, None, None, 2.5]


def test_a_result_is_read_back_from_json_and_from_gzip(tmp_path: Path) -> None:
    result, data = make_result(), json.dumps(make_result()).encode()
    for name, packed in (("r.json", data), ("r.json.gz", gzip.compress(data))):
        (tmp_path / name).write_bytes(packed)
        assert read_result(tmp_path / name) == result


def test_a_result_needs_no_more_than_its_schema_asks_for() -> None:
    wanted = ("trans_loss", "rots_vf_loss", "se3_vf_loss")
    runs = [
        {"arm": "ipa", "seed": seed, "status": "finished", "steps": {name: [1.0, 2.0] for name in wanted}}
        for seed in range(2)
    ]
    check_result({"schema": 1, "settings": {"steps": 2}, "runs": runs})
    runs[1]["status"] = "dead"
    with pytest.raises(ValueError, match="run ipa, seed 1: status must be"):
        check_result({"schema": 1, "settings": {"steps": 2}, "runs": runs})


BROKEN: dict[str, Callable[[dict[str, Any]], None]] = {
    '"schema": 1': lambda r: r.update(schema=2),
    "settings.steps": lambda r: r["settings"].pop("steps"),
    "no runs": lambda r: r.update(runs=[]),
    "a run lacks arm, seed, status or steps": lambda r: r["runs"].append(["ipa", 0]),
    "is there twice": lambda r: r["runs"].append(r["runs"][0]),
    "status must be one of": lambda r: r["runs"][0].update(status="dead"),
    "lacks one of the series": lambda r: r["runs"][0]["steps"].pop("trans_loss"),
    "of different lengths": lambda r: r["runs"][0]["steps"].update(samples=[4]),
    "one number a step": lambda r: r["runs"][0]["steps"].update(samples={"median": [4]}),
}


@pytest.mark.parametrize("message", BROKEN)
def test_what_is_no_result_is_refused_by_name(message: str) -> None:
    result = make_result()
    BROKEN[message](result)
    with pytest.raises(ValueError, match=message):
        check_result(result)
