"""Four claims about the σ floor, each judged by a rule that was fixed before any run; docs/experiment/rules.md.

A claim compares an arm (`after`) with the state before the change (`before`), seed by seed, over the steps that both
runs of the seed made. Every claim has a premise, something that must be there for the change to mend; without it the
verdict is "undecided", whatever the numbers. "undecided" is also the verdict of data that decide neither way.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from iga.experiment.results.readings import Result, Run, SeedMean, estimate, reached, runs_of, series, went_non_finite

__all__ = [
    "BEFORE",
    "COMPARED",
    "GENERAL_RULES",
    "RULES",
    "Rule",
    "ClaimVerdict",
    "Word",
    "judge",
    "judge_all",
    "judge_rule",
]

Word = Literal["supported", "refuted", "undecided"]

BEFORE = "logdet_clamp"
COMPARED = ("sigma_floor", "bounded")

# ln det of a pair whose σ are all gone: nothing is left but a jitter of 10⁻⁶ nm² on each covariance (docs/theory.md).
COLLAPSED = 3.0 * math.log(2e-6)
STUCK = COLLAPSED + 1.0
STUCK_PREMISE, STUCK_LEFT = 0.1, 0.01
LOGIT_PREMISE, LOGIT_RATIO = 100.0, 10.0
SATURATED_PREMISE, SATURATED_DROP = 0.1, 0.05
CLAMP = 5.0
CLAMPED_PREMISE, CLAMPED_RATIO = 0.01, 2.0
# A seed is compared when both of its runs made this share of the planned steps.
ENOUGH = 0.25


@dataclass(frozen=True)
class Rule:
    """One claim. `reading`: a number a run, of its series over the compared steps, null replaced by `worst`.

    `effect`: of (before, after, steps), larger where the claim is truer, 0 where nothing changed. `shown`: how it is
    printed, as a difference or (10 to the power of it) a ratio. `premise_holds`: of the readings before, and the steps.
    `supported_when`, `refuted_when`: of the effect, and the reading after; both exclude each other. `whole`: the series
    whose sum the premise takes in place of the number of steps.
    """

    letter: str
    claim: str
    quantity: str
    series: str
    worst: float
    reading: Callable[[Sequence[float]], float]
    effect: Callable[[float, float, int], float]
    shown: Literal["difference", "ratio"]
    premise_holds: Callable[[Sequence[float], Sequence[int]], bool]
    supported_when: Callable[[SeedMean, SeedMean], bool]
    refuted_when: Callable[[SeedMean, SeedMean], bool]
    premise: str
    supported: str
    refuted: str
    whole: str = ""


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _stuck_share(values: Sequence[float]) -> float:
    return sum(value <= STUCK for value in values) / len(values)


def _clamped_count(values: Sequence[float]) -> float:
    return float(sum(value >= CLAMP for value in values))


def _log_ratio(before: float, after: float, steps: int) -> float:
    """Decades; not finite where a median is: not a number the rule can use."""
    if not (0.0 < before < math.inf and 0.0 < after < math.inf):
        return math.nan
    return math.log10(before) - math.log10(after)


RULES: dict[str, Rule] = {
    "a": Rule(
        letter="a",
        claim="raw log_det_min stops sticking at about −39",
        quantity=f"share of steps with log_det_min ≤ {STUCK:.2f}".replace("-", "−"),
        series="log_det_min",
        worst=-math.inf,
        reading=_stuck_share,
        effect=lambda before, after, steps: before - after,
        shown="difference",
        premise_holds=lambda before, steps: statistics.fmean(before) >= STUCK_PREMISE,
        supported_when=lambda effect, after: after.mean <= STUCK_LEFT and effect.low > 0.0,
        refuted_when=lambda effect, after: after.low > STUCK_LEFT,
        premise=f"before the change at least {_percent(STUCK_PREMISE)} of the steps stick",
        supported=f"after it at most {_percent(STUCK_LEFT)} do, and the interval of the difference lies above 0",
        refuted=f"the interval of the share after it lies above {_percent(STUCK_LEFT)}",
    ),
    "b": Rule(
        letter="b",
        claim="geo_scaled_absmax drops by orders of magnitude",
        quantity="median of geo_scaled_absmax over the steps",
        series="geo_scaled_absmax",
        worst=math.inf,
        reading=statistics.median,
        effect=_log_ratio,
        shown="ratio",
        premise_holds=lambda before, steps: statistics.fmean(map(_decades, before)) >= math.log10(LOGIT_PREMISE),
        supported_when=lambda effect, after: effect.mean >= math.log10(LOGIT_RATIO) and effect.low > 0.0,
        refuted_when=lambda effect, after: effect.high < math.log10(LOGIT_RATIO),
        premise=f"before the change the median is at least {LOGIT_PREMISE:g} (geometric mean over seeds)",
        supported=f"it falls by a factor of at least {LOGIT_RATIO:g}, and the interval of the factor lies above 1",
        refuted=f"the interval of the factor lies below {LOGIT_RATIO:g}",
    ),
    "c": Rule(
        letter="c",
        claim="wmax_sat_frac is lower",
        quantity="mean of wmax_sat_frac over the steps",
        series="wmax_sat_frac",
        worst=1.0,
        reading=statistics.fmean,
        effect=lambda before, after, steps: before - after,
        shown="difference",
        premise_holds=lambda before, steps: statistics.fmean(before) >= SATURATED_PREMISE,
        supported_when=lambda effect, after: effect.mean >= SATURATED_DROP and effect.low > 0.0,
        refuted_when=lambda effect, after: effect.high < SATURATED_DROP,
        premise=f"before the change it is at least {SATURATED_PREMISE:g}",
        supported=f"it falls by at least {SATURATED_DROP:g}, and the interval of the fall lies above 0",
        refuted=f"the interval of the fall lies below {SATURATED_DROP:g}",
    ),
    "d": Rule(
        letter="d",
        claim="fewer steps have train/trans_loss ≥ 5",
        quantity=f"number of steps with trans_loss ≥ {CLAMP:g}",
        series="trans_loss",
        worst=math.inf,
        reading=_clamped_count,
        # Half a step is added to both: a count of 0 has a logarithm then, and a fall from few steps is no large factor.
        effect=lambda before, after, steps: math.log10((before + 0.5) / (after + 0.5)),
        shown="ratio",
        premise_holds=lambda before, steps: (
            statistics.fmean(count / of for count, of in zip(before, steps, strict=True)) >= CLAMPED_PREMISE
        ),
        supported_when=lambda effect, after: effect.mean >= math.log10(CLAMPED_RATIO) and effect.low > 0.0,
        refuted_when=lambda effect, after: effect.high < math.log10(CLAMPED_RATIO),
        premise=f"before the change at least {_percent(CLAMPED_PREMISE)} of the steps are such",
        supported=(
            f"(count before + ½) / (count after + ½) is at least {CLAMPED_RATIO:g}, and its interval lies above 1"
        ),
        refuted=f"the interval of that factor lies below {CLAMPED_RATIO:g}",
    ),
}

GENERAL_RULES: tuple[str, ...] = (
    f"An arm is compared with {BEFORE}, seed by seed, over the steps that both runs of the seed made with finite "
    "losses: a step that one of them did not make counts for neither.",
    f"A seed is left out where those steps are fewer than {_percent(ENOUGH)} of the planned ones.",
    "A value that is not finite at a step that was made counts as the worst there is: stuck, infinite, 1, clamped.",
    "Effects are taken in each seed and averaged over seeds; factors are averaged, and have their intervals, on the "
    "logarithmic scale. Intervals are Student's t, 95 %.",
    "Where the arm went non-finite at a step that the run before the change survived, a claim is not supported: it is "
    "undecided.",
    "With one seed there is no interval, and nothing is decided. Where neither condition is met: undecided.",
)


@dataclass(frozen=True)
class ClaimVerdict:
    """What a rule says of `after` against `before`, and the numbers it rests on; estimates are None without data.

    `before`, `after`: the readings, over seeds. `effect` as the rule defines it (decades for a ratio).
    `steps`: {seed: steps compared}. `planned`: steps that every run was to make.
    """

    rule: Rule
    arm: str
    word: Word
    reason: str
    before: SeedMean | None
    after: SeedMean | None
    effect: SeedMean | None
    steps: dict[int, int]
    planned: int


def judge_all(result: Result) -> list[ClaimVerdict]:
    """Every claim, of every arm in COMPARED."""
    return [judge(result, letter, arm) for arm in COMPARED for letter in RULES]


def judge(result: Result, letter: str, arm: str = COMPARED[0], before: str = BEFORE) -> ClaimVerdict:
    """The verdict on one claim. Raises ValueError for an unknown letter; an arm that is missing is undecided."""
    if letter not in RULES:
        raise ValueError(f"letter must be one of {', '.join(RULES)}; got {letter!r}")
    return judge_rule(result, RULES[letter], arm, before)


def judge_rule(result: Result, rule: Rule, arm: str = COMPARED[0], before: str = BEFORE) -> ClaimVerdict:
    """The verdict of one rule, be it of a claim or read post hoc (`results.post_hoc`)."""
    runs, planned = runs_of(result), int(result["settings"]["steps"])
    absent = [name for name in (before, arm) if name not in runs]
    if absent:
        return _undecided(rule, arm, f"no run of {' and of '.join(absent)}", planned)
    seeds = [seed for seed in runs[before] if seed in runs[arm]]
    both = {seed: min(reached(runs[before][seed]), reached(runs[arm][seed])) for seed in seeds}
    steps = {seed: made for seed, made in both.items() if made > 0 and made >= ENOUGH * planned}
    if not steps:
        return _undecided(
            rule, arm, f"no seed in which both arms made {_percent(ENOUGH)} of the planned steps", planned
        )
    values = {name: [_reading(rule, runs[name][seed], made) for seed, made in steps.items()] for name in (before, arm)}
    if any(value is None for readings in values.values() for value in readings):
        return _undecided(rule, arm, f"{rule.series} was not recorded", planned)
    olds, news = ([value for value in values[name] if value is not None] for name in (before, arm))
    effects = [rule.effect(*of) for of in zip(olds, news, steps.values(), strict=True)]
    mean = _geometric if rule.letter == "b" else estimate
    found = (mean(olds), mean(news), estimate(effects))
    stopped = [seed for seed in seeds if _stopped_first(runs[arm][seed], runs[before][seed])]
    of = list(steps.values())
    if rule.whole:  # the same in both runs, which saw the same batches
        of = [_whole(runs[before][seed], rule.whole, made) for seed, made in steps.items()]
    word, reason = _decide(rule, olds, of, found[2], estimate(news), stopped)
    return ClaimVerdict(rule, arm, word, reason, *found, steps, planned)


def _decide(
    rule: Rule, olds: list[float], steps: list[int], effect: SeedMean, after: SeedMean, stopped: list[int]
) -> tuple[Word, str]:
    if not rule.premise_holds(olds, steps):
        return "undecided", f"the premise did not occur: that {rule.premise}"
    if not math.isfinite(effect.mean):
        return "undecided", "a reading is not finite or 0: it has no logarithm"
    if effect.interval is None:
        return "undecided", "one seed: no interval"
    if rule.refuted_when(effect, after):
        return "refuted", rule.refuted
    if not rule.supported_when(effect, after):
        return "undecided", "neither condition is met"
    if stopped:
        named = ", ".join(map(str, stopped))
        return "undecided", f"the condition is met, but the arm went non-finite first, in seed {named}"
    return "supported", rule.supported


def _undecided(rule: Rule, arm: str, reason: str, planned: int) -> ClaimVerdict:
    return ClaimVerdict(rule, arm, "undecided", reason, None, None, None, {}, planned)


def _reading(rule: Rule, run: Run, steps: int) -> float | None:
    """None where the series holds no number at all: not recorded."""
    values: list[Any] = series(run, rule.series)[:steps]
    if all(value is None for value in values):
        return None
    return float(rule.reading([rule.worst if value is None else value for value in values]))


def _whole(run: Run, name: str, steps: int) -> int:
    return int(math.fsum(value for value in series(run, name)[:steps] if value is not None))


def _stopped_first(after: Run, before: Run) -> bool:
    return went_non_finite(after) and reached(after) < reached(before)


def _decades(value: float) -> float:
    return math.log10(value) if value > 0.0 else -math.inf


def _geometric(values: Sequence[float]) -> SeedMean:
    """The geometric mean, and its interval from the logarithms."""
    found = estimate([_decades(value) for value in values])
    interval = None if found.interval is None else (10.0 ** found.interval[0], 10.0 ** found.interval[1])
    return SeedMean(10.0**found.mean, interval, tuple(values))
