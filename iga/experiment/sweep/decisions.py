"""Tests of one mean against a stated bound, Holm's procedure over a family of them, and what so many seeds can see.

One-sided Student's t over K values: p = P(T_{K−1} > (mean − bound) √K / s). Values that are all equal decide exactly.
"""

import math
from collections.abc import Sequence

from iga._statistics import upper_tail

__all__ = ["above", "below", "between", "holm", "power"]

_NODES = 4000  # of the integral over the standard deviation: six digits


def above(values: Sequence[float], bound: float) -> float | None:
    """p of "the mean is at most `bound`"; None for fewer than two values."""
    count = len(values)
    if count < 2:
        return None
    mean = math.fsum(values) / count
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (count - 1))
    if spread == 0.0:
        return float(mean <= bound)
    return upper_tail((mean - bound) * math.sqrt(count) / spread, count - 1)


def below(values: Sequence[float], bound: float) -> float | None:
    """p of "the mean is at least `bound`"."""
    return above([-x for x in values], -bound)


def between(values: Sequence[float], bound: float) -> float | None:
    """p of "the mean is not between −bound and bound", by two one-sided tests."""
    over, under = above(values, -bound), below(values, bound)
    return None if over is None or under is None else max(over, under)


def holm(ps: Sequence[float | None]) -> list[float]:
    """Adjusted p of each hypothesis of a family; one that could not be tested (None) counts as p = 1.

    p_(1) ≤ p_(2) ≤ … of m: adjusted p_(i) = max over j ≤ i of min(1, (m − j + 1) p_(j)). S. Holm, "A simple
    sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).
    """
    known = [1.0 if p is None else p for p in ps]
    made, worst = [1.0] * len(known), 0.0
    for place, number in enumerate(sorted(range(len(known)), key=known.__getitem__)):
        worst = max(worst, min(1.0, (len(known) - place) * known[number]))
        made[number] = worst
    return made


def power(seeds: int, effect: float, deviation: float, bound: float, level: float) -> float:
    """The probability that p of `above` is under `level`, for normal values of mean `effect` and this deviation.

    ∫ P(Z > t √(x²/ν) − (effect − bound) √K / deviation) of x, χ with ν = K − 1 degrees of freedom
    """
    freedom = seeds - 1
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if upper_tail(middle, freedom) > level else (low, middle)
    away = (effect - bound) * math.sqrt(seeds) / deviation
    end = 10.0 + math.sqrt(freedom)
    total = weight = 0.0
    for node in range(_NODES):
        x = (node + 0.5) * end / _NODES
        density = math.exp((freedom - 1) * math.log(x) - 0.5 * x * x)
        weight += density
        total += density * 0.5 * math.erfc((low * x / math.sqrt(freedom) - away) / math.sqrt(2.0))
    return total / weight
