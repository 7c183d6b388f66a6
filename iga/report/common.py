"""The types that documents of several commands share: where a run was made, and the finding of one check."""

from typing import Literal, NotRequired, TypedDict

from iga.report.measured import Curve, Histogram

__all__ = ["Environment", "Invariant", "Machine"]


class Environment(TypedDict):
    """Versions, device and seed of a run."""

    iga: str
    python: str
    torch: str
    numpy: str
    gemmi: str
    platform: str
    device: str
    threads: int
    seed: int
    date: str


class Machine(TypedDict):
    """The machine that times, the versions on it, and the commit of the checkout where there is one."""

    cpu: str
    cores: int
    platform: str
    versions: dict[str, str]
    date: str
    commit: str | None


class Invariant(TypedDict):
    """The finding of one check; null stands for a number that is not finite, which verdict and note explain.

    `lower`: the budget is a floor. `reproduce` is a command that shows the check alone.
    """

    name: str
    verdict: Literal["holds", "broken", "vacuous", "not supported"]
    worst: float | None
    budget: float | None
    unit: str
    examples: int
    vacuous: int
    undecided: int
    worst_example: str
    note: str
    expected_broken: str | None
    reproduce: NotRequired[str]
    lower: NotRequired[bool]
    curves: NotRequired[list[Curve]]
    histograms: NotRequired[list[Histogram]]
