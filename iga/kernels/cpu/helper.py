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
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from iga.kernels.cpu.cache import Item, compiled_code, write

__all__ = ["Code", "compile_beside", "may_help", "serve"]

# None: nothing was made. What is cancelled before the process takes it, the caller compiles.
Code = Future[bytes | None]

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


def compile_beside(items: list[Item]) -> dict[Item, Code]:
    """The machine code of `items`, which a second process compiles in their order, and keeps."""
    made = {item: Code() for item in items}
    threading.Thread(target=_feed, args=(made,), name="iga-compile", daemon=True).start()
    return made


def _feed(made: dict[Item, Code]) -> None:
    program = _PROGRAM.format(path=sys.path, folder=str(Path(__file__).resolve().parents[1]))
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with (
        suppress(OSError, EOFError, ValueError, pickle.UnpicklingError),
        subprocess.Popen([sys.executable, "-c", program], **pipes) as process,
    ):
        atexit.register(process.kill)
        told, answers = process.stdin, process.stdout
        assert told is not None and answers is not None
        for item, future in made.items():
            if future.set_running_or_notify_cancel():
                told.write(f"{item[0]} {item[1]}\n".encode())
                told.flush()
                code: bytes = pickle.load(answers)
                write(item, code)
                future.set_result(code)
    for future in made.values():
        if future.running() or (not future.done() and future.set_running_or_notify_cancel()):
            future.set_result(None)


def serve() -> None:
    """In the second process: kernels by name from standard input, their machine code to standard output."""
    out: IO[bytes] = sys.stdout.buffer
    sys.stdout = sys.stderr
    gc.disable()
    for line in sys.stdin:
        name, dtype = line.split()
        pickle.dump(compiled_code((name, dtype)), out)
        out.flush()
