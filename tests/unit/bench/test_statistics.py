"""Order statistics, slopes and Student's t against what is known of them."""

import math
import random

import pytest

from iga._statistics import coverage, exponent, median, ratio


def test_an_exponent_is_that_of_an_exact_law_and_its_interval_as_wide_as_the_law_is_bent() -> None:
    sizes = [1, 2, 4, 8, 16]
    found = exponent(sizes, [3.0 * s**1.5 for s in sizes])
    assert found.value == pytest.approx(1.5, abs=1e-12)
    assert found.interval is not None and found.interval[1] - found.interval[0] < 1e-6
    bent = exponent([1, 2, 4, 8], [1.0, 2.0, 4.0, 16.0])
    assert bent.interval is not None and bent.interval[0] < 1.0 < bent.interval[1] - 0.5
    assert exponent([2, 4], [1.0, 4.0]) == (pytest.approx(2.0), None)
    with pytest.raises(ValueError, match="two different sizes"):
        exponent([2, 2], [1.0, 4.0])


def test_coverage_is_that_of_the_binomial_distribution() -> None:
    assert coverage(6, 1) == 1 - 2 / 64
    assert coverage(2, 2) == 0.0 and coverage(0, 1) == 0.0
    assert coverage(21, 6) == pytest.approx(0.9734, abs=1e-4)


def test_the_interval_covers_the_true_median_as_often_as_it_says() -> None:
    generator = random.Random(0)
    trials, hits = 1000, 0
    for _ in range(trials):
        low, high = median([generator.expovariate(1.0) for _ in range(15)]).interval or (0.0, 0.0)
        hits += low <= math.log(2.0) <= high
    # 15 samples: [x_4, x_12] covers with probability 0.9648; 5 deviations of a binomial count below it
    expected = coverage(15, 4)
    assert expected >= 0.95 > coverage(15, 5)
    assert hits / trials >= expected - 5 * math.sqrt(expected * (1 - expected) / trials)
    assert hits < trials


def test_a_ratio_is_taken_repeat_by_repeat() -> None:
    drifting = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    found = ratio([3.0 * x for x in drifting], drifting)
    assert found == (3.0, (3.0, 3.0))
    with pytest.raises(ValueError):
        ratio([1.0], [1.0, 2.0])
