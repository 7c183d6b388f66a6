"""Units of work on torch's own threads.

Torch's operations run on a team of OpenMP threads, which keep spinning for some milliseconds after each. Threads of our
own would compete with them for the cores, and lose up to half of their time; so the units run on the team itself, by
the entry point that compilers call for a parallel region (GCC's libgomp ABI). Where torch was built with another
runtime, a thread pool has to do.
"""

import ctypes
import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from threading import get_ident
from time import perf_counter, sleep, thread_time

import torch

from iga.kernels.cpu.share import lacking

__all__ = ["run_units"]

_Region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def run_units(unit: Callable[..., None], units: Iterable[tuple[int, ...]]) -> None:
    """Every unit once, on as many threads as torch has, in no particular order; an exception ends the call.

    `unit` releases the GIL while it works. What it writes must not depend on the thread that it runs on. No unit is at
    work once the call has ended, by an interrupt from the keyboard too: what it writes to is somebody else's then.
    """
    waiting = list(units)
    threads = min(torch.get_num_threads(), len(waiting))
    if threads <= 1:
        for args in waiting:
            unit(*args)
        return
    waiting.reverse()
    failed: list[BaseException] = []
    begun: list[int] = []
    ended: list[int] = []
    lacks: list[float] = []  # of each thread: seconds without a core
    watch, start = lacking(), perf_counter()

    def work(_: object = None) -> None:
        begun.append(get_ident())
        before = thread_time()
        try:
            while waiting and not failed:
                try:
                    args = waiting.pop()  # atomic: the GIL is held
                except IndexError:  # another thread took the last one
                    break
                unit(*args)
        except BaseException as error:  # through C, nothing may be raised: it is raised below
            failed.append(error)
        lacks.append(perf_counter() - start - (thread_time() - before))
        ended.append(get_ident())

    parallel = _entry_point()
    if parallel is None:
        try:
            wait([_pool(threads).submit(work) for _ in range(threads)])
        except BaseException as error:  # an interrupt of the wait: the others end with their units
            failed.append(error)
            while len(ended) < len(begun):
                sleep(1e-3)
    else:
        parallel(_Region(work), None, threads, 0)
        if get_ident() not in ended:  # this thread's part ended before it began: only an interrupt can do that
            raise KeyboardInterrupt
    if failed:
        raise failed[0]
    if watch is not None:
        watch.add(perf_counter() - start, max(lacks))


def _pool(threads: int) -> ThreadPoolExecutor:
    key = (os.getpid(), threads)  # a process that was forked away has none of its parent's threads
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="iga-cpu")
    return _pools[key]


@functools.cache
def _entry_point() -> Callable[..., None] | None:
    """GOMP_parallel of the runtime that this process has loaded for torch; None where it has another."""
    if "openmp" not in torch.__config__.parallel_info().lower():
        return None
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    loaded = {line.split()[-1] for line in maps.read_text().splitlines() if "libgomp" in line}
    if len(loaded) != 1:  # none, or several teams: which one is torch's cannot be told
        return None
    entry = ctypes.CDLL(loaded.pop()).GOMP_parallel
    entry.argtypes = [_Region, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    entry.restype = None
    return entry
