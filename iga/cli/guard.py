"""The guard around every command: streams that can't show a character, that are full, or whose reader has left."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from iga.cli.terminal import complain, words

__all__ = ["guarded", "once"]

_CLOSED = 128 + getattr(signal, "SIGPIPE", 13)  # as a shell says of a command that the signal ended

_insists = True


@contextmanager
def once() -> Iterator[None]:
    """A Ctrl-C while inside comes once: what it interrupts has something to write, which a second one ends."""
    global _insists
    before, _insists = _insists, False
    try:
        yield
    finally:
        _insists = before


def guarded(run: Callable[[], int]) -> int:
    """The exit code of `run`, 2 where its output or memory does not suffice, 130 on an interrupt; without a traceback.

    A character that the terminal's encoding lacks is printed as "?" and changes nothing.
    """
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    code = _CLOSED
    try:
        with _insistent():
            code = _code(run)
    except BrokenPipeError:
        pass  # quietly: `iga … | head -1` has what it wanted
    sys.stdout, sys.stderr = streams  # typer puts others in their place
    for stream in streams:
        if stream is not None and not _flushed(stream):
            _abandon(stream)
    return code


@contextmanager
def _insistent() -> Iterator[None]:
    """A Ctrl-C that is swallowed, as by a package that is imported, comes again each second until it is heeded."""
    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not own or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if _insists:
            signal.setitimer(signal.ITIMER_REAL, 1.0)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    alarm = signal.signal(signal.SIGALRM, interrupt)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _code(run: Callable[[], int]) -> int:
    try:
        code = run()
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        raise
    except SystemExit as left:
        cause = left.__context__  # typer ends 1, "does not hold", where a pipe is closed
        if isinstance(cause, OSError) and cause.errno == errno.EPIPE:
            return _CLOSED
        raise
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except OSError as error:
        ours = error.filename is None and sys.stdout is not None and not _flushed(sys.stdout)
        complain(f"standard output: {error.strerror}" if ours else words(error))
        return 2
    except MemoryError as error:
        complain(f"out of memory {error}; take smaller sizes")
        return 2
    except RuntimeError as error:
        # torch.OutOfMemoryError on a GPU; on a CPU a plain RuntimeError of this text
        if "out of memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        complain(f"out of memory: {str(error).strip().splitlines()[0]}; take smaller sizes")
        return 2


def _flushed(stream: Any) -> bool:
    try:
        stream.flush()
    except (OSError, ValueError):
        return False
    return True


def _abandon(stream: Any) -> None:
    """What is left in the stream goes nowhere: Python would complain once more as it leaves, and change the code."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
    except (OSError, ValueError):
        pass
