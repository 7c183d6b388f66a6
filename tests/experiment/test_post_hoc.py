"""Claim (d) by samples: each verdict by construction, its premise, its page, and committed results by arithmetic."""

import gzip
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.comparison import STEPS, make_result
from iga.experiment.results.post_hoc import BY_SAMPLES, judge_post_hoc
from iga.experiment.results.verdicts import judge

ROOT = Path(__file__).resolve().parents[2]


def clamped(steps: int) -> list[float]:
    """One of four samples of each of the first `steps` steps at the clamp: never all of a batch."""
    return [1.0] * steps + [0.0] * (STEPS - steps)


def pair(before: Callable[[int], int], after: Callable[[int], int]) -> dict[str, Any]:
    return make_result(
        {
            "logdet_clamp": lambda seed: {"clamped_samples": clamped(before(seed))},
            "sigma_floor": lambda seed: {"clamped_samples": clamped(after(seed))},
        }
    )


ONE_OF_160 = (lambda s: 1, lambda s: 0)
# Clamped samples of each seed, before and after.
CASES: dict[str, tuple[Callable[[int], int], Callable[[int], int], str]] = {
    "a tenth": (lambda s: 30 + s, lambda s: 3, "supported"),
    "as many": (lambda s: 30 + s, lambda s: 30, "refuted"),
    "a fall in one seed": (lambda s: 30, lambda s: (2, 30, 30)[s], "undecided"),
    "one of 160 before": (*ONE_OF_160, "undecided"),
}


@pytest.mark.parametrize("case", CASES)
def test_samples_at_the_clamp_are_read_where_no_step_is_at_it(case: str) -> None:
    before, after, word = CASES[case]
    result = pair(before, after)
    (found,) = (one for one in judge_post_hoc(result) if one.arm == "sigma_floor")
    assert found.word == word, found
    assert judge(result, "d").reason.startswith("the premise did not occur")


def test_the_premise_is_a_share_of_the_samples_and_not_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample of 160 is under 1 %; one of 40 steps is not, and a premise that took the steps would be met."""
    result = pair(*ONE_OF_160)
    assert judge_post_hoc(result)[0].reason.startswith("the premise did not occur")
    monkeypatch.setattr("iga.experiment.results.post_hoc.BY_SAMPLES", replace(BY_SAMPLES, whole=""))
    assert not judge_post_hoc(result)[0].reason.startswith("the premise did not occur")


def test_the_rules_page_has_it_word_for_word_and_says_post_hoc() -> None:
    text, rule = (ROOT / "docs/experiment/rules.md").read_text(encoding="utf-8"), BY_SAMPLES
    assert f"| (d) {rule.claim} | {rule.quantity} | {rule.premise} | {rule.supported} | {rule.refuted} |" in text
    assert "**post hoc**" in text


def test_the_committed_results_are_those_of_plain_arithmetic() -> None:
    """Counts summed from the files themselves: the premise holds under stress alone, and there the factors follow."""
    premise, words = {}, {}
    for path in sorted((ROOT / "benches/results").glob("compare_*.json.gz")):
        data = json.loads(gzip.decompress(path.read_bytes()))
        counts = {(r["arm"], r["seed"]): sum(r["steps"]["clamped_samples"]) for r in data["runs"]}
        samples = {(r["arm"], r["seed"]): sum(r["steps"]["samples"]) for r in data["runs"]}
        stress = data["settings"]["stress"]
        share = sum(counts["logdet_clamp", s] / samples["logdet_clamp", s] for s in range(3)) / 3
        premise[path.name] = (stress, share >= 0.01)
        for found in judge_post_hoc(data):
            ratio = [(counts["logdet_clamp", s] + 0.5) / (counts[found.arm, s] + 0.5) for s in range(3)]
            assert found.effect is not None
            assert 10**found.effect.mean == pytest.approx(math.prod(ratio) ** (1 / 3))
            words[found.arm, stress] = {*words.get((found.arm, stress), ()), found.word}
    assert len(premise) == 4 and all(stress == holds for stress, holds in premise.values())
    assert words == {
        ("sigma_floor", True): {"refuted"},
        ("bounded", True): {"supported"},
        ("sigma_floor", False): {"undecided"},
        ("bounded", False): {"undecided"},
    }
