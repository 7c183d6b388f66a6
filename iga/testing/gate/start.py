"""A child process for the accused: how it starts, what it may take, and how it ends.

It is forked from this process, which has loaded everything and computed nothing: so a new one takes no time. Where that
is not safe, since threads run here or the system's libraries do not allow it, a fresh interpreter takes its place. The
child leads a session of its own, away from the terminal; its standard streams go to one pipe, and its standard input is
empty. It dies with this process, and all that it started with it (Linux: `gate.keeper`).
"""

import faulthandler
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from iga._runtime import available
from iga.testing.gate.channel import CLOSED
from iga.testing.gate.keeper import CROWD, CROWDED, keep
from iga.testing.gate.stopped import SIGNALS

__all__ = ["Child", "forkable", "side_by_side"]

MEMORY = (2 << 30, 12 << 30)  # bytes: of what is free three eighths, two children being at work, within these


def forkable() -> bool:
    """Whether a forked child of this process may compute: of threads that are not Python's, only those of the linear
    algebra library run here, which knows of forks. OpenMP, whose first parallel loop starts others, does not."""
    tasks = Path("/proc/self/task")
    if sys.platform != "linux" or not tasks.exists():
        return False
    cores = os.cpu_count() or 1
    asked = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or ""
    known = min(int(asked), cores) if asked.isdigit() else cores
    return len(list(tasks.iterdir())) - (threading.active_count() - 1) <= known


def side_by_side() -> bool:
    """Whether two children at once are faster than this process alone."""
    return (os.cpu_count() or 1) > 1 and forkable()


class Child:
    """A child at work on a request. `messages` and `output` are the descriptors of its two pipes; `pid` is its keeper's
    where there is one, and its messages carry it."""

    def __init__(self, request: Mapping[str, Any], *, fork: bool) -> None:
        self.messages, up = os.pipe()
        self.output, out = os.pipe()
        try:
            text = json.dumps(request)
            self.pid = _forked(up, out, text, (self.messages, self.output)) if fork else _fresh(up, out, text)
        except BaseException:  # an interrupt too: no descriptor may outlive a child that never began
            os.close(self.messages)
            os.close(self.output)
            raise
        finally:
            os.close(up)
            os.close(out)
        self._status: int | None = None

    def ended(self, within: float = 0.0) -> bool:
        """Whether it has ended, or does within so many seconds."""
        last = time.monotonic() + within
        while self._status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else in this process has waited for it
                pid, status = self.pid, 0
            if pid:
                self._status = status
            elif time.monotonic() >= last:
                return False
            else:
                time.sleep(0.005)
        return True

    def how(self) -> str:
        """How it ended, in words."""
        code = os.waitstatus_to_exitcode(self._status or 0)
        if code == CLOSED:
            return "it closed the pipe to the gate"
        if code == CROWDED:
            return f"it had more than {CROWD} processes running"
        if code >= 0:
            return f"it ended the process, with exit code {code}"
        name = next((one.name for one in signal.Signals if one == -code), str(-code))
        return f"the process was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    def close(self) -> None:
        """End it, with all that it started: its keeper does so when it is told to, and goes on if it was stopped."""
        kept = sys.platform == "linux"
        for number, within in ((signal.SIGTERM, 0.0), (signal.SIGCONT, 10.0)) if kept else ():
            if not self.ended():
                os.kill(self.pid, number)
                self.ended(within)
        if not kept or not self.ended():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self.ended(within=5.0)
        os.close(self.messages)
        os.close(self.output)


def _forked(up: int, out: int, request: str, ours: tuple[int, int]) -> int:
    for stream in (sys.stdout, sys.stderr):  # else what is not yet written would be written twice
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of threads, which `forkable` has looked for
        pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        for descriptor in ours:
            os.close(descriptor)
        for target, stream in ((0, os.open(os.devnull, os.O_RDONLY)), (1, out), (2, out)):
            os.dup2(stream, target)
        sys.stdin, sys.stdout, sys.stderr = (
            open(number, mode, encoding="utf-8", errors="replace", closefd=False)
            for number, mode in ((0, "r"), (1, "w"), (2, "w"))
        )
        sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
        faulthandler.enable(sys.stderr, all_threads=False)
        for number in (*SIGNALS, signal.SIGALRM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.close(out)
        _work(up, request)
    finally:
        os._exit(1)


def _fresh(up: int, out: int, request: str) -> int:
    with tempfile.TemporaryFile() as file:  # an argument of a process is shorter than some requests
        file.write(request.encode())
        file.seek(0)
        given = file.fileno()
        # modules are found where this process finds them, as in a forked one: pytest, say, adds folders of its own
        code = f"import sys; sys.path[:] = {[*map(str, sys.path)]!r}\n"
        code += f"from iga.testing.gate.start import _read, _work; _work({up}, _read({given}))"
        child = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=(up, given),
            start_new_session=True,
        )
    child.returncode = 0  # it is waited for here: Popen need not
    return child.pid


def _read(descriptor: int) -> str:
    with open(descriptor, encoding="utf-8") as file:
        return file.read()


def _work(up: int, request: str) -> None:
    """The child's life, below a keeper, with its limits set."""
    number = os.getpid()
    keep(lambda: _limited(up, request, number))


def _limited(up: int, request: str, number: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as switch:
            switch.write("1000")  # rather than anything else
    room = min(max(MEMORY[0], available() * 3 // 8), MEMORY[1])
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (room, room))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from iga.testing.gate.child import main

    main(up, request, number)
