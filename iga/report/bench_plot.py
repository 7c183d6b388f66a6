"""The picture of a bench document: time against P, and N where several were timed; dots where there is one size."""

import math
from pathlib import Path
from typing import Any

from iga.report.bench import digits
from iga.report.documents import Bench
from iga.report.plots import COLOURS, plain_numbers, save, tidy

__all__ = ["draw", "draw_panel", "panels"]

# Colour and marker; ours is dark and heavy.
_MARKS = {
    **{"cpu": ("navy", "o"), "fused": ("navy", "o"), "reference": ("black", "x"), "dense": ("orange", "s")},
    **{"textbook": ("vermilion", "^"), "textbook_compiled": ("vermilion", "v"), "closed_compiled": ("blue", "D")},
    **{"flex": ("green", "P"), "keops": ("pink", "X"), "ipa_sdpa": ("grey", "d")},
}
_OURS = ("cpu", "fused")
_APART = 0.045  # of an axis: what two labels keep between them


def draw(result: Bench, path: Path) -> None:
    """One panel a direction and axis. Raises ValueError for a result without a timed row."""
    from matplotlib.figure import Figure

    found = panels([row for row in result["rows"] if row["median_ms"] is not None])
    if not found:
        raise ValueError("no row of the result was timed: nothing to draw")
    columns = min(2, len(found))
    lines_of_panels = math.ceil(len(found) / columns)
    figure = Figure(figsize=(6.8 * columns, 5.0 * lines_of_panels), layout="constrained")
    axes = list(figure.subplots(lines_of_panels, columns, squeeze=False).flat)
    for spare in axes[len(found) :]:
        spare.set_visible(False)
    for axis, panel in zip(axes, found, strict=False):
        draw_panel(axis, panel)
    environment = result["environment"]
    where = environment["device"]
    if where == "cpu":
        where = f"{environment['cpu']}, {environment['threads']} threads"
    figure.suptitle(f"Gaussian attention, {where}", fontsize=12)
    save(figure, path)


Lines = dict[str, list[tuple[float, float, float, float]]]
Panel = tuple[str, str, Lines]


def draw_panel(axis: Any, panel: Panel, *, grid: str = "0.9") -> None:
    """One direction along P or N: lines, or dots where there is one size."""
    title, letter, lines = panel
    alone = len({point[0] for points in lines.values() for point in points}) == 1
    axis.set_title(title)
    (_draw_dots if alone else _draw_lines)(axis, letter, lines)
    tidy(axis, grid=grid)


def panels(rows: list[Any]) -> list[Panel]:
    """Of timed rows: (title, letter of the axis, points (x, median, low, high) by implementation), at the fixed size
    that shows most."""
    made = []
    for along, letter, fixed, other in (("points", "P", "residues", "N"), ("residues", "N", "points", "P")):
        if along == "residues" and len({row["residues"] for row in rows}) < 2:
            continue
        for direction in dict.fromkeys(row["direction"] for row in rows):
            chosen = [row for row in rows if row["direction"] == direction]
            # The slice that shows most: the fixed size at which most rows were timed, the largest of equals.
            counts = {at: sum(row[fixed] == at for row in chosen) for at in {row[fixed] for row in chosen}}
            at = max(counts, key=lambda size: (counts[size], size))
            lines: Lines = {}
            for row in sorted(chosen, key=lambda row: row[along]):
                if row[fixed] == at:
                    low, high = row["interval_ms"]
                    point = (float(row[along]), row["median_ms"], low, high)
                    lines.setdefault(row["implementation"], []).append(point)
            words = direction.replace("_", " + ")
            made.append((f"{words}, {other} = {at}, H = {chosen[0]['heads']}", letter, lines))
    return made


def _style(name: str) -> tuple[str, str]:
    colour, marker = _MARKS.get(name, ("black", "x"))
    return COLOURS[colour], marker


def _draw_dots(axis: Any, letter: str, lines: Lines) -> None:
    """One size: a line a contestant, the quickest on top, each with its number. Bars have no length on a log axis."""
    order = sorted(lines, key=lambda name: lines[name][0][1], reverse=True)
    for place, name in enumerate(order):
        _, median, low, high = lines[name][0]
        colour, marker = _style(name)
        heavy = name in _OURS
        axis.plot([low, high], [place, place], color=colour, lw=2.8 if heavy else 1.8, solid_capstyle="butt")
        axis.plot(median, place, color=colour, marker=marker, ms=11 if heavy else 8)
        words = {"color": colour, "fontsize": 10, "fontweight": "bold" if heavy else "normal", "ha": "center"}
        axis.annotate(f"{digits(median)} ms", (median, place), (0, 9), textcoords="offset points", **words)
    axis.set_xscale("log")
    axis.margins(x=0.12, y=0.12)
    axis.set_yticks(range(len(order)), order)
    plain_numbers(axis.xaxis)
    axis.set_xlabel(f"ms, median and 95 %, {letter} = {lines[order[0]][0][0]:g}")


def _draw_lines(axis: Any, letter: str, lines: Lines) -> None:
    from matplotlib.ticker import NullFormatter

    for name, points in lines.items():
        colour, marker = _style(name)
        x, y, low, high = zip(*points, strict=True)
        heavy = name in _OURS
        axis.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
        axis.plot(x, y, color=colour, marker=marker, lw=2.8 if heavy else 1.5, ms=7 if heavy else 5, label=name)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    ticks = sorted({point[0] for points in lines.values() for point in points})
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.xaxis.set_minor_formatter(NullFormatter())
    plain_numbers(axis.yaxis)
    axis.set(xlabel="points per head P" if letter == "P" else "residues N", ylabel="ms, median")
    _label_ends(axis, lines, ticks[-1])


def _label_ends(axis: Any, lines: Lines, right: float) -> None:
    """Names in the right margin, in the order of the last values, moved apart where they would touch; a line that ends
    early is named where it ends."""
    low, high = (float(limit) for limit in axis.get_ylim())
    span = math.log(high / low)
    at, heights = -math.inf, {}
    for name, points in sorted(lines.items(), key=lambda line: line[1][-1][1]):
        if points[-1][0] == right:
            at = heights[name] = max(math.log(points[-1][1] / low) / span, at + _APART)
    over = max(0.0, at - 1.0)
    for name, points in lines.items():
        colour, _ = _style(name)
        words = {"color": colour, "fontsize": 10, "fontweight": "bold" if name in _OURS else "normal"}
        x, y = points[-1][:2]
        if name not in heights:
            axis.annotate(name, (x, y), (6, 6), textcoords="offset points", **words)
            continue
        line = {"arrowstyle": "-", "color": colour, "lw": 0.6, "alpha": 0.6}
        place = (1.03, heights[name] - over)
        words |= {"va": "center", "arrowprops": line, "annotation_clip": False}
        axis.annotate(name, (x, y), place, textcoords="axes fraction", **words)
