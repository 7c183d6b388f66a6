"""Tests of a mean against a bound, Holm's procedure and power: against tables, an example, and simulation."""

import math

import numpy as np
import pytest

from iga._statistics import student, upper_tail
from iga.experiment.sweep.decisions import above, below, between, holm, power


@pytest.mark.parametrize(
    ("t", "freedom", "p"), [(6.314, 1, 0.05), (2.776, 4, 0.025), (3.747, 4, 0.01), (1.895, 7, 0.05)]
)
def test_the_tail_of_student_is_that_of_the_tables(t: float, freedom: int, p: float) -> None:
    assert upper_tail(t, freedom) == pytest.approx(p, rel=1e-3)
    assert upper_tail(-t, freedom) == pytest.approx(1.0 - p, rel=1e-3)
    assert upper_tail(student(freedom), freedom) == pytest.approx(0.025, rel=1e-9)


def test_the_test_of_a_mean_is_the_textbooks() -> None:
    """1, 2, 3 above 1: t = √3 with 2 degrees of freedom, whose tail is ½ (1 − t/√(2 + t²))."""
    assert above([1.0, 2.0, 3.0], 1.0) == pytest.approx(0.5 * (1.0 - math.sqrt(3.0 / 5.0)))
    assert below([1.0, 2.0, 3.0], 3.0) == pytest.approx(0.5 * (1.0 - math.sqrt(3.0 / 5.0)))
    assert between([-0.1, 0.1], 1.0) == pytest.approx(above([-0.1, 0.1], -1.0))
    assert above([1.0], 0.0) is None and between([], 1.0) is None
    assert above([2.0, 2.0], 1.0) == 0.0 and above([1.0, 1.0], 1.0) == 1.0


def test_holm_is_as_in_a_worked_example() -> None:
    """Of 0.01, 0.04, 0.03, 0.005: 4 · 0.005, 3 · 0.01, 2 · 0.03, and 0.04 no less than that."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([None, 0.02, 0.6]) == pytest.approx([1.0, 0.06, 1.0])
    assert holm([]) == []


def test_holm_holds_the_errors_of_a_family_together_and_no_correction_does_not() -> None:
    """Twenty true hypotheses, p uniform: one of them is rejected in 5 % of families by Holm, in 64 % without."""
    drawn = np.random.default_rng(0).random((4000, 20))
    by_holm = np.mean([min(holm(row)) <= 0.05 for row in drawn.tolist()])
    assert abs(by_holm - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 4000)
    assert np.mean(drawn.min(axis=1) <= 0.05) > 0.6


@pytest.mark.parametrize(("seeds", "effect", "level"), [(5, 0.1, 0.01), (3, 0.182, 0.05), (8, 0.07, 0.05)])
def test_power_is_that_of_simulated_seeds(seeds: int, effect: float, level: float) -> None:
    drawn = np.random.default_rng(1).normal(effect, 0.03, size=(4000, seeds))
    seen = np.mean([p is not None and p <= level for p in (above(row, 0.0488) for row in drawn.tolist())])
    said = power(seeds, effect, 0.03, 0.0488, level)
    assert abs(seen - said) < 4 * math.sqrt(max(said * (1 - said), 1e-3) / 4000)
