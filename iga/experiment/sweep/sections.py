"""The page of a sweep as blocks: verdicts, effects with intervals, losses, what is exploratory, and the choices."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from iga.experiment.results.readings import SeedMean
from iga.experiment.results.tables import NOTHING, cell, digits, interval_text
from iga.experiment.sweep.decisions import power
from iga.experiment.sweep.left import left_table
from iga.experiment.sweep.measures import STABLE, as_good, clamped, growth, rates_of
from iga.experiment.sweep.readings import (
    CellKey,
    Result,
    arms_of,
    cells_of,
    effect,
    in_words,
    is_primary,
    losses_of,
    mean,
    runs_at,
    uncapped,
)
from iga.experiment.sweep.verdicts import DELTA, FACTOR, LEVEL, CellVerdict, CureVerdict, hypotheses, judge
from iga.report.document import Block, Heading, Items, Paragraph, Picture, Table

__all__ = ["TITLE", "blocks_of"]

TITLE = "The arms taken apart"
_FACTORS = {"r": "without / full", "a": "sick / alone", "g": "alone / full"}
# Of the table of power: what rules.md takes for the spread over seeds, and for an effect worth seeing.
_DEVIATION, _EFFECT = 0.03, math.log(1.2)
_PLACE = ("condition", "P", "learning rate")


def blocks_of(result: Result, pictures: Mapping[str, Sequence[Picture]] | None = None) -> list[Block]:
    """The whole page; pictures by the coordinate along which they go."""
    shown = pictures or {}
    judged = judge(result)
    made: list[Block] = [
        Heading(1, TITLE),
        Paragraph(
            "Written by `iga sweep` from its result.json alone, by the rules of docs/experiment/rules.md, which were "
            "fixed before any run. It is a stress test of attention layers: how well such networks generate proteins "
            "is not asked."
        ),
        Heading(2, "The runs"),
        Items(tuple(_facts(result))),
        Heading(2, "The verdict on each cure"),
        *_verdicts(result, judged),
        Heading(2, "Choose this when"),
        *_choices(result),
        Heading(2, "Effects, cell by cell"),
        *_effects(result, judged),
        Heading(2, "Losses and saturation"),
        *_losses(result),
    ]
    for along in ("P", "learning rate"):
        made += shown.get(along, [])
    if "dose" in shown:
        made += [Heading(2, "Dose of collapse, and response"), *shown["dose"]]
    made += [Heading(2, "Learning rates"), *_rates(result), Heading(2, "Growth with points"), *_growth(result)]
    made += [Heading(2, "Samples at the clamp: claim (d)"), *_clamped(result)]
    return [*made, Heading(2, "After training"), *left_table(result)]


def place(key: CellKey) -> tuple[str, str, str]:
    return in_words(*key.condition), str(key.points), f"{key.learning_rate:g}"


def _facts(result: Result) -> list[str]:
    settings, runs = result["settings"], result["runs"]
    made = sum(run["status"] != "running" for run in runs)
    seeds, family = settings["seeds"], len(hypotheses(result))
    said = [
        f"command: `{result['command']}`",
        f"structures: {settings['structures']}",
        f"runs made: {made} of {result['planned']}, {settings['steps']} steps each, {seeds} seeds from "
        f"{settings['seed']}, {settings['gaussians']} Gaussians, size {settings['size']}",
    ]
    waiting = [key for key in cells_of(result) if _missing(result, key)]
    if waiting:
        words = "; ".join(f"{', '.join(place(key))} ({_missing(result, key)} runs)" for key in waiting)
        said.append(f"not made, in the order of the grid: {words}")
    stopped = sum(run["status"] == "non-finite" for run in runs)
    said.append(f"runs that went non-finite: {stopped}")
    if family:
        seen = power(seeds, _EFFECT, _DEVIATION, DELTA, LEVEL / family) if seeds > 1 else 0.0
        said.append(
            f"family of the primary condition: {family} hypotheses; a true factor of 1.2 at a deviation of "
            f"{_DEVIATION:g} over seeds is seen with probability {seen:.2f} by the first test of Holm's procedure"
        )
    else:
        said.append("the grid has no cell of the primary condition with the arms of a cure: all is exploratory")
    return said


def _missing(result: Result, key: CellKey) -> int:
    made = sum(len(by_seed) for by_seed in runs_at(result, key).values())
    return len(arms_of(result)) * result["settings"]["seeds"] - made


def _verdicts(result: Result, judged: Sequence[CureVerdict]) -> list[Block]:
    if not judged:
        return [
            Paragraph(
                "No cure is judged: the grid lacks their arms. A cure takes `logdet_clamp` and an arm with that cure "
                "alone, or an arm with a set of cures and the same without it (docs/experiment/sweep.md)."
            )
        ]
    rows = tuple(
        (
            one.cure.name,
            in_words(*one.condition),
            "primary" if one.primary else "exploratory",
            one.word,
            str(len(one.cells)),
            ", ".join(filter(None, (one.cure.sick, one.cure.alone, one.cure.full, one.cure.without))),
        )
        for one in judged
    )
    heads = ("cure", "condition", "kind", "verdict", "cells", "arms")
    note = (
        f"Needed or harmful in at least one cell, sufficient or superfluous in all; stated factor {FACTOR:g}. Words of "
        "the primary condition hold together at 5 % by Holm's procedure; exploratory ones are uncorrected."
    )
    return [Paragraph(note), Table(heads, rows, (0, 1, 2, 3, 5))]


def _choices(result: Result) -> list[Block]:
    rows = []
    for key in cells_of(result):
        losses = losses_of(result, key)
        best, others = as_good(losses)
        if losses:
            rows.append((*place(key), best or "none does better than its input", ", ".join(others) or NOTHING))
    note = (
        "The arm with the lowest mean ln L, and those that the data do not show to be worse than it by the stated "
        f"factor {FACTOR:g} (95 %, uncorrected: exploratory). With one seed nothing is shown to be worse."
    )
    heads = (*_PLACE, "lowest loss", "not shown to be worse")
    return [Paragraph(note), Table(heads, tuple(rows), (0, 3, 4))] if rows else [Paragraph("No run is made yet.")]


def _effects(result: Result, judged: Sequence[CureVerdict]) -> list[Block]:
    made: list[Block] = []
    rows = [_effect_row(one) for verdict in judged for one in verdict.cells]
    if rows:
        heads = ("cure", *_PLACE, "word", *_FACTORS.values(), "p: needed, sufficient, superfluous, harmful")
        note = (
            "Factors of L between the arms of a cure, geometric means over seeds with 95 % intervals. p: by Holm's "
            "procedure in the primary condition."
        )
        made += [Paragraph(note), Table(heads, tuple(rows), (0, 1, 4, 8))]
    base = "ipa" if "ipa" in arms_of(result) else arms_of(result)[0]
    rows = []
    for key in cells_of(result):
        losses = losses_of(result, key)
        for arm in losses:
            found = mean(effect(losses[arm], losses.get(base)))
            if arm != base and found is not None:
                rows.append((arm, *place(key), _factor(found), str(len(found.values))))
    if rows:
        made += [
            Paragraph(f"Loss of each arm over that of `{base}`, of the same seeds."),
            Table(("arm", *_PLACE, f"L / L({base})", "seeds"), tuple(rows), (0, 1)),
        ]
    return made or [Paragraph("No two arms of a cell have runs.")]


def _effect_row(one: CellVerdict) -> tuple[str, ...]:
    shown = (_factor(one.differences.get(name)) for name in _FACTORS)
    p = ", ".join(NOTHING if one.p.get(word) is None else f"{one.p[word]:.2g}" for word in _WORDS)
    return (one.cure.name, *place(one.cell), one.word, *shown, p)


_WORDS = ("needed", "sufficient", "superfluous", "harmful")


def _factor(found: SeedMean | None) -> str:
    if found is None:
        return NOTHING
    interval = None if found.interval is None else (_exp(found.interval[0]), _exp(found.interval[1]))
    return f"{digits(_exp(found.mean))}×{interval_text(interval)}"


def _exp(x: float) -> float:
    return math.exp(x) if x < 709.0 else math.inf


def _losses(result: Result) -> list[Block]:
    rows = []
    for key in cells_of(result):
        losses, seeds = losses_of(result, key), result["settings"]["seeds"]
        for arm, by_seed in runs_at(result, key).items():
            runs = list(by_seed.values())
            own = [math.exp(value) for value, _ in losses.get(arm, {}).values()]
            raw = [loss for run in runs if (loss := uncapped(run, result["settings"]["steps"])) is not None]
            entropy = [run["entropy"][-1]["row_entropy"] for run in runs if run["entropy"]]
            totals = [_column(runs, name) for name in ("wmax_sat_frac", "geo_scaled_absmax", "log_det_min")]
            rows.append(
                (
                    *(arm, *place(key), cell(own, of=seeds), cell(raw, of=seeds), cell(totals[0], of=seeds)),
                    *(cell(totals[1], "log", of=seeds), cell(totals[2], of=seeds)),
                    cell([value for value in entropy if value is not None], of=seeds),
                    str(sum(run["status"] == "non-finite" for run in runs)),
                )
            )
    heads = (
        *("arm", *_PLACE, "held-out loss L", "uncapped", "wmax_sat_frac", "geo_scaled_absmax", "log_det_min"),
        *("row entropy, nats", "non-finite"),
    )
    note = (
        "L: mean over the evaluations in the last quarter, at most that of the input, and the same uncapped. "
        "Saturation: mean over the steps; logits: median over the steps; log-det: lowest; entropy: of held-out rows at "
        "the end. In brackets 95 % over seeds. Loss of the input: "
        f"{NOTHING if result['input_loss'] is None else digits(result['input_loss'])}."
    )
    return [Paragraph(note), Table(heads, tuple(rows), (0, 1))] if rows else [Paragraph("No run is made yet.")]


def _column(runs: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [run["totals"][name] for run in runs if run["totals"][name] is not None]


def _rates(result: Result) -> list[Block]:
    rows = tuple(
        (
            *(one.arm, in_words(*one.condition), str(one.points), str(one.rates)),
            NOTHING if one.stable is None else f"{one.stable:g}",
            digits(one.excess),
        )
        for one in rates_of(result)
    )
    if not rows:
        return [Paragraph("One learning rate: nothing is said of others.")]
    note = (
        f"Largest stable rate: up to it every run is finite, and the mean loss at most {STABLE:g} times the arm's best "
        "and under that of the input. Mean excess: of L over its least, over the rates. Exploratory."
    )
    heads = ("arm", "condition", "P", "rates", "largest stable rate", "mean excess")
    return [Paragraph(note), Table(heads, rows, (0, 1))]


def _growth(result: Result) -> list[Block]:
    rows = tuple(
        (arm, in_words(*condition), f"{rate:g}", digits(found.mean) + interval_text(found.interval))
        for condition, rate, arm, found in growth(result)
    )
    if not rows:
        return [Paragraph("One number of points: nothing is said of growth.")]
    note = (
        "Exponent b of geo_scaled_absmax ∝ P^b over networks that were trained at each P, in the last quarter of "
        "training. Exploratory."
    )
    return [Paragraph(note), Table(("arm", "condition", "learning rate", "exponent in P"), rows, (0, 1))]


def _clamped(result: Result) -> list[Block]:
    rows = tuple(
        (
            *(one.arm, *place(one.cell), one.word, *(digits(x) for x in one.samples)),
            NOTHING if one.factor is None else _factor(_natural(one.factor)),
            *(digits(x) for x in one.steps),
        )
        for one in clamped(result)
    )
    if not rows:
        return [Paragraph("It takes `logdet_clamp`, and `sigma_floor` or `bounded`, in one cell.")]
    heads = (
        *("arm", *_PLACE, "by samples", "samples before", "samples after", "factor"),
        *("steps before", "steps after"),
    )
    fresh = any(is_primary(result, key) for key in cells_of(result))
    note = (
        "Samples with trans_loss ≥ 5, means over seeds; supported where the whole interval of the factor lies above 2, "
        "refuted below 2, undecided where under 1 % were clamped before. Beside it steps whose whole batch is clamped, "
        f"as the claim's own rule counts them.{'' if fresh else ' No cell is of the primary condition.'}"
    )
    return [Paragraph(note), Table(heads, rows, (0, 1, 4))]


def _natural(decades: SeedMean) -> SeedMean:
    ln = math.log(10.0)
    interval = None if decades.interval is None else (ln * decades.interval[0], ln * decades.interval[1])
    return SeedMean(ln * decades.mean, interval, decades.values)
