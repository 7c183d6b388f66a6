"""The pictures of a sweep: loss and saturation against P and learning rate by arm, and against the dose of collapse.

A row a quantity, a column a condition with one of the other coordinate; a line an arm, its band from seed to seed.
Drawn with matplotlib (extra `plot`), imported inside the functions.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from iga.experiment.results.curves import data_uri, packed
from iga.experiment.sweep.readings import CellKey, Result, cells_of, in_words, runs_at, uncapped
from iga.report.document import Picture
from iga.report.plots import COLOURS, DARK, check_matplotlib, plain_numbers, tidy

__all__ = ["pictures"]

_LINES = ("navy", "vermilion", "green", "pink", "orange", "blue", "grey")
_MARKERS = "osD^vPX"
_MOST = 7  # arms of one picture: more lines are not told apart

# A coordinate: its words, what it is of a cell, and what the other coordinates are.
_ALONG: dict[str, tuple[str, Callable[[CellKey], float | None], Callable[[CellKey], tuple[object, ...]]]] = {
    "learning rate": (
        "learning rate",
        lambda c: c.learning_rate,
        lambda c: (in_words(*c.condition), f"P = {c.points}"),
    ),
    "P": ("points per head P", lambda c: c.points, lambda c: (in_words(*c.condition), f"rate {c.learning_rate:g}")),
    "dose": (
        "collapse: shift of log σ",
        lambda c: c.dose,
        lambda c: ("collapse", f"P = {c.points}", f"rate {c.learning_rate:g}"),
    ),
}


def pictures(result: Result) -> dict[str, list[tuple[Picture, bytes]]]:
    """{coordinate: pictures with their PNG on white}, of each coordinate that has at least two values with runs."""
    check_matplotlib()
    made: dict[str, list[tuple[Picture, bytes]]] = {}
    arms = list(result["settings"]["arms"])
    for along in _ALONG:
        panels = _panels(result, along)
        if not any(len({at for at, _ in points}) > 1 for lines in panels.values() for points in lines[0].values()):
            continue
        for start in range(0, len(arms), _MOST):
            few = arms[start : start + _MOST]
            light, dark = (packed(_figure(panels, along, few, dark)) for dark in (False, True))
            words = f"Loss and saturation against {along}, by arm: {', '.join(few)}"
            name = f"report_{along.replace(' ', '_')}_{start // _MOST + 1}.png"
            made.setdefault(along, []).append((Picture(name, data_uri(light), data_uri(dark), words), light))
    return made


Lines = dict[str, list[tuple[float, list[float]]]]  # {arm: [(coordinate, a value a seed)]}


def _panels(result: Result, along: str) -> dict[tuple[object, ...], tuple[Lines, Lines]]:
    """{the other coordinates: (losses, saturations)}."""
    _, coordinate, rest = _ALONG[along]
    made: dict[tuple[object, ...], tuple[Lines, Lines]] = {}
    for cell in cells_of(result):
        at = coordinate(cell)
        if at is None:
            continue
        losses, saturations = made.setdefault(rest(cell), ({}, {}))
        for arm, by_seed in runs_at(result, cell).items():
            found = [uncapped(run, result["settings"]["steps"]) for run in by_seed.values()]
            losses.setdefault(arm, []).append((float(at), [value for value in found if value is not None]))
            found = [run["totals"]["wmax_sat_frac"] for run in by_seed.values()]
            saturations.setdefault(arm, []).append((float(at), [value for value in found if value is not None]))
    return {name: lines for name, lines in made.items() if lines[0]}


def _figure(panels: dict[tuple[object, ...], tuple[Lines, Lines]], along: str, arms: Sequence[str], dark: bool) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ink, faint = ("#E6E6E6", "#4A4A4A") if dark else ("#222222", "#DDDDDD")
    size = (1.6 + 2.2 * len(panels), 5.2)
    figure = Figure(figsize=size, layout="constrained", facecolor="none" if dark else "white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
    for column, (name, lines) in enumerate(panels.items()):
        for row, of_row in enumerate(lines):
            axes = grid[row][column]
            axes.set_facecolor("none")
            axes.tick_params(colors=ink, which="both", labelsize=8)
            tidy(axes, grid=faint)
            axes.spines[["left", "bottom"]].set_color(ink)
            for number, arm in enumerate(arms):
                points = sorted((at, values) for at, values in of_row.get(arm, []) if values)
                if not points:
                    continue
                colour = (DARK if dark else COLOURS)[_LINES[number]]
                x, middle = [at for at, _ in points], [statistics.median(values) for _, values in points]
                low, high = [min(values) for _, values in points], [max(values) for _, values in points]
                axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
                axes.plot(x, middle, color=colour, marker=_MARKERS[number], ms=4, lw=1.4, label=arm)
            if along != "dose":
                axes.set_xscale("log")
            drawn = [value for points in of_row.values() for _, values in points for value in values]
            if row == 0 and drawn and max(drawn) > 10.0 * min(drawn):
                axes.set_yscale("log")
        grid[0][column].set_title("\n".join(map(str, name)), color=ink, fontsize=9)
        grid[1][column].set_xlabel(_ALONG[along][0], color=ink, fontsize=9)
        if along != "dose":
            plain_numbers(grid[1][column].xaxis)
    grid[0][0].set_ylabel("held-out loss,\nuncapped", color=ink, fontsize=9)
    grid[1][0].set_ylabel("share of\nsaturated rows", color=ink, fontsize=9)
    handles, labels = grid[0][0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_color(ink)
    return figure
