"""The CPU kernels that a call needs, read from where they are kept, or compiled.

A call compiles what it runs and nothing else: one dtype, and the kernels of the gradients when a backward pass comes.
Where there are two cores a second process compiles beside this one (numba compiles under a lock: a thread would wait).
"""

import gc
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from numba.core import config

from iga.kernels.cpu import _backward, _finish, _forward, _pack, _points, _rows
from iga.kernels.cpu._compile import KERNELS, signature
from iga.kernels.cpu.cache import Item, compiled_code, find, install, write
from iga.kernels.cpu.helper import Code, compile_beside, may_help

__all__ = ["BACKWARD", "DTYPES", "FORWARD", "compiles", "ready"]

logger = logging.getLogger("iga")

DTYPES = ("float32", "float64")
# The slowest to compile first.
FORWARD = ("add_rows", "weigh_rows", "widen_range", "carry_points", "pack_keys")
BACKWARD = ("add_tiles", "weigh_rows_back", "finish_sums")
# Seconds of compiling before it is said.
PATIENCE = 1.0

_MODULES = (_backward, _finish, _forward, _pack, _points, _rows)  # what fills KERNELS
_ready: set[Item] = set()
_beside: dict[Item, Code] = {}
_lock = threading.RLock()
_said = False


def compiles() -> bool:
    """Whether numba compiles at all: NUMBA_DISABLE_JIT makes it hand functions back as they are."""
    return not getattr(config, "DISABLE_JIT")  # noqa: B009 - made when numba is imported


def ready(dtype: str, names: tuple[str, ...], *, soon: tuple[str, ...] = ()) -> list[str]:
    """Sees to it that the kernels `names` can run for `dtype` ("float32" or "float64"); those that it compiled.

    `soon`: what the caller will probably want next, compiled by a second process meanwhile, if there is one anyway.
    What numba raises while it compiles is raised here.
    """
    items = [(name, dtype) for name in names]
    if _ready.issuperset(items):
        return []
    with _lock:
        cold = [item for item in items if item not in _ready and not _at_hand(item)]
        if cold:
            later = [(name, dtype) for name in soon if find((name, dtype)) is None]
            with _told(), _without_collections():
                _compile(cold, later)
        _ready.update(items)
    return [name for name, _ in cold]


def _at_hand(item: Item) -> bool:
    """Whether the kernel can run: it was compiled in this process, or kept."""
    if signature(*item) in KERNELS[item[0]][0].overloads:
        return True
    found = find(item)
    return found is not None and install(item, found[1])


def _compile(cold: list[Item], later: list[Item]) -> None:
    shared = [item for item in cold if item not in _beside][1:] + [item for item in later if item not in _beside]
    if shared and len(cold) > 1 and may_help():
        _beside.update(compile_beside(shared))
    waiting: list[Item] = []
    for item in cold:
        if item in _beside and not _beside[item].cancel():
            waiting.append(item)
        else:
            write(item, compiled_code(item))
    for item in waiting:
        code = _beside[item].result()
        if code is None or not install(item, code):
            write(item, compiled_code(item))


def _forked() -> None:
    """In a process that was forked away: nobody there feeds a second process, nor holds the lock."""
    global _lock
    _lock = threading.RLock()
    _beside.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


@contextmanager
def _told() -> Iterator[None]:
    """Says once, when compiling has taken PATIENCE, what the process waits for."""

    def say() -> None:
        global _said
        if not _said:
            _said = True
            logger.warning(
                "iga: compiling the CPU kernels, once on this machine and for some seconds (`iga warm` does it ahead)"
            )

    timer = threading.Timer(PATIENCE, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _without_collections() -> Iterator[None]:
    """Compiling makes millions of objects that stay: looking for garbage among them takes a fifth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
