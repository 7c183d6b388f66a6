"""Order statistics, slopes and Student's t: what timings and comparisons read off their samples.

Intervals of a median are those of order statistics: [x_(k), x_(n+1−k)] covers the median of any distribution with
probability 1 − 2·P(Binomial(n, ½) < k).
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["COVERAGE", "Estimate", "coverage", "exponent", "median", "ratio", "student", "upper_tail"]

COVERAGE = 0.95


class Estimate(NamedTuple):
    """A number and its interval; the interval is None where the data give none."""

    value: float
    interval: tuple[float, float] | None

    @property
    def range(self) -> list[float]:
        """The two ends of the interval, of an estimate that has one."""
        assert self.interval is not None
        return list(self.interval)


def median(samples: Sequence[float]) -> Estimate:
    """The median and its interval: the narrowest with at least 95 %, or all of the range where there are under six."""
    ordered = sorted(samples)
    k = 1
    while coverage(len(ordered), k + 1) >= COVERAGE:
        k += 1
    return Estimate(statistics.median(ordered), (ordered[k - 1], ordered[-k]))


def ratio(of: Sequence[float], to: Sequence[float]) -> Estimate:
    """The median of of_i / to_i, repeat by repeat, with its interval."""
    return median([a / b for a, b in zip(of, to, strict=True)])


def coverage(count: int, k: int) -> float:
    """The probability that [x_(k), x_(count+1−k)] covers the median; 0 where that is no interval."""
    if count < 1 or k < 1 or 2 * k > count + 1:
        return 0.0
    return 1.0 - 2.0 * sum(math.comb(count, i) for i in range(k)) / 2.0**count


def exponent(sizes: Sequence[int | float], values: Sequence[float]) -> Estimate:
    """b of value = a · size^b by least squares on logarithms; 95 % interval by Student's t, None under three sizes.

    Raises ValueError for fewer than two different sizes.
    """
    if len(set(sizes)) < 2 or len(sizes) != len(values):
        raise ValueError(f"an exponent needs two different sizes and a value for each, got {list(sizes)}")
    x, y = [math.log(s) for s in sizes], [math.log(v) for v in values]
    slope, intercept = statistics.linear_regression(x, y)
    freedom = len(x) - 2
    if freedom < 1:
        return Estimate(slope, None)
    x0 = statistics.fmean(x)
    spread = sum((a - x0) ** 2 for a in x)
    residual = sum((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    half = student(freedom) * math.sqrt(residual / freedom / spread)
    return Estimate(slope, (slope - half, slope + half))


def student(freedom: int, coverage: float = COVERAGE) -> float:
    """t with P(|T| < t) = coverage for `freedom` degrees of freedom, by bisection of the closed form for integers.

    Abramowitz and Stegun 26.7.3 and 26.7.4, with θ = arctan(t/√ν). Error: a few ulp.
    """
    if freedom < 1:
        raise ValueError(f"freedom must be at least 1, got {freedom}")
    low, high = 0.0, math.pi / 2
    while low < (middle := 0.5 * (low + high)) < high:
        low, high = (middle, high) if _central(middle, freedom) < coverage else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def upper_tail(t: float, freedom: int) -> float:
    """P(T > t) of Student's t, by the closed form of `student`; absolute error a few ulp of 1, so that a tail under
    10⁻¹⁶ may be 0."""
    if freedom < 1:
        raise ValueError(f"freedom must be at least 1, got {freedom}")
    outside = max(0.5 * (1.0 - _central(math.atan(abs(t) / math.sqrt(freedom)), freedom)), 0.0)
    return outside if t > 0 else 1.0 - outside


def _central(theta: float, freedom: int) -> float:
    """P(|T| < √ν tan θ): a finite sum of powers of cos θ."""
    cosine = math.cos(theta)
    odd = freedom % 2
    total, term = 0.0, cosine if odd else 1.0
    for k in range(freedom // 2):
        total += term
        term *= cosine**2 * (2 * k + 1 + odd) / (2 * k + 2 + odd)
    return 2.0 / math.pi * (theta + math.sin(theta) * total) if odd else math.sin(theta) * total
