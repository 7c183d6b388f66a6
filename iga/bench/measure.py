"""Repeats that are paired and interleaved, and what is read off them. Nothing here knows what it times.

Every repeat times all contestants, in an order that rotates, so that drift of the machine's speed reaches all alike;
ratios are taken repeat by repeat. Intervals are those of order statistics: [x_(k), x_(n+1−k)] covers the median
of any distribution with probability 1 − 2·P(Binomial(n, ½) < k).
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

__all__ = ["COVERAGE", "Estimate", "clock", "coverage", "exponent", "interleaved", "median", "ratio"]

COVERAGE = 0.95
# A sample shorter than this is repeated within itself: clocks and thread pools wake in some ten microseconds.
_SHORTEST = 2e-3
# 97.5 % points of Student's t by degrees of freedom; beyond the table, of the normal.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)

Clock = Callable[[Callable[[], object]], float]


class Estimate(NamedTuple):
    """A number and its interval; the interval is None where the data give none."""

    value: float
    interval: tuple[float, float] | None


def clock(device: torch.device) -> Clock:
    """Seconds of one call on the wall, the device's queue drained before and after."""

    def seconds(call: Callable[[], object]) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    return seconds


def interleaved(
    calls: Mapping[str, Callable[[], object]], repeats: int, seconds: Clock, *, limit: float = math.inf
) -> dict[str, list[float]]:
    """`repeats` samples in seconds of every call, after one that is thrown away; all lists are as long as each other.

    `limit`: seconds after which no further repeat is begun, once there are three.
    """
    names = list(calls)
    inner = {}
    for name in names:
        once = seconds(calls[name])
        inner[name] = max(1, math.ceil(_SHORTEST / once)) if once > 0 else 1
    samples: dict[str, list[float]] = {name: [] for name in names}
    spent = 0.0
    for repeat in range(repeats):
        if repeat >= 3 and spent > limit:
            break
        turn = repeat % len(names)
        for name in names[turn:] + names[:turn]:
            taken = seconds(_times(calls[name], inner[name]))
            spent += taken
            samples[name].append(taken / inner[name])
    return samples


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
    x0, y0 = statistics.fmean(x), statistics.fmean(y)
    spread = sum((a - x0) ** 2 for a in x)
    slope = sum((a - x0) * (b - y0) for a, b in zip(x, y, strict=True)) / spread
    freedom = len(x) - 2
    if freedom < 1:
        return Estimate(slope, None)
    residual = sum((b - y0 - slope * (a - x0)) ** 2 for a, b in zip(x, y, strict=True))
    student = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else 1.96
    half = student * math.sqrt(residual / freedom / spread)
    return Estimate(slope, (slope - half, slope + half))


def _times(call: Callable[[], object], count: int) -> Callable[[], object]:
    if count == 1:
        return call

    def repeated() -> None:
        for _ in range(count):
            call()

    return repeated
