"""The number of threads of a call on a machine that others use too: torch's, or fewer.

Where another process keeps a core busy, the thread on that core is put aside for milliseconds while the others wait for
it: two threads then take longer than one, now and then several times as long. So each call adds up what its threads
lacked: the time from the beginning of a parallel region to the end of a thread's last unit in which the thread had no
core. If that is too much, calls take no more threads than there are cores that nobody else uses, which the scheduler
keeps away from the busy ones; and all again when there is room (/proc/loadavg), or after a while to see.

The number is that of torch's own operations as well. Both settings, that of OpenMP and that of MKL, are those of the
calling thread alone: other threads of the program are not touched. The numbers do not depend on it: no sum of ours is
split between threads, and no product of one head is: MKL never has more threads than there are heads.
"""

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import torch

__all__ = ["Lacking", "granted", "lacking"]

# What the threads of a call may lack: a share of the time of its parallel regions, and seconds, which are less than the
# shortest turn that a scheduler gives to somebody else.
SHARE, LEAST = 0.1, 1e-3
# Seconds for which a call that lacked more makes the next ones take fewer threads; from the first of the two on they
# look whether there is room. At least so many times what the call took, so that few calls of many pay for trying.
PAUSES, CALLS = (0.05, 4.0), 80.0


class Lacking:
    """Seconds of a call's parallel regions, and those that a thread had no core there."""

    def __init__(self) -> None:
        self.within = self.without = 0.0

    def add(self, within: float, without: float) -> None:
        """Of one region: how long it was, and the most that one of its threads lacked."""
        self.within += within
        self.without += without

    @property
    def too_much(self) -> bool:
        return self.without > max(LEAST, SHARE * self.within)


class _Call(threading.local):
    lacking: Lacking | None = None


_call = _Call()
# When calls may look for room, and when they try without it: `monotonic`.
_look_at = _try_at = 0.0


def lacking() -> Lacking | None:
    """Where the regions of this thread's call are to be entered; None outside `granted`."""
    return _call.lacking


@contextmanager
def granted(heads: int) -> Iterator[None]:
    """For one call of the operator with `heads` heads over its whole batch: torch's threads, or fewer."""
    global _look_at, _try_at
    threads, knobs = torch.get_num_threads(), _knobs()
    if threads == 1 or knobs is None or _call.lacking is not None:
        yield
        return
    set_threads, set_products = knobs
    count = _count(threads)
    before = set_products(min(heads, count))
    _call.lacking, begun = Lacking(), monotonic()
    try:
        set_threads(count)
        yield
    finally:
        set_threads(threads)
        set_products(before)
        found, _call.lacking = _call.lacking, None
        if found.too_much and count == threads:
            now = monotonic()
            _look_at, _try_at = now + PAUSES[0], now + max(PAUSES[1], CALLS * (now - begun))


def _count(threads: int) -> int:
    """The threads of a call that begins now."""
    now = monotonic()
    if now >= _try_at:
        return threads
    free = _free()
    if free is None:
        return max(1, threads // 2)
    return threads if now >= _look_at and free >= threads else max(1, min(threads - 1, free))


def _free() -> int | None:
    """The cores that this process may use and nothing but this thread does; None where nobody says."""
    try:
        running = int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].split("/")[0])
        return len(os.sched_getaffinity(0)) - (running - 1)
    except (OSError, ValueError, IndexError, AttributeError):  # not Linux, or kept from this process
        return None


@functools.cache
def _knobs() -> tuple[Callable[[int], object], Callable[[int], int]] | None:
    """The calling thread's number of OpenMP threads, and that of MKL, which returns the one before; None where torch
    has other runtimes, whose settings are those of the whole process."""
    openmp, mkl = _loaded("libgomp"), _loaded("libtorch_cpu")
    if openmp is None or mkl is None or not torch.backends.mkl.is_available():
        return None
    set_threads = getattr(openmp, "omp_set_num_threads", None)
    set_products = getattr(mkl, "MKL_Set_Num_Threads_Local", None)
    if set_threads is None or set_products is None:
        return None
    set_threads.argtypes, set_threads.restype = [ctypes.c_int], None
    set_products.argtypes, set_products.restype = [ctypes.c_int], ctypes.c_int
    return set_threads, set_products


def _loaded(name: str) -> ctypes.CDLL | None:
    """The one library of this name that the process has loaded."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    found = {line.split()[-1] for line in maps.read_text().splitlines() if f"/{name}" in line}
    return ctypes.CDLL(found.pop()) if len(found) == 1 else None
