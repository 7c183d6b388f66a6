"""Signals that tell the gate to end while it waits for its children: it says what is known by then.

The accused can send them, too: who sent one is not asked, and what has not been judged is broken.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["SIGNALS", "stops"]

SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
]


@contextmanager
def stops() -> Iterator[list[signal.Signals]]:
    """The signals that came, in a list that fills meanwhile. A second Ctrl-C raises KeyboardInterrupt.

    Signals that the process ignores stay ignored. Only the main thread can heed signals; in another the list stays
    empty, and they do what they did before.
    """
    came: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def heed(number: int, frame: FrameType | None) -> None:
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.append(signal.Signals(number))

    before = {one: signal.getsignal(one) for one in SIGNALS}
    heeded = {one: handler for one, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for one in heeded:
        signal.signal(one, heed)
    try:
        yield came
    finally:
        for one, handler in heeded.items():
            signal.signal(one, handler)
