"""The sections of the report as blocks: verdicts, rules, and for each result its facts, claims, training and tables."""

from collections.abc import Sequence
from typing import Any

from iga.experiment.results.columns import glance, groups
from iga.experiment.results.post_hoc import BY_SAMPLES, MARK, judge_post_hoc
from iga.experiment.results.readings import Result, SeedMean, matched_steps, runs_of, window_length
from iga.experiment.results.tables import (
    BASE,
    NOTHING,
    below,
    digits,
    first_non_finite,
    health,
    interval_text,
    intervals_line,
    is_healthy,
    metric_table,
    paired_table,
)
from iga.experiment.results.verdicts import BEFORE, GENERAL_RULES, RULES, ClaimVerdict, Rule, judge, judge_all
from iga.report.document import Block, Heading, Items, Paragraph, Picture, Table

__all__ = ["TITLE", "blocks_of", "title_of"]

TITLE = "IPA and the IGA arms on SE(3) flow matching"
Named = tuple[str, Result]


def title_of(result: Result) -> str:
    """size, steps, seeds, what the Gaussians do, and whether the scales were made to collapse."""
    settings = result["settings"]
    seeds = settings.get("seeds", len({run["seed"] for run in result["runs"]}))
    return ", ".join(
        [
            str(settings.get("size", "size not recorded")),
            f"{settings['steps']} step{'' if settings['steps'] == 1 else 's'}",
            f"{seeds} seed{'' if seeds == 1 else 's'}",
            f"{settings.get('gaussians', 'fixed')} Gaussians",
            "stress" if settings.get("stress") else "plain",
        ]
    )


def blocks_of(results: Sequence[Named], pictures: dict[int, Picture], sizes: Sequence[str] = ()) -> list[Block]:
    """The whole report; pictures by the number of their result."""
    made: list[Block] = [
        Heading(1, TITLE),
        Paragraph(
            "Written by `python -m iga.experiment.results.page`; do not edit. All numbers come from the results named. "
            "First what came out, then what it says of the four claims, the rules by which it says so, and each result "
            "in full. It is a stress test of attention layers: how well such networks generate proteins is not asked."
        ),
        Heading(2, "Results at a glance"),
    ]
    for number, (name, result) in enumerate(results):
        made += _glance(name, result, pictures.get(number))
    made += [
        Heading(2, "What they mean: the four claims"),
        Paragraph(f"Against `{BEFORE}`, the state before the change, by the rules below."),
    ]
    if len(results) > 1:
        made.append(_summary_table(results))
    made += _by_samples(results)
    for name, result in results:
        made += [Heading(3, f"{title_of(result)} ({name})"), *_claims(result)]
    made += _rules()
    for name, result in results:
        made += _in_full(name, result)
    measured = {result["settings"].get("size") for _, result in results}
    for size in sizes:
        if size not in measured:
            made += [Heading(2, f"Size {size}"), Paragraph("not measured")]
    return made


def _rules() -> list[Block]:
    made: list[Block] = [Heading(2, "The rules")]
    for rule in RULES.values():
        made += [Heading(3, f"({rule.letter}) {rule.claim}"), _rule(rule)]
    made += [Heading(3, f"({BY_SAMPLES.letter}) by samples, {MARK}: {BY_SAMPLES.claim}"), _rule(BY_SAMPLES)]
    return [*made, Heading(3, "Of all four"), Items(GENERAL_RULES)]


def _rule(rule: Rule) -> Items:
    return Items(
        (
            f"What is read: {rule.quantity}.",
            f"Without this premise, undecided: {rule.premise}.",
            f"Supported when {rule.supported}.",
            f"Refuted when {rule.refuted}.",
        )
    )


def _by_samples(results: Sequence[Named]) -> list[Block]:
    """Claim (d) by its own rule and by samples, side by side."""
    rows = []
    for name, result in results:
        for read in judge_post_hoc(result):
            own = judge(result, BY_SAMPLES.letter, read.arm)
            found = ((one.word, _shown(one.before), _shown(one.after), _effect(one)) for one in (own, read))
            steps, samples = found
            rows.append((f"{title_of(result)} ({name})", read.arm, *steps, f"{samples[0]} ({MARK})", *samples[1:]))
    heads = (
        *("result", "arm", "by steps: verdict", "steps before", "steps after", "factor of steps"),
        *("by samples: verdict", "samples before", "samples after", "factor of samples"),
    )
    words = (
        f"A step counts for claim ({BY_SAMPLES.letter}) only where every sample of its batch is at the clamp, which is "
        "rare: its premise hardly occurs. The results hold the samples too, and beside the claim's own rule they "
        f"are read one by one. This reading is {MARK}: it was chosen when the comparisons of the first four conditions "
        "were known, and decides nothing of them."
    )
    return [
        Heading(3, f"({BY_SAMPLES.letter}) by steps, and by samples ({MARK})"),
        Paragraph(words),
        Table(heads, tuple(rows), (0, 1, 2, 6)),
    ]


def _summary_table(results: Sequence[Named]) -> Table:
    judged = [judge_all(result) for _, result in results]
    rows = tuple(
        (f"({verdict.rule.letter}) {verdict.rule.claim}", verdict.arm, *(column[row].word for column in judged))
        for row, verdict in enumerate(judged[0] if judged else ())
    )
    heads = ("claim", "arm", *(f"{title_of(result)} ({name})" for name, result in results))
    return Table(heads, rows, tuple(range(len(heads))))


def _glance(name: str, result: Result, picture: Picture | None) -> list[Block]:
    first = glance(result)
    made: list[Block] = [Heading(3, f"{title_of(result)} ({name})"), Paragraph(first.note), metric_table(result, first)]
    if picture is not None:
        made.append(picture)
        made.append(
            Paragraph(
                "A column an arm, the others grey behind it. Lines: median over seeds, of medians over short runs of "
                "steps; bands: lowest to highest seed; crosses: where a run went non-finite; dotted: the mean-frame "
                "baseline, and the log-det of collapsed Gaussians."
            )
        )
    return made


