"""A second process that compiles CPU kernels beside this one, and hands back their machine code.

It is this interpreter again, with the modules of the kernels and no torch. It is told one kernel at a time, so that
whichever of the two processes is free takes the next. Where it cannot be started, or ends early, nothing is lost but
time: what it does not deliver is compiled here.
"""

import atexit
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from iga.kernels.cpu._compile import KERNELS, signature
from iga.kernels.cpu.cache import KeptCode, write

__all__ = ["Helper", "may_help", "serve"]

Item = tuple[str, str]  # kernel, dtype

# The package without its __init__, which would wait for torch.
_PROGRAM = """
import sys, types
sys.path[:] = {path!r}
bare = types.ModuleType("iga.kernels")
bare.__path__ = [{folder!r}]
sys.modules["iga.kernels"] = bare
import iga.kernels.cpu.ready
from iga.kernels.cpu.helper import serve
serve()
"""


def may_help() -> bool:
    """Whether a second process would have a core of its own, and there is an interpreter to start."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores > 1 and bool(sys.executable) and not getattr(sys, "frozen", False)


class Helper:
    """A process that works through `items` in order; each is its own or, if `take` comes first, the caller's."""

    def __init__(self, items: list[Item]) -> None:
        self._waiting = deque(items)
        self._code: dict[Item, Future[bytes | None]] = {item: Future() for item in items}
        self._process: subprocess.Popen[Any] | None = None
        threading.Thread(target=self._feed, name="iga-compile", daemon=True).start()
        atexit.register(self._end)

    def take(self, item: Item) -> bool:
        """Whether `item` was still waiting: then it is the caller's to compile."""
        try:
            self._waiting.remove(item)
        except ValueError:
            return False
        return True

    def code(self, item: Item) -> bytes | None:
        """What the process made of `item`, waiting for it; None if it made nothing."""
        return self._code[item].result()

    def _feed(self) -> None:
        folder = str(Path(__file__).resolve().parents[1])
        program = _PROGRAM.format(path=sys.path, folder=folder)
        with suppress(OSError, EOFError, ValueError, pickle.UnpicklingError):
            pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            with subprocess.Popen([sys.executable, "-c", program], **pipes) as process:
                self._process = process
                assert process.stdin is not None and process.stdout is not None
                while True:
                    try:
                        item = self._waiting.popleft()
                    except IndexError:
                        break
                    process.stdin.write(f"{item[0]} {item[1]}\n".encode())
                    process.stdin.flush()
                    code: bytes = pickle.load(process.stdout)
                    write(item[0], signature(*item), code)
                    self._code[item].set_result(code)
        self._end()
        for future in self._code.values():
            if not future.done():
                future.set_result(None)

    def _end(self) -> None:
        atexit.unregister(self._end)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def serve() -> None:
    """In the second process: kernels by name from standard input, their machine code to standard output."""
    out, sys.stdout = sys.stdout.buffer, sys.stderr
    gc.disable()
    KeptCode.elsewhere = True
    for line in sys.stdin:
        name, dtype = line.split()
        kernel = KERNELS[name][0]
        kernel.compile(signature(name, dtype))
        pickle.dump(kernel._cache.saved, out)
        out.flush()
