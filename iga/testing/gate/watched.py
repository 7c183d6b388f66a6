"""A child at work, as the one that watches it sees it: its messages, what it prints, how long it takes, how it ended.

The gate, a campaign of `iga fuzz` and a replay all watch children: each says what a message means and how long the next
may take. What a child wrote before it ended is read before it is called ended.
"""

import os
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from iga._text import one_line
from iga.testing.gate.channel import Garbled, Lines
from iga.testing.gate.keeper import below
from iga.testing.gate.start import Child

__all__ = ["LINES", "OUTPUT", "SHOWN", "TICK", "Clock", "Ending", "Output", "Watched", "queued", "ready_among"]

Take = Callable[[dict[str, Any]], bool]

OUTPUT = 1 << 20  # bytes that the accused may print at one step
SHOWN = 200  # characters of them in a note
TICK = 0.05  # seconds between two looks at a child
PATIENCE = 3.0  # times its limit that a child may wait for a core: one that crowds the machine itself ends too
LINES = 20  # of what it printed first that are kept, whatever the step
_MESSAGES, _PRINTED = 1 << 20, 1 << 16  # bytes that one look takes of either pipe


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


@dataclass(frozen=True)
class Ending:
    """Why a child will report no more. `hung`: its time ran out."""

    words: str
    hung: bool = False


class Watched:
    """A child at work on a request, with what it has shown since `step` was last called.

    allowed  seconds that it may take until then
    to       who reads its messages, in words
    printed  the first that it printed, whatever the step
    """

    def __init__(self, request: Mapping[str, Any], *, fork: bool, allowed: float, to: str = "gate") -> None:
        self.child = Child(request, fork=fork)
        self.allowed, self.printed = allowed, b""
        self._to, self._lines = to, Lines(self.child.pid)
        self.open = {self.child.messages, self.child.output}  # the pipes that may still say something
        self.step()

    def step(self) -> None:
        """A step begins: what it printed and how long it took count anew."""
        self.said, self._spent = Output(), Clock()
        self._queued: float | None = None  # when a quarter of its time was over
        self._due = 0.0  # its limit and what it waited, when that was last looked at

    def look(self, ready: set[int], take: Take) -> Ending | None:
        """Hand the messages that have come to `take`; how it ended, None while it goes on.

        ready  the pipes of its that can be read
        take   take(message) → whether a step begins with it; it raises Garbled for what none of its own can be

        A child that has ended is looked at until its pipes are empty, so that no message of its is lost.
        """
        try:
            closed = not self._read(self.open & ready, take)
            ended = not closed and self.child.ended()  # from here on its pipes hold all that it wrote
            while ended and not closed and self.said.count <= OUTPUT and (left := self._waiting()):
                closed = not self._read(left, take)
        except Garbled:
            return Ending(f"it wrote into the pipe to the {self._to}{self.said}")
        if closed or ended:
            closing = f"it closed the pipe to the {self._to}"
            return Ending(f"{self.child.how() if self.child.ended(1.0) else closing}{self.said}")
        if self.said.count > OUTPUT:
            return Ending(f"it printed more than {OUTPUT >> 20} MB{self.said}")
        if self._over():
            return Ending(f"it did not come back within {self.allowed:g} s (--timeout){self.said}", hung=True)
        return None

    def _over(self) -> bool:
        """True once its time is over; its wait for a core does not count, up to `PATIENCE` times that."""
        spent = self._spent.seconds()
        if self._queued is None and spent > self.allowed / 4:
            self._queued = queued(self.child.pid)
        if spent <= max(self.allowed, self._due):
            return False
        waited = queued(self.child.pid) - (self._queued or 0.0)
        self._due = self.allowed + min(waited, PATIENCE * self.allowed)
        return spent > self._due

    def close(self) -> None:
        """End it."""
        self.child.close()

    def _waiting(self) -> set[int]:
        return set(select.select(list(self.open), [], [], 0.0)[0])

    def _read(self, pipes: set[int], take: Take) -> bool:
        """Once from each pipe; False where that of the messages is at its end. Raises Garbled."""
        data = os.read(self.child.messages, _MESSAGES) if self.child.messages in pipes else None
        for message in self._lines.messages(data or b""):
            if take(message):
                self.step()
        if self.child.output in pipes:
            if printed := os.read(self.child.output, _PRINTED):
                self.said.add(printed)
                self.printed += printed[: max(0, LINES * SHOWN - len(self.printed))]
            else:
                self.open.discard(self.child.output)
        return data != b""


def queued(root: int) -> float:
    """Seconds that one thread, the one that did so longest, of a process and of those below it has waited for a core
    which others had; 0 where no system says so (Linux: the second number of schedstat)."""
    longest = 0
    for pid in (root, *below(root)) if sys.platform == "linux" else ():
        with suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
            for task in Path(f"/proc/{pid}/task").iterdir():
                longest = max(longest, int((task / "schedstat").read_text().split()[1]))
    return longest * 1e-9


def ready_among(children: Sequence[Watched]) -> set[int]:
    """The pipes of these children that can be read, within a tick."""
    pipes = [pipe for one in children for pipe in one.open]
    return {pipe for pipe in wait(pipes, TICK) if isinstance(pipe, int)}
