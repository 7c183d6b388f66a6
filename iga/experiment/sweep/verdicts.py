"""The verdict on each cure, by the rules that were fixed before any run of a sweep: docs/experiment/rules.md.

A cure is judged by four arms: sick (no cure), alone (this one only), full (all of a set) and without (full but for it).
With δ = ln 1.05, r = ln L(without) − ln L(full), a = ln L(sick) − ln L(alone) and g = ln L(alone) − ln L(full):

    needed r > δ      sufficient a > δ and g < δ      superfluous |r| < δ (|a|, without r)      harmful r or a < −δ

each a test over seeds. Holm's procedure over all of them in the cells of the primary condition; elsewhere, and of a
cure that was added when the rules were fixed, exploratory.
"""

import math
from dataclasses import dataclass

from iga.experiment.results.readings import SeedMean
from iga.experiment.sweep.decisions import above, below, between, holm
from iga.experiment.sweep.readings import CellKey, Losses, Result, cells_of, effect, is_primary, losses_of, mean

__all__ = ["CURES", "DELTA", "FACTOR", "LEVEL", "WORDS", "CellVerdict", "Cure", "CureVerdict", "hypotheses", "judge"]

FACTOR = 1.05
DELTA = math.log(FACTOR)
LEVEL = 0.05
WORDS = ("needed", "sufficient", "superfluous", "harmful")


@dataclass(frozen=True)
class Cure:
    """The arms that a cure is judged by; "" where there is none. exploratory: in the primary condition too."""

    name: str
    sick: str = ""
    alone: str = ""
    full: str = ""
    without: str = ""
    exploratory: bool = False

    @property
    def arms(self) -> dict[str, tuple[str, ...]]:
        """What each difference takes: r, a and g; without an entry where an arm is missing."""
        made = {"r": (self.without, self.full), "a": (self.sick, self.alone), "g": (self.alone, self.full)}
        return {name: pair for name, pair in made.items() if all(pair)}


_SICK = "logdet_clamp"
CURES: tuple[Cure, ...] = (
    Cure("σ floor", _SICK, "floor", "floor_rsqrt_closed", "rsqrt_closed"),
    Cure("1/√P", _SICK, "rsqrt", "floor_rsqrt_closed", "floor_closed"),
    Cure("mean over points", _SICK, "mean", "floor_mean_closed", "floor_closed"),
    Cure("closed form", _SICK, "closed", "floor_rsqrt_closed", "sigma_floor"),
    Cure("σ floor and 1/√P", _SICK, "sigma_floor", "bounded"),
    Cure("Student-t score", _SICK, "student_t", "bounded", "bounded_gaussian"),
    Cure("cap", _SICK, "cap", "bounded", "bounded_uncapped"),
    Cure("weight at the start", _SICK, "weight", "bounded", "bounded_weight1"),
    Cure("ν = 1", full="bounded_nu1", without="bounded"),
    Cure("time gate", full="bounded_time_gate", without="bounded"),
    Cure("QK-norm", _SICK, "qk_norm", "bounded"),
    Cure("soft cap", _SICK, "soft_cap", "bounded"),
    Cure("σReparam", _SICK, "spectral", "bounded"),
    Cure("gradient clipping", _SICK, "clip", "bounded"),
    Cure("QK-norm on IPA", full="ipa_qk_norm", without="ipa"),
    Cure("soft cap on IPA", full="ipa_soft_cap", without="ipa"),
    Cure("σReparam on IPA", full="ipa_spectral", without="ipa"),
    Cure("gradient clipping on IPA", full="ipa_clip", without="ipa"),
    Cure("softplus σ", _SICK, "softplus", "bounded", exploratory=True),
    Cure("softplus σ, not the floor", full="softplus", without="floor", exploratory=True),
    Cure("σ floor of bounded", full="bounded", without="bounded_unfloored", exploratory=True),
    Cure("smooth floor", full="bounded", without="bounded_hard", exploratory=True),
    Cure("mean of bounded", full="bounded", without="bounded_sum", exploratory=True),
)


@dataclass(frozen=True)
class CellVerdict:
    """A cure in a cell: the differences r, a and g over seeds, and the p of each word, in the primary condition as
    Holm's procedure adjusts it; None where it could not be tested."""

    cure: Cure
    cell: CellKey
    primary: bool
    differences: dict[str, SeedMean]
    p: dict[str, float | None]

    @property
    def found(self) -> set[str]:
        return {word for word, p in self.p.items() if p is not None and p <= LEVEL}

    @property
    def word(self) -> str:
        return _one(self.found)


