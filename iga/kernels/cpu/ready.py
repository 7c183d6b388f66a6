"""The CPU kernels that a call needs, read from where they are kept or compiled: what waits, who compiles, what is said.

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

from iga.kernels.cpu import _backward, _forward, _pack, _points, _rows
from iga.kernels.cpu._compile import KERNELS, signature
from iga.kernels.cpu.cache import read
from iga.kernels.cpu.helper import Helper, Item, may_help

__all__ = ["BACKWARD", "DTYPES", "FORWARD", "compiles", "ready"]

logger = logging.getLogger("iga")

DTYPES = ("float32", "float64")
# The slowest to compile first.
FORWARD = ("add_rows", "weigh_rows", "widen_range", "carry_points", "pack_keys")
BACKWARD = ("add_tiles", "weigh_rows_back")
# Seconds of compiling before it is said.
PATIENCE = 1.0

_MODULES = (_backward, _forward, _pack, _points, _rows)  # what fills KERNELS
_ready: set[Item] = set()
_helpers: dict[Item, Helper] = {}
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
    if all((name, dtype) in _ready for name in names):
        return []
    with _lock:
        cold = [(name, dtype) for name in names if (name, dtype) not in _ready and not _loaded((name, dtype))]
        if cold:
            later = [(name, dtype) for name in soon if read(name, signature(name, dtype)) is None]
            with _told(), _without_collections():
                _compile(cold, later)
        _ready.update((name, dtype) for name in names)
    return [name for name, _ in cold]


def _loaded(item: Item) -> bool:
    """Whether the kernel was kept, and is at hand now."""
    kernel, args = KERNELS[item[0]][0], signature(*item)
    if args in kernel.overloads:
        return True
    code = read(item[0], args)
    return code is not None and _accepted(item, code)


def _accepted(item: Item, code: bytes) -> bool:
    kernel, args = KERNELS[item[0]][0], signature(*item)
    if not kernel._cache.accept(args, code, kernel.targetctx):
        return False
    kernel.compile(args)
    return True


def _compile(cold: list[Item], later: list[Item]) -> None:
    new = [item for item in cold if item not in _helpers]
    later = [item for item in later if item not in _helpers]
    shared = new[1:] + later
    if shared and len(cold) > 1 and may_help():
        helper = Helper(shared)
        _helpers.update((item, helper) for item in shared)
    waiting: list[Item] = []
    for item in cold:
        if item not in _helpers or _helpers[item].take(item):
            _compile_here(item)
        else:
            waiting.append(item)
    for item in waiting:
        code = _helpers[item].code(item)
        if code is None or not _accepted(item, code):
            _compile_here(item)


def _compile_here(item: Item) -> None:
    KERNELS[item[0]][0].compile(signature(*item))


def _forked() -> None:
    """In a process that was forked away: nobody there feeds the helpers, nor holds the lock."""
    global _lock
    _lock = threading.RLock()
    _helpers.clear()


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
