"""A stream of rounds, of which a campaign is made: each a second or so of one engine's work, the same for a seed.

A stream knows its own past alone: its generator, its pool, what it covered. So streams can run side by side, on one
machine or many, and a stream that was stopped goes on from its state as if it had not been.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from iga.testing.latest import Call

__all__ = ["Candidate", "Covered", "Judgement", "Round", "Stream"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """Inputs on which a check was over its limit, not yet believed.

    call   the exact inputs by name: of an overlap one pair, or the batch where one pair alone does not show it;
           of a layer those of its call, with what builds the layer (`iga.testing.latest.Call`)
    ratio  value over limit
    where  words of the check on where it was
    engine that met it
    """

    check: str
    call: Call
    ratio: float
    where: str
    note: str
    engine: str


@dataclass(frozen=True)
class Judgement:
    """What a candidate came to, judged again from its exact inputs alone: "broken", "ill-conditioned", or
    "not reproducible" (state, threads, randomness: a finding of its own)."""

    verdict: str
    value: float
    limit: float
    unit: str
    where: str
    note: str


@dataclass(frozen=True)
class Covered:
    """What a stream has been to: (site, side) → how often; cells of κ × angle × distance (× P) met, of how many; what
    could not be followed."""

    sides: dict[str, tuple[int, int]] = field(default_factory=dict)
    cells: int = 0
    of_cells: int = 0
    blind: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Round:
    """One round: which engine, how many examples (calls' pairs or cases), and what it met; of a layer's calls the
    pair-points, b · h · P · n² each."""

    engine: str
    examples: int
    worst: dict[str, float]
    candidates: list[Candidate]
    pair_points: int = 0


class Stream(Protocol):
    """A search of one accused. `checks` are those still searched: a campaign takes out what was found. `chosen` is
    called with the engine of each round before it begins."""

    kind: str
    checks: list[str]
    chosen: Callable[[str], None]

    def round(self) -> Round:
        """The next round. What the accused raises is a candidate, not an error."""
        ...

    def skip(self, number: int) -> None:
        """Pass over a round that did not come back, so that the one of this number draws otherwise."""
        ...

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, as JSON: arrays as base64 of their bytes, nothing pickled."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there. Raises ValueError for what is no state of such a stream."""
        ...

    def covered(self) -> Covered: ...

    def judge(self, candidate: Candidate) -> Judgement:
        """The candidate's check on its exact inputs alone."""
        ...

    def shrink(self, candidate: Candidate, seconds: float) -> Candidate:
        """The simplest inputs that were found on which the same check breaks, within so many seconds."""
        ...
