"""The table arm × metrics of a result: means over seeds with their intervals, and paired differences against ipa.

Every number is computed from the result; "–" stands where the result has none.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from iga._statistics import COVERAGE
from iga.experiment.results.columns import Group, Metric, mean_of, number
from iga.experiment.results.readings import (
    Result,
    Run,
    SeedMean,
    estimate,
    held_out_values,
    matched_steps,
    runs_of,
    seeds_of,
    went_non_finite,
)
from iga.report.document import Table

__all__ = [
    "BASE",
    "NOTHING",
    "Health",
    "below",
    "cell",
    "digits",
    "first_non_finite",
    "health",
    "interval_text",
    "intervals_line",
    "is_healthy",
    "metric_table",
    "paired_table",
    "values_of",
]

BASE = "ipa"
NOTHING = "–"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def values_of(by_seed: Mapping[int, Run], metric: Metric, matched: Mapping[int, int]) -> dict[int, float]:
    """{seed: value} of an arm's runs that say one."""
    found = {seed: metric.value(run, matched[seed]) for seed, run in by_seed.items()}
    return {seed: value for seed, value in found.items() if value is not None}


def metric_table(result: Result, group: Group) -> Table:
    """One row an arm: mean over seeds [interval]."""
    matched = matched_steps(result)
    rows = []
    for arm, by_seed in runs_of(result).items():
        values = [list(values_of(by_seed, metric, matched).values()) for metric in group.metrics]
        of_arm = zip(values, group.metrics, strict=True)
        rows.append((arm, *(cell(v, metric.scale, of=len(matched)) for v, metric in of_arm)))
    return Table(("arm", *(metric.title for metric in group.metrics)), tuple(rows))


def paired_table(result: Result, group: Group, base: str = BASE) -> Table | None:
    """Arm minus `base` (on a log scale: over it), of the same seed. None where there is no such arm, or no other."""
    metrics = [metric for metric in group.metrics if metric.paired]
    runs = runs_of(result)
    if base not in runs or len(runs) < 2:
        return None
    matched = matched_steps(result)
    bases = [values_of(runs[base], metric, matched) for metric in metrics]
    rows = []
    for arm, by_seed in runs.items():
        if arm == base:
            continue
        cells = []
        for metric, of_base in zip(metrics, bases, strict=True):
            own = values_of(by_seed, metric, matched)
            pairs = [(own[seed], of_base[seed]) for seed in own if seed in of_base]
            cells.append(_paired_cell(pairs, metric.scale, len(matched)))
        rows.append((arm, *cells))
    return Table(("arm", *(metric.title for metric in metrics)), tuple(rows))


def first_non_finite(result: Result) -> Table | None:
    """The step at which each run went non-finite, and what did. None where none did."""
    rows = []
    for arm, by_seed in runs_of(result).items():
        for seed, run in by_seed.items():
            if went_non_finite(run):
                step, what = run.get("first_non_finite"), run.get("what_non_finite")
                rows.append((arm, str(what or NOTHING), str(seed), NOTHING if step is None else str(step)))
    return Table(("arm", "what", "seed", "first non-finite step"), tuple(rows), (0, 1)) if rows else None


@dataclass(frozen=True)
class Health:
    """One arm's unclamped held-out loss over the window, beside two baselines and its own with shuffled input.

    `input`: of predicting the noised input itself, as a network does before its first step. `to_mean_frame`,
    `to_input`, `to_shuffled`: loss minus the other, over seeds; None where the result does not say.
    """

    arm: str
    loss: SeedMean | None
    mean_frame: float | None
    to_mean_frame: SeedMean | None
    input: float | None
    to_input: SeedMean | None
    shuffled: SeedMean | None
    to_shuffled: SeedMean | None


def is_healthy(by_seed: Mapping[int, Run]) -> bool:
    """None of the arm's runs went non-finite."""
    return not any(map(went_non_finite, by_seed.values()))


