"""Programs, forks and threads that a call started and that go on after it: none is a function's to leave behind.

A compiler's helpers stay for the calls to come, and so do pools of threads and what multiprocessing keeps for its
locks: they are told by the program that they run, or by the module of the function.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["children", "threads_left", "words_of_children", "words_of_threads"]

HELPERS = ("compile_worker", "resource_tracker", "forkserver", "loky")  # in the command lines of programs that stay
POOLS = ("torch", "concurrent", "multiprocessing", "numba", "joblib", "tqdm")
PATIENCE = 0.3  # seconds that what is about to end has for it


def children() -> dict[int, str]:
    """The processes that this one started and that still run: number → command line; empty where Linux's /proc is not
    to be had."""
    found: dict[int, str] = {}
    for tasks in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError, ValueError):
            found |= {
                number: command for number in map(int, tasks.read_text().split()) if (command := _running(number))
            }
    return found


def _running(number: int) -> str:
    """Its command line; empty for what has ended, and for helpers."""
    try:
        state = Path(f"/proc/{number}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        program, *rest = Path(f"/proc/{number}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    command = " ".join([program.rpartition("/")[2], *rest]).strip()
    ended = state in ("Z", "X")
    return "" if ended or any(name in command for name in HELPERS) else command or "a program without a name"


def threads_left() -> dict[int, str]:
    """Python's threads but those of pools: number → name."""
    found: dict[int, str] = {}
    for one in threading.enumerate():
        module = str(getattr(getattr(one, "_target", None), "__module__", None) or "")
        known = isinstance(one, threading._MainThread | threading._DummyThread) or module.startswith(POOLS)  # pyright: ignore[reportAttributeAccessIssue]
        if not known and one.ident is not None:
            found[one.ident] = one.name
    return found


def words_of_children(before: dict[int, str], after: dict[int, str]) -> str:
    """What a call left; empty if that ends at once."""
    return _still(set(after) - set(before), children, "a program")


def words_of_threads(before: dict[int, str], after: dict[int, str]) -> str:
    """What a call left; empty if that ends at once."""
    return _still(set(after) - set(before), threads_left, "a thread")


def _still(new: set[int], read: Callable[[], dict[int, str]], what: str) -> str:
    end = time.monotonic() + PATIENCE
    while (left := {number: name for number, name in read().items() if number in new}) and time.monotonic() < end:
        time.sleep(PATIENCE / 10)
    name = next(iter(left.values()), "")
    return f"it left {what} running: {name[:60]}" if left else ""
