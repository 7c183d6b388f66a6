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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

__all__ = ["run_units"]

_Region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def run_units(unit: Callable[..., None], units: Iterable[tuple[int, ...]]) -> None:
    """Every unit once, on as many threads as torch has, in no particular order; an exception ends the call.

    `unit` releases the GIL while it works. What it writes must not depend on the thread that it runs on.
    """
    waiting = list(units)
    threads = min(torch.get_num_threads(), len(waiting))
    if threads <= 1:
        for args in waiting:
            unit(*args)
        return
    waiting.reverse()
    failed: list[BaseException] = []

    def work(_: object = None) -> None:
        try:
            while waiting and not failed:
                try:
                    args = waiting.pop()  # atomic: the GIL is held
                except IndexError:  # another thread took the last one
                    return
                unit(*args)
        except BaseException as error:  # through C, nothing may be raised: it is raised below
            failed.append(error)

    parallel = _entry_point()
    if parallel is not None:
        parallel(_Region(work), None, threads, 0)
    else:
        key = (os.getpid(), threads)  # a process that was forked away has none of its parent's threads
        if key not in _pools:
            _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="iga-cpu")
        for _ in _pools[key].map(work, range(threads)):
            pass
    if failed:
        raise failed[0]


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