def health(result: Result) -> list[Health]:
    """Of every healthy arm."""
    baselines = result.get("baselines") or {}
    mean_frame, unchanged = (number(baselines.get(name) or {}, "se3_vf_raw") for name in ("mean_frame", "input"))
    own = Metric("", lambda run, n: mean_of(held_out_values(run, "se3_vf_loss_raw", n)))
    other = Metric("", lambda run, n: mean_of(held_out_values(run, "shuffled_se3_vf_loss_raw", n)))
    matched = matched_steps(result)
    made = []
    for arm, by_seed in runs_of(result).items():
        if not is_healthy(by_seed):
            continue
        losses, shuffled = values_of(by_seed, own, matched), values_of(by_seed, other, matched)
        beside = [[] if x is None else [loss - x for loss in losses.values()] for x in (mean_frame, unchanged)]
        beside_shuffled = [loss - shuffled[seed] for seed, loss in losses.items() if seed in shuffled]
        loss, to_mean, to_input, other_loss, to_shuffled = (
            estimate(values) if values else None
            for values in (list(losses.values()), *beside, list(shuffled.values()), beside_shuffled)
        )
        made.append(Health(arm, loss, mean_frame, to_mean, unchanged, to_input, other_loss, to_shuffled))
    return made


def below(difference: SeedMean | None) -> str:
    """ "below" where the whole interval lies under 0, "not below" where it does not, in words where there is none."""
    if difference is None:
        return NOTHING
    if difference.interval is None:
        return "no interval"
    return "below" if difference.high < 0.0 else "not below"


def cell(values: Sequence[float], scale: str = "linear", *, of: int) -> str:
    """The mean of `values` and its interval; how many seeds they are, where some of the `of` seeds say nothing."""
    if not values:
        return NOTHING
    if scale == "exact":
        low, high = (f"{value:.0f}" for value in (min(values), max(values)))
        return (low if low == high else f"{low} to {high}") + _of_seeds(len(values), of)
    mean, interval = _estimate(values, scale)
    return digits(mean) + interval_text(interval) + _of_seeds(len(values), of)


def digits(x: float) -> str:
    """Three significant digits; a power of ten under 10⁻³ and from 10⁵ on."""
    if not math.isfinite(x):
        return "not finite"
    if x == 0.0:
        return "0"
    mantissa, _, exponent = f"{x:.2e}".partition("e")
    power = int(exponent)
    if -3 <= power < 5:
        text = f"{float(f'{x:.2e}'):.{max(0, 2 - power)}f}"
    else:
        text = f"{mantissa}·10{str(power).translate(_RAISED)}"
    return text.replace("-", "−")


def interval_text(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" [{digits(interval[0])}, {digits(interval[1])}]"


def intervals_line(result: Result) -> str:
    """What the brackets are, or why there are none."""
    count = len(seeds_of(result))
    if count < 2:
        return "One seed: there are no intervals, and no claim is decided."
    return (
        f"In brackets: the {100 * COVERAGE:g} % interval of the mean over {count} seeds, Student's t of "
        f"{count - 1} degree{'s' if count > 2 else ''} of freedom; a cell that rests on fewer seeds says so."
    )


def _estimate(values: Sequence[float], scale: str) -> tuple[float, tuple[float, float] | None]:
    if scale == "linear" or not all(value > 0.0 for value in values):
        found = estimate(values)
        # On a log scale a 0 leaves neither a geometric mean nor an interval: the mean alone is shown.
        return found.mean, found.interval if scale == "linear" else None
    found = estimate([math.log(value) for value in values])
    ends = None if found.interval is None else (_exp(found.interval[0]), _exp(found.interval[1]))
    return _exp(found.mean), ends


def _exp(x: float) -> float:
    return math.exp(x) if x < 709.0 else math.inf


def _paired_cell(pairs: Sequence[tuple[float, float]], scale: str, of: int) -> str:
    if not pairs:
        return NOTHING
    if scale == "linear":
        values = [own - base for own, base in pairs]
        values = [math.inf if math.isnan(value) else value for value in values]
        none, unit = 0.0, ""
    elif all(own > 0.0 and base > 0.0 for own, base in pairs):
        values = [math.inf if math.isinf(own) or math.isinf(base) else own / base for own, base in pairs]
        none, unit = 1.0, "×"
    else:
        return NOTHING
    mean, interval = _estimate(values, scale)
    shown = digits(mean) + (unit if math.isfinite(mean) else "") + interval_text(interval)
    if interval is not None and not interval[0] <= none <= interval[1]:
        shown += " ↓" if interval[1] < none else " ↑"
    return shown + _of_seeds(len(pairs), of)


def _of_seeds(count: int, of: int) -> str:
    return "" if count == of else f" ({count} of {of} seeds)"
