"""The keeper: a process between the gate and the accused. It ends all that the accused started, and then as it ended.

What a process starts and leaves behind is adopted by the nearest of its ancestors that asked for that (Linux: a child
subreaper, prctl(2)). The keeper asks, and runs nothing of the accused's: so whatever forks, and in whatever session,
is below it, and nothing outlives it. Elsewhere there is no keeper.
"""

import ctypes
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from iga.testing.gate.stopped import SIGNALS

__all__ = ["CROWD", "CROWDED", "below", "keep"]

CROWD = 500  # processes below the keeper at once: no layer needs as many, and each holds memory
CROWDED = 98  # exit code of a keeper that ended a crowd
_LOOK = 1.0  # seconds between two counts
_PATIENCE = 4.0  # seconds in which what is killed has to be gone
_PDEATHSIG, _SUBREAPER = 1, 36  # of prctl


def keep(work: Callable[[], object]) -> NoReturn:
    """Run `work` in a child of this process, which becomes the keeper and ends as the child does.

    The keeper keeps no file open: pipes and locks are the child's alone. The child leads a session of its own and dies
    with the keeper; the keeper ends by SIGTERM when its parent dies. A signal that ends a process, sent to the keeper,
    ends all.
    """
    if sys.platform != "linux":
        work()
        os._exit(1)
    prctl = ctypes.CDLL(None).prctl
    heeded = [*SIGNALS, signal.SIGCHLD]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, heeded)
    keeper = os.getpid()
    prctl(_SUBREAPER, 1)
    prctl(_PDEATHSIG, signal.SIGTERM)
    child = os.fork()
    if not child:
        try:
            prctl(_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == keeper:
                os.setsid()
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                work()
        finally:
            os._exit(1)
    faulthandler.disable()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    _leave(_end(child, heeded))


def _end(child: int, heeded: list[signal.Signals]) -> int:
    """Wait until the child has ended, or a signal says that it must; the exit code, negative for a signal's."""
    code, counted = None, time.monotonic()
    while code is None:
        came = signal.sigtimedwait(heeded, _LOOK)
        if came is not None and came.si_signo != signal.SIGCHLD:
            code = -came.si_signo
        for pid, status in _ended():
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
        if code is None and time.monotonic() - counted > _LOOK:
            counted = time.monotonic()
            code = CROWDED if len(below(os.getpid(), ended=False)) > CROWD else None
    last = time.monotonic() + _PATIENCE
    while (left := below(os.getpid())) and time.monotonic() < last:
        for number in (signal.SIGSTOP, signal.SIGKILL):  # what is stopped starts no other meanwhile
            for pid in left:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        signal.sigtimedwait([signal.SIGCHLD], 0.01)
        list(_ended())
    return code


def _ended() -> list[tuple[int, int]]:
    """The children that have ended since, and how."""
    found = []
    with suppress(ChildProcessError):
        while (one := os.waitpid(-1, os.WNOHANG))[0]:
            found.append(one)
    return found


def below(root: int, *, ended: bool = True) -> list[int]:
    """All processes that descend from this one; also those that have ended and are not yet gone, unless told not to.

    One whose first thread has ended looks as if it had ended itself, and keeps its children while another thread runs.
    """
    parents, over = dict[int, list[int]](), set[int]()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                parents.setdefault(int(parent), []).append(int(entry.name))
                over |= {int(entry.name)} if state in "ZX" else set()
    found, new = list[int](), [root]
    while new:
        new = [child for pid in new for child in parents.get(pid, [])]
        found += new
    return found if ended else [pid for pid in found if pid not in over]


def _leave(code: int) -> NoReturn:
    """End with this exit code, or by this signal if it is negative."""
    if code < 0:
        with suppress(OSError, ValueError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [-code])
        time.sleep(1.0)  # it comes to the process between two instructions
    os._exit(code if code >= 0 else 128 - code)
