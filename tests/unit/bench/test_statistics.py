"""Order statistics, slopes and Student's t against what is known of them."""

import math
import random

import mpmath
import numpy as np
import pytest

from iga._statistics import coverage, exponent, median, ratio, student


def test_an_exponent_is_that_of_an_exact_law_and_its_interval_as_wide_as_the_law_is_bent() -> None:
    sizes = [1, 2, 4, 8, 16]
    found = exponent(sizes, [3.0 * s**1.5 for s in sizes])
    assert found.value == pytest.approx(1.5, abs=1e-12)
    assert found.interval is not None and found.interval[1] - found.interval[0] < 1e-6
    bent = exponent([1, 2, 4, 8], [1.0, 2.0, 4.0, 16.0])
    assert bent.interval is not None and bent.interval[0] < 1.0 < bent.interval[1] - 0.5
    (slope, _), covariance = np.polyfit(np.log([1, 2, 4, 8]), np.log([1.0, 2.0, 4.0, 16.0]), 1, cov=True)
    half = student(2) * math.sqrt(covariance[0, 0])
    assert bent == (pytest.approx(slope), pytest.approx((slope - half, slope + half)))
    assert exponent([2, 4], [1.0, 4.0]) == (pytest.approx(2.0), None)
    for sizes, values in (([2, 2], [1.0, 4.0]), ([2, 4], [1.0, 2.0, 3.0])):
        with pytest.raises(ValueError, match="two different sizes"):
            exponent(sizes, values)


def test_coverage_is_that_of_the_binomial_distribution() -> None:
    assert coverage(6, 1) == 1 - 2 / 64
    assert coverage(2, 2) == 0.0 and coverage(0, 1) == 0.0
    assert coverage(21, 6) == pytest.approx(0.9734, abs=1e-4)


def test_the_interval_of_a_median_is_the_narrowest_that_covers_enough() -> None:
    for count, ends in ((1, (0, 0)), (5, (0, 4)), (6, (0, 5)), (8, (0, 7)), (9, (1, 7)), (12, (2, 9))):
        found = median([7.0 * (5 * n % count) for n in range(count)] if count % 5 else [*map(float, range(count))])
        scale = 7.0 if count % 5 else 1.0
        assert found == (scale * (count - 1) / 2, (scale * ends[0], scale * ends[1])), count
    assert median([3.0, 1.0]).range == [1.0, 3.0]


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


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 30, 99, 200])
def test_students_t_has_the_coverage_it_names(freedom: int) -> None:
    """P(|T| < t) = 1 − I_{ν/(ν+t²)}(ν/2, ½). The bisection ends at neighbours of arctan: errors of a few ulp of P."""
    for wanted in (0.95, 0.5):
        t = mpmath.mpf(student(freedom, wanted))
        x = freedom / (freedom + t**2)
        found = 1 - mpmath.betainc(mpmath.mpf(freedom) / 2, 0.5, 0, x, regularized=True)
        assert abs(found - wanted) < 64 * freedom * 2.0**-53
    with pytest.raises(ValueError, match="freedom must be at least 1, got 0"):
        student(0)
