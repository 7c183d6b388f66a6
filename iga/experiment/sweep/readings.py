"""The readings of a sweep's result: its cells, the loss of each run, and effects between two arms of a seed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from iga.experiment.results.readings import SeedMean, estimate, window_length
from iga.experiment.sweep.grid import PRIMARY

__all__ = [
    "CellKey",
    "Losses",
    "arms_of",
    "cells_of",
    "effect",
    "in_words",
    "is_primary",
    "losses_of",
    "mean",
    "runs_at",
]

Result = Mapping[str, Any]
Run = Mapping[str, Any]
# {seed: (ln L, whether L is that of predicting the input)} of an arm in a cell
Losses = dict[int, tuple[float, bool]]


class CellKey(NamedTuple):
    """A condition with a number of points and a learning rate."""

    stress: str
    dose: float | None
    points: int
    learning_rate: float

    @property
    def condition(self) -> tuple[str, float | None]:
        return self.stress, self.dose


def cells_of(result: Result) -> list[CellKey]:
    """The cells of the grid as it was planned: of its settings, whether runs are made or not."""
    settings = result["settings"]
    conditions = []
    for stress in settings["stresses"]:
        drawn = stress != "collapse" or not settings["doses"]
        conditions += [(stress, None)] if drawn else [(stress, dose) for dose in settings["doses"]]
    conditions.sort(key=lambda one: (settings["gaussians"], *one) != PRIMARY)
    return [
        CellKey(stress, dose, points, rate)
        for stress, dose in conditions
        for points in sorted(settings["points"])
        for rate in sorted(settings["learning_rates"])
    ]


def is_primary(result: Result, cell: CellKey) -> bool:
    return (result["settings"]["gaussians"], *cell.condition) == PRIMARY


def in_words(stress: str, dose: float | None) -> str:
    return stress if dose is None else f"{stress} {dose:g}".replace("-", "−")


def runs_at(result: Result, cell: CellKey) -> dict[str, dict[int, Run]]:
    """{arm: {seed: run}} of the runs that are made."""
    made: dict[str, dict[int, Run]] = {}
    for run in result["runs"]:
        if CellKey(run["stress"], run["dose"], run["points"], run["learning_rate"]) == cell:
            if run["status"] != "running":
                made.setdefault(run["arm"], {})[run["seed"]] = run
    return made


def arms_of(result: Result) -> list[str]:
    return list(result["settings"]["arms"])


def losses_of(result: Result, cell: CellKey) -> dict[str, Losses]:
    """ln L of every arm's made runs: L is the mean of se3_vf_loss_raw over the evaluations in the last quarter of the
    planned steps, at most that of predicting the input, which is also that of a run that went non-finite."""
    most, planned = result["input_loss"], result["settings"]["steps"]
    if most is None:
        return {}
    return {
        arm: {seed: _loss(run, most, planned) for seed, run in by_seed.items()}
        for arm, by_seed in runs_at(result, cell).items()
    }


def uncapped(run: Run, planned: int) -> float | None:
    """The loss as it is, larger than the input's where it is; None for a run that has none that is finite."""
    first = planned - window_length(planned)
    values = [row["se3_vf_loss_raw"] for row in run["held_out"] if first < row["step"] <= planned]
    finite = [value for value in values if value is not None]
    if run["status"] != "finished" or not finite or len(finite) < len(values):
        return None
    return math.fsum(finite) / len(finite)


def _loss(run: Run, most: float, planned: int) -> tuple[float, bool]:
    loss = uncapped(run, planned)
    if loss is None or loss >= most:
        return math.log(most), True
    return math.log(loss), False


def effect(of: Losses | None, to: Losses | None) -> tuple[float, ...]:
    """ln L of the one minus that of the other, of each seed that has both, unless both stand at the input's loss."""
    if of is None or to is None:
        return ()
    return tuple(of[seed][0] - to[seed][0] for seed in sorted(of) if seed in to and not (of[seed][1] and to[seed][1]))


def mean(values: Sequence[float]) -> SeedMean | None:
    return estimate(values) if values else None
