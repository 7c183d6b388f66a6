"""The columns of the comparison's table. Each gives a number for a run and its matched steps, or None."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from iga.experiment.results.readings import Result, Run, held_out_values, reached, series, window_length
from iga.experiment.results.verdicts import CLAMP

__all__ = ["SPIKE", "Group", "Metric", "glance", "groups", "mean_of", "number"]

SPIKE = 10.0
Scale = Literal["linear", "log", "exact"]
Value = Callable[[Run, int], float | None]


@dataclass(frozen=True)
class Metric:
    """A column: `value` of (run, matched steps of its seed), None where the run does not say.

    `scale`: "log" where values span decades, then means are geometric and runs compared by their ratio; "exact" for
    whole numbers that are shown as they are.
    `paired`: whether the metric is compared with ipa's.
    """

    title: str
    value: Value
    scale: Scale = "linear"
    paired: bool = True


@dataclass(frozen=True)
class Group:
    """Columns that belong together, and what they are."""

    title: str
    note: str
    metrics: tuple[Metric, ...]


def groups(result: Result) -> tuple[Group, ...]:
    """The columns of this result; the loss of the Gaussians where they are learned."""
    learned = ("gaussian_loss",) if result["settings"].get("gaussians") == "learned" else ()
    training = ("trans_loss", "rots_vf_loss", "se3_vf_loss", *learned)
    held_out = (*training[:3], "se3_vf_loss_raw", *learned)
    return (
        Group(
            "Losses on training steps",
            "Over the window. trans_loss and se3_vf_loss as trained: clamped at 5 per sample.",
            tuple(_loss(name, words, _over_window) for name in training for words in _SUMMARIES),
        ),
        Group(
            "Losses on held-out structures",
            "Over the evaluations in the window. se3_vf_loss_raw is unclamped.",
            tuple(_loss(name, words, held_out_values) for name in held_out for words in _SUMMARIES),
        ),
        Group(
            "Clamps, spikes and geometry",
            "Over all matched steps, or those that the run made where it made fewer (column “steps”). Worst: the "
            "largest, of log_det_min the lowest. geo_scaled_absmax: geometric means, and ratios for differences.",
            (
                Metric("steps", lambda run, n: float(min(reached(run), n)), "exact", paired=False),
                Metric(f"steps with trans_loss ≥ {CLAMP:g}", lambda run, n: _count(run, n, CLAMP)),
                Metric("samples at the clamp", _clamped_samples),
                Metric("share of samples at the clamp", _clamped_share),
                Metric(f"steps with rots_vf_loss > {SPIKE:g}", _spikes),
                Metric("geo_scaled_absmax worst", _worst("geo_scaled_absmax", math.inf), scale="log"),
                Metric("geo_scaled_absmax median", _median("geo_scaled_absmax", math.inf), scale="log"),
                Metric("wmax_sat_frac worst", _worst("wmax_sat_frac", 1.0)),
                Metric("wmax_sat_frac median", _median("wmax_sat_frac", 1.0)),
                Metric("log_det_min worst", _worst("log_det_min", -math.inf), paired=False),
                Metric("log_det_min median", _median("log_det_min", -math.inf), paired=False),
            ),
        ),
        Group(
            "Cost",
            "Of the whole run.",
            (
                Metric("seconds a step", lambda run, n: number(run, "seconds_a_step")),
                Metric("peak memory, MiB", lambda run, n: number(run, "peak_mb")),
                Metric("parameters", lambda run, n: number(run, "parameters"), "exact", paired=False),
            ),
        ),
    )


# (title of the group, of its column): what it is called where few columns stand together.
_FIRST = {
    ("Losses on held-out structures", "se3_vf_loss_raw mean"): "held-out se3_vf_loss_raw",
    ("Losses on training steps", "se3_vf_loss mean"): "training se3_vf_loss",
    ("Clamps, spikes and geometry", f"steps with trans_loss ≥ {CLAMP:g}"): f"steps with trans_loss ≥ {CLAMP:g}",
    ("Clamps, spikes and geometry", "geo_scaled_absmax median"): "geo_scaled_absmax",
    ("Clamps, spikes and geometry", "wmax_sat_frac median"): "wmax_sat_frac",
    ("Clamps, spikes and geometry", "log_det_min median"): "log_det_min",
    ("Cost", "seconds a step"): "seconds a step",
}


def glance(result: Result) -> Group:
    """The columns to look at first, out of `groups`."""
    found = {(group.title, metric.title): metric for group in groups(result) for metric in group.metrics}
    note = "Losses: means over the window; geometry: medians over all matched steps. In full, with differences: below."
    return Group("At a glance", note, tuple(replace(found[key], title=title) for key, title in _FIRST.items()))


_SUMMARIES: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "median": statistics.median,
    "last": lambda values: values[-1],
}


def _loss(name: str, words: str, values: Callable[[Run, str, int], list[float | None]]) -> Metric:
    """A summary over the window; None where the run did not reach its end, or a value in it is not finite."""

    def value(run: Run, steps: int) -> float | None:
        found = values(run, name, steps) if reached(run) >= steps else []
        finite = [value for value in found if value is not None]
        return _SUMMARIES[words](finite) if finite and len(finite) == len(found) else None

    return Metric(f"{name} {words}", value)


def _over_window(run: Run, name: str, steps: int) -> list[float | None]:
    return series(run, name)[steps - window_length(steps) : steps]


def _made(run: Run, name: str, steps: int) -> list[float | None]:
    return series(run, name)[: min(steps, reached(run))]


def _count(run: Run, steps: int, bound: float) -> float | None:
    values = _made(run, "trans_loss", steps)
    return float(sum(value is not None and value >= bound for value in values)) if values else None


def _spikes(run: Run, steps: int) -> float | None:
    values = _made(run, "rots_vf_loss", steps)
    return float(sum(value is not None and value > SPIKE for value in values)) if values else None


def _clamped_samples(run: Run, steps: int) -> float | None:
    values = [value for value in _made(run, "clamped_samples", steps) if value is not None]
    return math.fsum(values) if values else None


def _clamped_share(run: Run, steps: int) -> float | None:
    clamped = _clamped_samples(run, steps)
    samples = math.fsum(value for value in _made(run, "samples", steps) if value is not None)
    return None if clamped is None or not samples else clamped / samples


def _worst(name: str, worst: float) -> Value:
    """The largest, or the lowest where the worst there is is −∞."""
    extreme = min if worst < 0.0 else max

    def value(run: Run, steps: int) -> float | None:
        values = _recorded(run, name, steps, worst)
        return extreme(values) if values else None

    return value


def _median(name: str, worst: float) -> Value:
    def value(run: Run, steps: int) -> float | None:
        values = _recorded(run, name, steps, worst)
        return statistics.median(values) if values else None

    return value


def _recorded(run: Run, name: str, steps: int, worst: float) -> list[float]:
    """The series with `worst` for null; empty where it holds no number at all, as log_det_min of ipa."""
    values = _made(run, name, steps)
    if all(value is None for value in values):
        return []
    return [worst if value is None else value for value in values]


def mean_of(values: Sequence[float | None]) -> float | None:
    finite = [value for value in values if value is not None]
    return statistics.fmean(finite) if finite and len(finite) == len(values) else None


def number(row: Run, name: str) -> float | None:
    value = row.get(name)
    return None if value is None or not math.isfinite(value) else float(value)
