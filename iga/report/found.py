"""The types of what a search found, and of where it has been: parts of the document of `iga fuzz`."""

from typing import Literal, TypedDict

__all__ = ["Counterexample", "Engine", "Reached", "Site"]


class Counterexample(TypedDict):
    """What a search found of one check: judged again from its inputs alone, in a process of its own.

    "process" for a check is the accused that ended its process, hung or printed without end; its `engine` is that of
    the round, or "loading". `inputs` names the folder that holds them, if any; null stands for a number that is not
    finite. "not judged" is what the time did not reach.
    """

    check: str
    verdict: Literal["broken", "ill-conditioned", "not reproducible", "not judged"]
    value: float | None
    limit: float | None
    unit: str
    where: str
    note: str
    engine: str
    seconds: float
    examples: int
    inputs: str


class Engine(TypedDict):
    """What an engine of a search did."""

    name: str
    rounds: int
    examples: int


class Reached(TypedDict):
    """How near a check came to its limit: the largest value over limit, null where it was not finite."""

    check: str
    worst: float | None


class Site(TypedDict):
    """A place where the accused branches, and how many of the sampled examples took either side."""

    place: str
    true: int
    false: int
