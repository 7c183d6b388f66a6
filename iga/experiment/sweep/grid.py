"""The grid of a sweep: which runs it has, in which order, and what each of them is. It is written down before any run.

FOLDER/sweep.json       the grid                    FOLDER/data.pt    the chains (`iga.experiment.run.dataset`)
FOLDER/runs/NAME/…      one folder a run            FOLDER/result.json, report.md, report.html
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from iga.experiment.cures import ARMS_APART
from iga.experiment.run.plan import ComparisonPlan
from iga.experiment.settings import ARMS, STRESSES, Settings, load_settings

__all__ = ["ALL_ARMS", "PRIMARY", "Cell", "SweepPlan", "names", "numbers"]

ALL_ARMS = (*ARMS, *ARMS_APART)
# The condition whose cells decide: what the Gaussians do, the stress, its dose (docs/experiment/rules.md).
PRIMARY = ("fixed", "collapse", None)
# Settings that have an option of their own, beside those of a comparison.
_OWN = ("training.lr", "model.points", "data.stressor", "data.collapse", "name")
N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Cell:
    """A run's place in the grid. dose: the shift of a collapse that has one; None: drawn, or no collapse."""

    stress: str
    dose: float | None
    points: int
    learning_rate: float
    seed: int
    arm: str


@dataclass(frozen=True)
class SweepPlan(ComparisonPlan):
    """What `iga sweep` was asked for: a comparison at every number of points, learning rate and stress.

    stresses    "none", "collapse", "needles" and "both"
    doses       shifts of log scales: each a condition in place of the stress "collapse", which draws them
    """

    FILE: ClassVar[str] = "sweep.json"
    WHAT: ClassVar[str] = "sweep"
    WORKER: ClassVar[str] = "iga.experiment.sweep.worker"
    GROWS: ClassVar[tuple[str, ...]] = ()  # what was judged is what was planned

    seeds: int = 5
    samples: int = 0
    points: tuple[int, ...] = (4,)
    learning_rates: tuple[float, ...] = (1e-3,)
    stresses: tuple[str, ...] = ("none",)
    doses: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("points", "learning_rates", "stresses"):
            if not getattr(self, name):
                raise ValueError(f"the grid is empty: {name.replace('_', ' ')} must name at least one")
        for name in ("points", "learning_rates", "stresses", "doses"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise ValueError(f"{name.replace('_', ' ')} must be named once each, got {', '.join(map(str, given))}")
        known = ("none", *STRESSES)
        for stress in self.stresses:
            if stress not in known:
                raise ValueError(f"stress must be one of {', '.join(sorted(known))}; got {stress!r}")
        if self.doses and "collapse" not in self.stresses:
            raise ValueError('doses of collapse belong to the stress "collapse": pass --stress collapse')
        for override in self.overrides:
            if override.partition("=")[0].strip() in _OWN:
                raise ValueError(f"{override!r} has an option of its own (--learning-rates, --points, --stress, …)")
        super().__post_init__()
        if len(self.runs()) < len(self._cells()):
            raise ValueError("two runs of the grid have one name; leave out arm.label")

    def conditions(self) -> list[tuple[str, float | None]]:
        """(stress, dose), the primary one first, the rest as they were named."""
        made: list[tuple[str, float | None]] = []
        for stress in self.stresses:
            made += [(stress, dose) for dose in self.doses] if stress == "collapse" and self.doses else [(stress, None)]
        return sorted(made, key=lambda one: (self.gaussians, *one) != PRIMARY)

    def runs(self) -> dict[str, Cell]:  # pyright: ignore[reportIncompatibleMethodOverride] - a place has more coordinates
        """Name → place, in the order of the runs (docs/experiment/rules.md): conditions, few points first, the learning
        rate nearest to that of the size first, then seed by seed all arms."""
        return {self._at(cell).run_name: cell for cell in self._cells()}

    def settings_of(self, run: str) -> Settings:
        return self._at(self.runs()[run])

    def any_settings(self, arm: str | None = None) -> Settings:
        """Of the first seed and the largest network: for what does not depend on the rest."""
        stress, dose = self.conditions()[0]
        first = Cell(stress, dose, max(self.points), self.learning_rates[0], self.seed, arm or self.arms[0])
        return self._at(first)

    def _cells(self) -> list[Cell]:
        usual = load_settings("ipa", self.size).training.lr

        def away(rate: float) -> tuple[float, float]:  # of two that are as near the lower
            return (round(abs(math.log(rate / usual)), 9) if rate > 0 else math.inf), rate

        rates = sorted(self.learning_rates, key=away)
        seeds = range(self.seed, self.seed + self.seeds)
        grid = itertools.product(self.conditions(), sorted(self.points), rates, seeds, self.arms)
        return [Cell(*condition, points, rate, seed, arm) for condition, points, rate, seed, arm in grid]

    def _at(self, cell: Cell) -> Settings:
        settings = self._settings(cell.arm, cell.seed)
        stressed = cell.stress != "none"
        stressor = cell.stress if stressed else "both"
        return replace(
            settings,
            name=f"{self.size}_P{cell.points}_lr{cell.learning_rate!r}",
            model=replace(settings.model, points=cell.points),
            training=replace(settings.training, lr=cell.learning_rate),
            data=replace(settings.data, stress=stressed, stressor=stressor, collapse=cell.dose),
        )


def names(text: str, known: Sequence[str], what: str) -> tuple[str, ...]:
    """ "a,b" as a tuple of known names. Raises ValueError that names those that exist."""
    made = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in made:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}; {what}s: {', '.join(known)}")
    return made


def numbers(text: str, what: str, kind: type[N]) -> tuple[N, ...]:
    """ "1,2" as a tuple of numbers, int or float; a minus sign may be typographic. Raises ValueError that names what is
    none."""
    made = []
    for part in filter(None, map(str.strip, text.replace("−", "-").split(","))):
        try:
            made.append(kind(part))
        except ValueError as error:
            words = "whole numbers" if kind is int else "numbers"
            raise ValueError(f"{what} must be {words} with commas between, got {part!r}") from error
    return tuple(made)
