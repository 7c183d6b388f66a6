"""A child of a campaign, as its parent sees it: what it sends, what it prints, and how it ended."""

import os
from dataclasses import dataclass, field
from typing import Any

from iga.testing.gate.channel import Garbled, Lines
from iga.testing.gate.signs import OUTPUT, Clock, Output
from iga.testing.gate.start import Child

__all__ = ["LOADING", "Lost", "Watched"]

LOADING = 60.0  # seconds for a child to load its target, beside those of the limit

Fact = dict[str, Any]


class Lost(ValueError):
    """The target could not be loaded, or was misused: one line."""


@dataclass
class Watched:
    """A child, with what it has shown since it was last heard of."""

    child: Child
    allowed: float
    lines: Lines = field(init=False)
    said: Output = field(default_factory=Output)
    spent: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.lines = Lines(self.child.pid)
        self.open = {self.child.messages, self.child.output}

    def look(self, ready: set[int]) -> tuple[list[Fact], str]:
        """(messages, how it ended; empty while it goes on)."""
        gone, messages = not ready and self.child.ended(), []
        if self.child.messages in ready:
            data = os.read(self.child.messages, 1 << 20)
            gone = gone or not data
            try:
                messages = list(self.lines.messages(data))
            except Garbled:
                return [], f"it wrote into the pipe to the campaign{self.said}"
            if messages:
                self.spent = Clock()
        if self.child.output in ready:
            if data := os.read(self.child.output, 1 << 16):
                self.said.add(data)
            else:
                self.open.discard(self.child.output)
        if gone:
            return messages, f"{self.child.how() if self.child.ended(1.0) else 'it closed the pipe'}{self.said}"
        if self.said.count > OUTPUT:
            return messages, f"it printed more than {OUTPUT >> 20} MB{self.said}"
        if self.spent.seconds() > self.allowed:
            return messages, f"it did not come back within {self.allowed:g} s (--timeout){self.said}"
        return messages, ""
