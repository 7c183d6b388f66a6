"""The table of what training leaves: σ, κ, the geometry's weight, pairs at the cap, and what the geometry is worth."""

import statistics
from collections.abc import Sequence
from typing import Any

from iga.experiment.results.tables import NOTHING, cell, digits
from iga.experiment.sweep.readings import Result, cells_of, in_words, runs_at
from iga.report.document import Block, Paragraph, Table

__all__ = ["left_table", "quantile"]


def left_table(result: Result) -> list[Block]:
    rows = []
    for key in cells_of(result):
        for arm, by_seed in runs_at(result, key).items():
            runs = [run for run in by_seed.values() if run["left"] is not None]
            if not runs:
                continue
            left = [run["left"] for run in runs]
            weights = [weight for one in left for block in one["weights"] for weight in block]
            worth = [_worth(runs, name) for name in ("removed", "shuffled")]
            rows.append(
                (
                    *(arm, in_words(*key.condition), str(key.points), f"{key.learning_rate:g}"),
                    *(_sigma(left, share) for share in (0.01, 0.5)),
                    *(_share(left, name) for name in ("kappa_over_100", "at_cap")),
                    f"{digits(min(weights))} to {digits(max(weights))}",
                    *(cell(values, of=len(runs)) for values in worth),
                )
            )
    if not rows:
        return [Paragraph("No run has reached its end.")]
    heads = (
        *("arm", "condition", "P", "learning rate", "σ, 1 % below, nm", "σ, median, nm", "share κ > 100"),
        *("pairs at the cap", "weight of the geometry", "L without geometry − L", "L shuffled − L"),
    )
    note = (
        "Of held-out chains after the last step. σ to half a decade; pairs at the cap: |logit| ≥ 0.95 of it; the loss "
        "with the trained geometry logit removed, or shuffled among keys, minus that of the last evaluation. "
        "Exploratory."
    )
    return [Paragraph(note), Table(heads, tuple(rows), (0, 1))]


def _worth(runs: Sequence[Any], name: str) -> list[float]:
    """The loss so changed minus that of the same network, of each run that says both."""
    both = [(run["left"][name], run["held_out"][-1]["se3_vf_loss_raw"]) for run in runs if run["held_out"]]
    return [changed - own for changed, own in both if changed is not None and own is not None]


def quantile(counts: Sequence[int], start: float, width: float, share: float) -> float | None:
    """The middle of the bin in which `share` of the counts is reached; None for none."""
    total, seen = sum(counts), 0
    for place, count in enumerate(counts):
        seen += count
        if count and seen >= share * total:
            return start + (place + 0.5) * width
    return None


def _sigma(left: Sequence[Any], share: float) -> str:
    known = [one for one in left if one["sigma"] is not None]
    found = [quantile(one["sigma"], one["start"]["sigma"], one["width"], share) for one in known]
    values = [value for value in found if value is not None]
    return digits(10.0 ** statistics.median(values)) if values else NOTHING


def _share(left: Sequence[Any], name: str) -> str:
    values = [one[name] for one in left if one[name] is not None]
    return digits(statistics.fmean(values)) if values else NOTHING