def _in_full(name: str, result: Result) -> list[Block]:
    made: list[Block] = [Heading(2, f"In full: {title_of(result)} ({name})"), Items(tuple(_facts(result)))]
    stopped = first_non_finite(result)
    made += [Heading(3, "Runs that went non-finite")]
    made += [stopped] if stopped else [Paragraph("None.")]
    made += [Heading(3, "Is the training right?"), *_health(result)]
    made += [Heading(3, "Arms and metrics"), Paragraph(intervals_line(result)), Paragraph(_window(result))]
    for group in groups(result):
        made += [Heading(4, group.title), Paragraph(group.note), metric_table(result, group)]
        paired = paired_table(result, group)
        if paired is not None:
            made += [Paragraph(f"Minus {BASE} of the same seed. {_MARKS}"), paired]
    if BASE not in runs_of(result):
        made.append(Paragraph(f"This result holds no run of {BASE}: there are no paired differences."))
    return made


_MARKS = "↓, ↑: the whole interval lies below, above no difference; one in twenty does by chance."


def _facts(result: Result) -> list[str]:
    """Command, data, status of the runs, and the environment, as the result has them."""
    made = []
    if result.get("command"):
        made.append(f"command: `{result['command']}`")
    structures = result["settings"].get("structures")
    if structures:
        made.append(f"structures: {structures}")
    if result.get("data"):
        made.append(f"data: {_flat(result['data'])}")
    counts: dict[str, int] = {}
    for run in result["runs"]:
        counts[run["status"]] = counts.get(run["status"], 0) + 1
    made.append("runs: " + ", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
    if result.get("environment"):
        made.append(f"environment: {_flat(result['environment'])}")
    return made


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items() if item not in (None, {}, []))
    if isinstance(value, list):
        return " ".join(map(_flat, value))
    return str(value)


def _window(result: Result) -> str:
    said = []
    for seed, steps in matched_steps(result).items():
        first = steps - window_length(steps) + 1
        said.append(f"seed {seed}: {steps} matched steps, window {first} to {steps}" if steps else f"seed {seed}: none")
    return (
        "Matched steps: those that every arm of a seed reached; an arm that went non-finite does not shorten them, and "
        "has no window unless it reached its end. The window is their last quarter. " + "; ".join(said) + "."
    )


def _claims(result: Result) -> list[Block]:
    heads = ("claim", "verdict", "arm", "before", "after", "effect", "seeds", "steps compared", "why")
    return [
        Table(heads, tuple(_claim_row(verdict) for verdict in judge_all(result)), (0, 1, 2, 8)),
        Paragraph(
            f"Before: {BEFORE}; after: the arm. The readings are those of the rules ("
            + "; ".join(f"{rule.letter}: {rule.quantity}" for rule in RULES.values())
            + "). Effect: before minus after for a and c, the factor before / after for b and d."
        ),
    ]


def _claim_row(verdict: ClaimVerdict) -> tuple[str, ...]:
    steps = sorted(set(verdict.steps.values()))
    return (
        f"({verdict.rule.letter}) {verdict.rule.claim}",
        verdict.word,
        verdict.arm,
        _shown(verdict.before),
        _shown(verdict.after),
        _effect(verdict),
        str(len(verdict.steps)),
        NOTHING if not steps else f"{' to '.join(map(str, dict.fromkeys((steps[0], steps[-1]))))} of {verdict.planned}",
        verdict.reason,
    )


def _shown(found: SeedMean | None) -> str:
    return NOTHING if found is None else digits(found.mean) + interval_text(found.interval)


def _effect(verdict: ClaimVerdict) -> str:
    found = verdict.effect
    if found is None or verdict.rule.shown == "difference":
        return _shown(found)
    interval = None if found.interval is None else (_power(found.interval[0]), _power(found.interval[1]))
    return f"{digits(_power(found.mean))}×{interval_text(interval)}"


def _power(decades: float) -> float:
    """10 to the power, infinite where a float ends."""
    return 10.0**decades if decades < 308.0 else float("inf")


def _health(result: Result) -> list[Block]:
    rows = tuple(
        (
            row.arm,
            below(row.to_mean_frame),
            below(row.to_shuffled),
            below(row.to_input),
            _shown(row.loss),
            NOTHING if row.mean_frame is None else digits(row.mean_frame),
            _shown(row.to_mean_frame),
            NOTHING if row.input is None else digits(row.input),
            _shown(row.to_input),
            _shown(row.shuffled),
            _shown(row.to_shuffled),
        )
        for row in health(result)
    )
    heads = (
        *("arm", "against the mean frame", "against its shuffled input", "against the input itself", "loss"),
        *("mean frame", "loss − mean frame", "input itself", "loss − input", "shuffled input", "loss − shuffled"),
    )
    made: list[Block] = [
        Paragraph(
            "Unclamped se3_vf_loss on held-out structures, mean over the evaluations in the window: against that of "
            "each chain's mean frame, of the noised input itself, which is what a network predicts before its first "
            "step, and against the arm's own with the input frames shuffled among residues. "
            "“below”: the whole interval of the difference lies under 0."
        ),
        Table(heads, rows, (0, 1, 2, 3)) if rows else Paragraph("No arm without a non-finite run."),
    ]
    unsound = [arm for arm, by_seed in runs_of(result).items() if not is_healthy(by_seed)]
    if unsound and rows:
        made.append(Paragraph(f"Not judged, a run went non-finite: {', '.join(unsound)}."))
    return made
