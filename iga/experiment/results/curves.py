"""Curves of a result: losses, held-out loss, logits, saturation and log-det against the step, one line an arm.

A line is the median over seeds of medians over short runs of steps; the band is lowest to highest seed. A cross marks
where a run went non-finite. Drawn with matplotlib (extra `plot`), imported inside the functions.
"""

import base64
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from iga.experiment.results.columns import number
from iga.experiment.results.readings import Result, Run, reached, runs_of, series, went_non_finite
from iga.experiment.results.verdicts import COLLAPSED
from iga.report.plots import COLOURS, DARK, check_matplotlib, tidy

__all__ = ["data_uri", "png"]

_BINS = 60
_DPI, _COLOURS = 90, 128
# A colour of iga.report.plots and dashes, which tell neighbours apart.
_LINES: dict[str, tuple[str, str]] = {
    "ipa": ("grey", "-"),
    "pre_fix": ("vermilion", "-"),
    "logdet_clamp": ("orange", "-"),
    "sigma_floor": ("pink", "-"),
    "soft_start": ("blue", "--"),
    "bounded": ("navy", "-"),
    "gaussian_tanh": ("green", "--"),
    "bounded_time_gate": ("navy", ":"),
}
_OTHERS = ("black", "-.")
# (title, series or held-out quantity, log axis)
_PANELS = (
    ("trans_loss, training", "trans_loss", False),
    ("rots_vf_loss, training", "rots_vf_loss", True),
    ("se3_vf_loss_raw, held-out", "se3_vf_loss_raw", True),
    ("geo_scaled_absmax", "geo_scaled_absmax", True),
    ("wmax_sat_frac", "wmax_sat_frac", False),
    ("log_det_min", "log_det_min", False),
)

Points = list[tuple[float, float]]


def png(result: Result, *, dark: bool = False) -> bytes:
    """The picture as PNG: on white, or transparent for a dark page. Raises ValueError without matplotlib."""
    check_matplotlib()
    from PIL import Image  # matplotlib brings it

    drawn, made = io.BytesIO(), io.BytesIO()
    _figure(result, dark).savefig(drawn, format="png", dpi=_DPI)
    # a few lines on one ground: a palette takes a quarter of the bytes of full colour
    with Image.open(drawn) as picture:
        picture.quantize(_COLOURS, method=Image.Quantize.FASTOCTREE).save(made, format="png", optimize=True)
    return made.getvalue()


def data_uri(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")


def line_of(run: Run, name: str, width: int) -> Points:
    """(step, value): medians of the finite values of each `width` consecutive steps, or every evaluation."""
    if name == "se3_vf_loss_raw":
        rows = [(float(row["step"]), number(row, name)) for row in run.get("held_out", [])]
        return [(step, value) for step, value in rows if value is not None]
    values = series(run, name)[: reached(run)]
    made = []
    for start in range(0, len(values), width):
        finite = [value for value in values[start : start + width] if value is not None]
        if finite:
            # The middle of steps start + 1 … start + width, of a last short one too: the same for runs of all lengths.
            made.append((start + 0.5 * (width + 1), statistics.median(finite)))
    return made


def over_seeds(lines: Sequence[Points]) -> list[tuple[float, float, float, float]]:
    """(step, lowest, median, highest) at the steps where a line has a point; runs may be of unequal length."""
    at: dict[float, list[float]] = {}
    for line in lines:
        for step, value in line:
            at.setdefault(step, []).append(value)
    return [(step, min(v), statistics.median(v), max(v)) for step, v in sorted(at.items())]


def _figure(result: Result, dark: bool) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    ink, faint = ("#E6E6E6", "#4A4A4A") if dark else ("#222222", "#DDDDDD")
    figure = Figure(figsize=(13.0, 7.4), layout="constrained", facecolor="none" if dark else "white")
    FigureCanvasAgg(figure)
    runs = runs_of(result)
    styles = _styles(list(runs), dark)
    width = max(1, math.ceil(result["settings"]["steps"] / _BINS))
    for axis, (title, name, log) in zip(figure.subplots(2, 3).flat, _PANELS, strict=True):
        axis.set_facecolor("none")
        axis.set_title(title, color=ink, fontsize=11)
        axis.tick_params(colors=ink, which="both", labelsize=9)
        tidy(axis, grid=faint)
        axis.spines[["left", "bottom"]].set_color(ink)
        drawn = []
        for arm, by_seed in runs.items():
            lines = {seed: line_of(run, name, width) for seed, run in by_seed.items()}
            drawn += _draw_arm(axis, lines, styles[arm])
            for seed, run in by_seed.items():
                if went_non_finite(run) and lines[seed]:
                    axis.plot(*lines[seed][-1], color=styles[arm][0], marker="x", ms=9, mew=2.2)
        if log and drawn and min(drawn) > 0.0:
            axis.set_yscale("log")
        _draw_reference(axis, name, result, ink, bool(drawn))
        axis.set_xlabel("step", color=ink, fontsize=9)
    handles = [Line2D([], [], color=colour, ls=dashes, lw=2.2, label=arm) for arm, (colour, dashes) in styles.items()]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=min(8, len(handles)), frameon=False, labelcolor=ink
    )
    return figure


def _styles(arms: Sequence[str], dark: bool) -> dict[str, tuple[str, str]]:
    colours = DARK if dark else COLOURS
    named = {arm: _LINES.get(arm, _OTHERS) for arm in arms}
    return {arm: (colours[colour], dashes) for arm, (colour, dashes) in named.items()}


def _draw_arm(axis: Any, lines: Mapping[int, Points], style: tuple[str, str]) -> list[float]:
    """Draws the lines of one arm's seeds as one with its band; the values drawn."""
    colour, dashes = style
    rows = over_seeds(list(lines.values()))
    if not rows:
        return []
    steps, low, middle, high = zip(*rows, strict=True)
    if len(lines) > 1:
        axis.fill_between(steps, low, high, color=colour, alpha=0.13, lw=0)
    axis.plot(steps, middle, color=colour, ls=dashes, lw=1.8, marker="o" if len(rows) == 1 else None)
    return [*low, *high]


def _draw_reference(axis: Any, name: str, result: Result, ink: str, drawn: bool) -> None:
    """The mean-frame baseline of the held-out loss; the log-det of collapsed Gaussians."""
    baseline = (result.get("baselines") or {}).get("mean_frame") or {}
    level = number(baseline, "se3_vf_raw") if name == "se3_vf_loss_raw" else None
    words = "mean frame"
    if name == "log_det_min" and drawn:
        level, words = COLLAPSED, "3 ln(2·10⁻⁶)"
    if level is not None:
        axis.axhline(level, color=ink, ls=(0, (1, 2)), lw=1.2)
        axis.annotate(words, (1.0, level), (-2, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
                      ha="right", color=ink, fontsize=9)  # fmt: skip
