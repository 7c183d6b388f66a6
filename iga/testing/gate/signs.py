"""Signs of a child beside its messages: how long it takes, and what it prints."""

import time

from iga._text import one_line

__all__ = ["OUTPUT", "SHOWN", "TICK", "Clock", "Output"]

OUTPUT = 1 << 20  # bytes that the accused may print at one step
SHOWN = 200  # characters of them in a note
TICK = 0.05  # seconds between two looks at a child


class Clock:
    """Seconds since it was made, without those in which this process was stopped or the machine asleep."""

    def __init__(self) -> None:
        self._last, self._sum = time.monotonic(), 0.0

    def seconds(self) -> float:
        now = time.monotonic()
        self._sum += min(now - self._last, 20 * TICK)
        self._last = now
        return self._sum


class Output:
    """What the accused printed: how much, and how it began."""

    def __init__(self) -> None:
        self.count, self._first = 0, b""

    def add(self, data: bytes) -> None:
        self.count += len(data)
        self._first += data[: max(0, 8 * SHOWN - len(self._first))]

    def __str__(self) -> str:
        text = " / ".join(line.strip() for line in self._first.decode(errors="replace").splitlines() if line.strip())
        if not text:
            return ""
        return f"; it printed: {one_line(text[:SHOWN])}{'…' if len(text) > SHOWN else ''}"
