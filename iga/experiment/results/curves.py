"""Curves of a result: losses, logits, saturation and log-det against the step; a column an arm, a row a quantity.

The arm's own line is the median over seeds of medians over short runs of steps, the band is lowest to highest seed; the
other arms stand behind it in grey, so that lines that coincide are all seen. A cross marks where a run went non-finite.
Drawn with matplotlib (extra `plot`), imported inside the functions.
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

__all__ = ["data_uri", "packed", "png"]

_BINS = 60
_DPI, _COLOURS = 90, 128
# Of iga.report.plots.
_LINES = {
    "ipa": "blue",
    "pre_fix": "vermilion",
    "logdet_clamp": "orange",
    "sigma_floor": "pink",
    "soft_start": "green",
}
_OTHERS = "navy"
# (words, series or held-out quantity, log axis)
_ROWS = (
    ("loss on held-out\nstructures", "se3_vf_loss_raw", True),
    ("translation loss\nin training", "trans_loss", False),
    ("rotation loss\nin training", "rots_vf_loss", True),
    ("largest\ngeometry logit", "geo_scaled_absmax", True),
    ("share of\nsaturated rows", "wmax_sat_frac", False),
    ("lowest log-det\n(ln nm⁶)", "log_det_min", False),
)

Points = list[tuple[float, float]]


def png(result: Result, *, dark: bool = False) -> bytes:
    """The picture as PNG: on white, or transparent for a dark page. Raises ValueError without matplotlib."""
    check_matplotlib()
    return packed(_figure(result, dark))


def packed(figure: Any) -> bytes:
    """A figure of lines as PNG."""
    from PIL import Image  # matplotlib brings it

    drawn, made = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
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

    ink, faint, others = ("#E6E6E6", "#4A4A4A", "#7A7A7A") if dark else ("#222222", "#DDDDDD", "#B5B5B5")
    runs = runs_of(result)
    width = max(1, math.ceil(result["settings"]["steps"] / _BINS))
    size = (1.9 + 1.5 * len(runs), 0.6 + 1.45 * len(_ROWS))
    figure = Figure(figsize=size, layout="constrained", facecolor="none" if dark else "white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(_ROWS), len(runs), sharex=True, sharey="row", squeeze=False)
    for axes, (words, name, log) in zip(grid, _ROWS, strict=True):
        lines = {arm: {seed: line_of(run, name, width) for seed, run in by.items()} for arm, by in runs.items()}
        drawn = [value for by in lines.values() for line in by.values() for _, value in line]
        for axis, (arm, by_seed) in zip(axes, runs.items(), strict=True):
            _clear(axis, ink, faint)
            for other in lines:
                if other != arm:
                    _draw(axis, lines[other], others, thin=True)
            colour = (DARK if dark else COLOURS)[_LINES.get(arm, _OTHERS)]
            _draw(axis, lines[arm], colour)
            for seed, run in by_seed.items():
                if went_non_finite(run) and lines[arm][seed]:
                    axis.plot(*lines[arm][seed][-1], color=colour, marker="x", ms=8, mew=2.0, zorder=4)
            if not any(lines[arm].values()):
                axis.annotate("none", (0.5, 0.5), xycoords="axes fraction", ha="center", color=others, fontsize=9)
        axes[0].set_ylabel(words, color=ink, fontsize=9)
        _scale(axes[0], drawn, log=log)
        _draw_reference(list(axes), name, result, ink, drawn)
    for axis, arm in zip(grid[0], runs, strict=True):
        axis.set_title(arm, color=ink, fontsize=9, fontweight="bold")
    for axis in grid[-1]:
        axis.set_xlabel("step", color=ink, fontsize=9)
    return figure


def _clear(axis: Any, ink: str, faint: str) -> None:
    axis.set_facecolor("none")
    axis.tick_params(colors=ink, which="both", labelsize=8)
    axis.locator_params(axis="x", nbins=3)
    tidy(axis, grid=faint)
    axis.spines[["left", "bottom"]].set_color(ink)


def _draw(axis: Any, lines: Mapping[int, Points], colour: str, *, thin: bool = False) -> None:
    """The lines of one arm's seeds as one; with its band, unless it is only to be seen behind another."""
    rows = over_seeds(list(lines.values()))
    if not rows:
        return
    steps, low, middle, high = zip(*rows, strict=True)
    if len(lines) > 1 and not thin:
        axis.fill_between(steps, low, high, color=colour, alpha=0.2, lw=0, zorder=2)
    dot = {"marker": "o", "ms": 3 if thin else 5} if len(rows) == 1 else {}
    axis.plot(steps, middle, color=colour, lw=0.8 if thin else 2.0, zorder=1 if thin else 3, **dot)


def _scale(axis: Any, drawn: Sequence[float], *, log: bool) -> None:
    """One scale a row: logarithmic where it spans a decade. Values that are all one stand in the middle."""
    if not drawn:
        return
    low, high = min(drawn), max(drawn)
    if log and low > 0.0 and high > 10.0 * low:
        axis.set_yscale("log")
        return
    room = 0.1 * (max(high - low, abs(low), abs(high)) or 1.0)
    axis.set_ylim(low - room if low < 0.0 else max(low - room, 0.0), high + room)


def _draw_reference(axes: Sequence[Any], name: str, result: Result, ink: str, drawn: Sequence[float]) -> None:
    """The mean-frame baseline of the held-out loss; the log-det of collapsed Gaussians. Named in the margin, and drawn
    as a line where that leaves the curves at least half of the row."""
    baseline = (result.get("baselines") or {}).get("mean_frame") or {}
    level = number(baseline, "se3_vf_raw") if name == "se3_vf_loss_raw" else None
    words = "mean frame"
    if name == "log_det_min" and drawn:
        level, words = COLLAPSED, "collapsed"
    if level is None:
        return
    low, high = axes[0].get_ylim()
    near = low - (high - low) <= level <= high + (high - low)
    if near:
        room = 0.05 * (high - low)
        axes[0].set_ylim(min(low, level - room), max(high, level + room))
    for axis in axes if near else ():
        axis.axhline(level, color=ink, ls=(0, (1, 2)), lw=1.0)
    height = (level, "data") if near else (0.9, "axes fraction")
    words = f"{words}\n{level:.3g}"
    axes[-1].annotate(words, (1.0, height[0]), (4, 0), xycoords=("axes fraction", height[1]), va="center",
                      textcoords="offset points", color=ink, fontsize=8, annotation_clip=False)  # fmt: skip