@dataclass(frozen=True)
class CureVerdict:
    """A cure over the cells of a condition: needed or harmful in one of them, sufficient or superfluous in all."""

    cure: Cure
    condition: tuple[str, float | None]
    primary: bool
    cells: tuple[CellVerdict, ...]

    @property
    def word(self) -> str:
        found = [cell.found for cell in self.cells]
        return _one(set().union(*found) & {"needed", "harmful"} | set.intersection(*found))


def judge(result: Result) -> list[CureVerdict]:
    """Every cure whose arms the grid has, in every condition; the primary one first, if the grid has it."""
    cells = cells_of(result)
    judged = [one for one in CURES if _words(one, result)]
    losses = {cell: losses_of(result, cell) for cell in cells}
    raw = {(cure, cell): _tested(cure, result, losses[cell]) for cure in judged for cell in cells}
    family = hypotheses(result)
    adjusted = dict(zip(family, holm([raw[cure, cell][word] for cure, cell, word in family]), strict=True))
    made = []
    for condition in dict.fromkeys(cell.condition for cell in cells):
        for cure in judged:
            rows = []
            for cell in cells:
                if cell.condition != condition:
                    continue
                primary, p = is_primary(result, cell) and not cure.exploratory, dict(raw[cure, cell])
                if primary:
                    p = {word: None if p[word] is None else adjusted[cure, cell, word] for word in p}
                rows.append(CellVerdict(cure, cell, primary, _differences(cure, losses[cell]), p))
            made.append(CureVerdict(cure, condition, rows[0].primary, tuple(rows)))
    return made


def hypotheses(result: Result) -> list[tuple[Cure, CellKey, str]]:
    """The family of Holm's procedure: every word that the arms of the grid can test, in every primary cell, planned."""
    cells = [cell for cell in cells_of(result) if is_primary(result, cell)]
    cures = [cure for cure in CURES if not cure.exploratory]
    return [(cure, cell, word) for cure in cures for cell in cells for word in _words(cure, result)]


def _one(found: set[str]) -> str:
    if "harmful" in found:
        return "harmful"
    strong = [word for word in ("needed", "sufficient") if word in found]
    return " and ".join(strong) or ("superfluous" if "superfluous" in found else "undecided")


def _pairs(cure: Cure, result: Result) -> set[str]:
    """Which of r, a and g the arms of the grid have."""
    return {name for name, pair in cure.arms.items() if set(pair) <= set(result["settings"]["arms"])}


def _words(cure: Cure, result: Result) -> list[str]:
    """The words that the arms of the grid can test."""
    there = _pairs(cure, result)
    able = {
        "needed": "r" in there,
        "sufficient": {"a", "g"} <= there,
        "superfluous": bool(there & {"r", "a"}),
        "harmful": bool(there & {"r", "a"}),
    }
    return [word for word in WORDS if able[word]]


def _values(cure: Cure, losses: dict[str, Losses]) -> dict[str, tuple[float, ...]]:
    return {name: effect(losses.get(of), losses.get(to)) for name, (of, to) in cure.arms.items()}


def _differences(cure: Cure, losses: dict[str, Losses]) -> dict[str, SeedMean]:
    found = {name: mean(values) for name, values in _values(cure, losses).items()}
    return {name: one for name, one in found.items() if one is not None}


def _tested(cure: Cure, result: Result, losses: dict[str, Losses]) -> dict[str, float | None]:
    """p of each word."""
    there, values = _pairs(cure, result), _values(cure, losses)
    made: dict[str, float | None] = {}
    for word in _words(cure, result):
        match word:
            case "needed":
                made[word] = above(values["r"], DELTA)
            case "sufficient":
                alone, gap = above(values["a"], DELTA), below(values["g"], DELTA)
                made[word] = None if alone is None or gap is None else max(alone, gap)
            case "superfluous":
                made[word] = between(values["r" if "r" in there else "a"], DELTA)
            case _:
                found = [below(values[name], -DELTA) for name in ("r", "a") if name in there]
                known = [p for p in found if p is not None]
                made[word] = min(1.0, len(found) * min(known)) if known else None  # Bonferroni: either will do
    return made
