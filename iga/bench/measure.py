"""The clock, and repeats of several calls that are interleaved. Nothing here knows what it times.

Every repeat times all contestants, in an order that rotates, so that drift of the machine's speed reaches all alike.
"""

import math
import time
from collections.abc import Callable, Mapping

import torch

__all__ = ["Clock", "clock", "interleaved"]

# A sample shorter than this is repeated within itself: clocks and thread pools wake in some ten microseconds.
_SHORTEST = 2e-3

Clock = Callable[[Callable[[], object]], float]


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


def _times(call: Callable[[], object], count: int) -> Callable[[], object]:
    if count == 1:
        return call

    def repeated() -> None:
        for _ in range(count):
            call()

    return repeated
