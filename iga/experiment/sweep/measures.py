"""The exploratory measures of a sweep: learning rates that an arm bears, growth with P, clamped samples, choices."""

import math
import statistics
from dataclasses import dataclass

from iga.experiment.results.readings import SeedMean
from iga.experiment.results.verdicts import BEFORE, CLAMPED_PREMISE, CLAMPED_RATIO, COMPARED
from iga.experiment.sweep.readings import CellKey, Losses, Result, cells_of, effect, losses_of, mean, runs_at
from iga.experiment.sweep.verdicts import DELTA

__all__ = ["STABLE", "Clamped", "Rates", "as_good", "clamped", "growth", "rates_of"]

STABLE = 1.2  # times the best loss over the rates


@dataclass(frozen=True)
class Rates:
    """An arm over the learning rates of a condition and P, in the manner of Wortsman et al. 2023: the largest stable
    rate, None where not even the lowest is, and the mean over the rates of L minus its least. Stable: every run is
    finite, the mean loss at most STABLE times the arm's best, and under that of the input."""

    condition: tuple[str, float | None]
    points: int
    arm: str
    stable: float | None
    excess: float
    rates: int


@dataclass(frozen=True)
class Clamped:
    """Claim (d) by samples and by steps in a cell: counts over seeds, before and after, and decades of their ratio."""

    cell: CellKey
    arm: str
    word: str
    samples: tuple[float, float]
    steps: tuple[float, float]
    factor: SeedMean | None


def rates_of(result: Result) -> list[Rates]:
    """Of each condition, P and arm with at least two rates that have runs."""
    found: dict[tuple[tuple[str, float | None], int, str], dict[float, tuple[float, bool]]] = {}
    for cell in cells_of(result):
        runs, losses = runs_at(result, cell), losses_of(result, cell)
        for arm, by_seed in losses.items():
            learned = not all(capped for _, capped in by_seed.values())
            sound = learned and all(run["status"] == "finished" for run in runs[arm].values())
            loss = statistics.fmean(math.exp(value) for value, _ in by_seed.values())
            found.setdefault((cell.condition, cell.points, arm), {})[cell.learning_rate] = (loss, sound)
    made = []
    for (condition, points, arm), by_rate in found.items():
        if len(by_rate) < 2:
            continue
        best = min(loss for loss, _ in by_rate.values())
        stable = None
        for rate, (loss, sound) in sorted(by_rate.items()):
            if not sound or loss > STABLE * best:
                break
            stable = rate
        excess = statistics.fmean(loss - best for loss, _ in by_rate.values())
        made.append(Rates(condition, points, arm, stable, excess, len(by_rate)))
    return made


def growth(result: Result) -> list[tuple[tuple[str, float | None], float, str, SeedMean]]:
    """(condition, rate, arm, exponent): b of geo_scaled_absmax = a P^b in the last quarter of training, by least
    squares on logarithms, of each seed that has two numbers of points."""
    found: dict[tuple[tuple[str, float | None], float, str], dict[int, dict[int, float]]] = {}
    for cell in cells_of(result):
        for arm, by_seed in runs_at(result, cell).items():
            for seed, run in by_seed.items():
                value = run["totals"]["geo_scaled_absmax_late"]
                if value:
                    where = found.setdefault((cell.condition, cell.learning_rate, arm), {})
                    where.setdefault(seed, {})[cell.points] = value
    made = []
    for place, seeds in found.items():
        slopes = []
        for by_points in seeds.values():
            if len(by_points) > 1:
                x, y = ([math.log(v) for v in values] for values in (by_points, by_points.values()))
                slopes.append(statistics.linear_regression(x, y).slope)
        exponent = mean(slopes)
        if exponent is not None:
            made.append((*place, exponent))
    return made


def clamped(result: Result) -> list[Clamped]:
    """(d) in every cell that has the state before the change and an arm that it is claimed of."""
    made = []
    for cell in cells_of(result):
        runs = runs_at(result, cell)
        for arm in COMPARED:
            seeds = [seed for seed in runs.get(BEFORE, {}) if seed in runs.get(arm, {})]
            pairs = [(runs[BEFORE][seed]["totals"], runs[arm][seed]["totals"]) for seed in seeds]
            if not pairs:
                continue
            samples, steps = (
                tuple(statistics.fmean(one[of][name] for one in pairs) for of in (0, 1))
                for name in ("clamped_samples", "clamped_steps")
            )
            factor = mean([math.log10((a["clamped_samples"] + 0.5) / (b["clamped_samples"] + 0.5)) for a, b in pairs])
            share = statistics.fmean(a["clamped_samples"] / max(a["samples"], 1) for a, _ in pairs)
            made.append(Clamped(cell, arm, _word(share, factor), _two(samples), _two(steps), factor))
    return made


def _two(values: tuple[float, ...]) -> tuple[float, float]:
    return values[0], values[1]


def _word(share: float, factor: SeedMean | None) -> str:
    if factor is None or factor.interval is None or share < CLAMPED_PREMISE:
        return "undecided"
    bound = math.log10(CLAMPED_RATIO)
    return "supported" if factor.low > bound else "refuted" if factor.high < bound else "undecided"


def as_good(losses: dict[str, Losses]) -> tuple[str, list[str]]:
    """(the arm of the lowest mean ln L, the others that the data do not show to be worse by the stated factor).

    No arm, where none has a run that does better than its input.
    """
    learned = {arm: by for arm, by in losses.items() if not all(capped for _, capped in by.values())}
    means = {arm: statistics.fmean(value for value, _ in by.values()) for arm, by in learned.items()}
    if not means:
        return "", []
    best = min(means, key=means.__getitem__)
    others = []
    for arm in losses:
        found = mean(effect(losses[arm], losses[best]))
        if arm != best and (found is None or found.low <= DELTA):
            others.append(arm)
    return best, others
