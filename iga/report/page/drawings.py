"""Figures as SVG inside the page, drawn by matplotlib where it is installed.

A colour is drawn as that of `iga.report.plots` and written as a variable of the page's, so that one drawing serves
light and dark screens and paper. Names of parts get a prefix, which the page makes the drawing's own.
"""

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from iga._text import one_line
from iga.report.bench_plot import draw_panel, panels
from iga.report.measured import Curve, Histogram
from iga.report.plots import COLOURS, check_matplotlib, tidy

__all__ = ["UNNUMBERED", "WITHOUT", "along", "bars", "bench", "counted", "drawn", "nearness"]

WITHOUT = (
    "Drawings need matplotlib (pip install 'invariant-gaussian-attention[plot]'), which was not installed where this "
    "page was made. The numbers are in the tables."
)
# Inches: at 390 pixels, a phone's width, such a drawing keeps three quarters of its size, and its words can be read.
SIZE = (5.0, 3.3)
GRID, FAINT = "#d8d8d8", "#666666"
LONG = 30  # characters beside an axis: more would leave it no room
_LINES = ("navy", "vermilion", "green", "pink", "orange", "blue", "grey")
_MARKERS = "osD^vPX"
# Before the names of a drawing's parts, until the page numbers it: a sign that no text of a document keeps.
UNNUMBERED = "\ue000"


def drawn(draw: Callable[[Any], None], words: str, size: tuple[float, float] = SIZE) -> str:
    """The SVG of a figure that `draw(axes)` fills; empty where matplotlib is not installed."""
    try:
        check_matplotlib()
    except ValueError:
        return ""
    import matplotlib
    from matplotlib.figure import Figure

    plain: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "iga",
        "text.parse_math": False,
        "font.size": 10,
        "axes.titlesize": 10.5,
    }
    with matplotlib.rc_context(plain):
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        axes = figure.subplots()
        axes.set_facecolor("none")
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _inlined(buffer.getvalue(), words)


def _inlined(svg: str, words: str) -> str:
    """The <svg> element with the page's colours and letters, names of its own, and words for who does not see it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    for name, colour in (*COLOURS.items(), ("line", GRID), ("faint", FAINT)):
        svg = re.sub(re.escape(colour), f"var(--{name})", svg, flags=re.IGNORECASE)
    svg = re.sub(r"(font: (?:\w+ )*[\d.]+px) [^;\"]*", r"\1 var(--letters)", svg)
    prefix = UNNUMBERED
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}", svg)
    svg = re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}', svg)
    svg = re.sub(r'\s+xmlns:xlink="[^"]*"', "", svg, count=1)
    # sizes of the page's own making
    svg = re.sub(r'<svg([^>]*?) height="[^"]*"', r"<svg\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    label = re.sub(r"[^\w .,:;()·κσ|/²=-]", " ", words)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def along(curves: Sequence[tuple[str, Curve]], title: str) -> str:
    """Curves of one kind on one pair of axes, each under the name that comes with it; limits are dashed."""
    curves, title = _shown([*curves]), _shown(title)
    first = curves[0][1]

    def draw(axes: Any) -> None:
        doubling = first["along"] == "P"
        for number, (name, curve) in enumerate(curves):
            style = {"color": COLOURS[_LINES[number % len(_LINES)]], "ms": 5}
            here = [p for p in curve["points"] if _positive(p["at"]) and _positive(p["value"])]
            x, y = [p["at"] for p in here], [p["value"] for p in here]
            axes.plot(x, y, marker=_MARKERS[number % len(_MARKERS)], lw=1.8, label=name, **style)
            limits = [(p["at"], p["limit"]) for p in curve["points"] if _positive(p["limit"])]
            if limits:
                label = "budget" if number == 0 else None
                colour = FAINT if number == 0 else style["color"]
                axes.plot(*zip(*limits, strict=True), color=colour, lw=1.2, ls="--", label=label)
        axes.set_xscale("log", base=2 if doubling else 10)
        axes.set_yscale("log", base=2 if doubling else 10)
        at = sorted({p["at"] for _, curve in curves for p in curve["points"]})
        if doubling:
            axes.set_xticks(at := [x for x in at if math.log2(x).is_integer()], [f"{x:g}" for x in at])
            axes.minorticks_off()
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, 0.5), max(1.15 * high, 2.0))  # room for a mark that lies on the edge
        axes.set(xlabel="points per head P" if doubling else first["along"], ylabel=first["unit"])
        axes.set_title(title, loc="left")
        _plain(axes.yaxis, plain=doubling)
        _plain(axes.xaxis, plain=doubling)
        tidy(axes, grid=GRID)
        _legend(axes, first["along"])

    return drawn(draw, f"{title}: {first['unit']} along {first['along']}")


def counted(histogram: Histogram, floor: bool) -> str:
    """Bars of how many examples each bin holds, and the bound."""
    histogram = _shown(histogram)
    width, limit = histogram["width"], histogram["limit"]

    def draw(axes: Any) -> None:
        axes.bar(histogram["start"], histogram["counts"], width=width, align="edge", color=COLOURS["blue"], lw=0)
        axes.set_yscale("log")
        if limit is not None:
            axes.axvline(limit, color=COLOURS["vermilion"], lw=1.6)
            side = {"ha": "left", "x": limit} if floor else {"ha": "right", "x": limit}
            top = max(histogram["counts"], default=1)
            axes.set_ylim(0.5, 8 * top)
            axes.text(y=4 * top, s=" floor" if floor else "bound ", color=COLOURS["vermilion"], va="center", **side)
        if histogram["log10"]:
            ticks = sorted({round(x) for x in (*histogram["start"], limit or 0.0)})
            ticks = ticks[:: max(1, len(ticks) // 6)]
            axes.set_xticks(ticks, [_power(x) for x in ticks])
        axes.set(xlabel=histogram["unit"], ylabel="how many")
        axes.set_title(histogram["title"], loc="left")
        _plain(axes.yaxis)
        tidy(axes, grid=GRID)

    return drawn(draw, f"{histogram['title']}: how many examples, in {histogram['unit']}")


def nearness(shares: Sequence[tuple[str, float]], words: str) -> str:
    """A dot a check on an axis of decades, the limit at 1."""
    shares = _shown([*shares])

    def draw(axes: Any) -> None:
        order = list(reversed(shares))
        finite = [value for _, value in order if value < math.inf]
        most = max([10.0, *(10 * value for value in finite)])
        least = min([1e-2, *(value for value in finite if value > 0)]) / 2
        for place, (_, value) in enumerate(order):
            over = value > 1
            shown = min(max(value, least), most)
            marker = ">" if value == math.inf else "<" if value <= 0 else "o"
            axes.plot(shown, place, marker, color=COLOURS["vermilion" if over else "navy"], ms=7)
        axes.axvline(1.0, color=COLOURS["vermilion"], lw=1.4)
        axes.set_xscale("log")
        axes.set_xlim(least / 2, most * 2)
        axes.set_yticks(range(len(order)), [name for name, _ in order])
        axes.set_ylim(-0.7, len(order) - 0.3)
        axes.set(xlabel=words)
        _plain(axes.xaxis)
        tidy(axes, grid=GRID)

    return drawn(draw, words, (SIZE[0], 0.9 + 0.27 * max(3, len(shares))))


def bars(values: Sequence[tuple[str, float, float]], words: str) -> str:
    """Pairs of numbers by name, the one as a share of the other."""

    def draw(axes: Any) -> None:
        order = list(reversed(values))
        for place, (_, value, whole) in enumerate(order):
            axes.barh(place, 1.0, color=GRID, height=0.6, lw=0)
            axes.barh(place, value / whole if whole else 0.0, color=COLOURS["blue"], height=0.6, lw=0)
            axes.text(1.02, place, f"{value:g} of {whole:g}", va="center")
        axes.set_xlim(0.0, 1.45)
        axes.set_yticks(range(len(order)), [name for name, _, _ in order])
        axes.set_xticks([])
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.set_title(words, loc="left")

    return drawn(draw, words, (SIZE[0], 0.7 + 0.4 * max(1, len(values))))


def bench(document: Any) -> list[tuple[str, str]]:
    """(title, SVG) of each direction and axis of a bench, as in the picture of `iga bench --plot`."""
    timed = [_shown(row) for row in document["rows"] if row["median_ms"] is not None]
    return [
        (panel[0], drawn(lambda axes, panel=panel: draw_panel(axes, panel, grid=GRID), panel[0], (6.2, 4.2)))
        for panel in (panels(timed) if timed else [])
    ]


def _shown(part: Any) -> Any:
    """Texts of a document as they can be drawn: on one line, without control characters or half a surrogate pair, and
    of a long one its end, which tells a path from its neighbours. The tables have them whole."""
    if isinstance(part, dict):
        return {name: _shown(one) for name, one in part.items()}
    if isinstance(part, list | tuple):
        return type(part)(map(_shown, part))
    if not isinstance(part, str):
        return part
    text = one_line(part)
    return text if len(text) <= LONG else f"…{text[1 - LONG :]}"


def _legend(axes: Any, what: str) -> None:
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(frameon=False, fontsize=8.5, loc="upper left" if what == "κ" else "best")


def _positive(value: float | None) -> bool:
    return value is not None and value > 0


def _power(exponent: float | int) -> str:
    """10 to a whole power, in signs that any letters have."""
    if exponent == round(exponent) and exponent not in (0, 1):
        signs = str(round(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"10{signs}"
    return f"{10.0**exponent:g}"


def _plain(axis: Any, *, plain: bool = False) -> None:
    """Marks of a logarithmic axis without matplotlib's own markup for powers."""
    from matplotlib.ticker import FuncFormatter

    if axis.get_scale() != "log":
        return
    words = (lambda x, _: f"{x:g}") if plain else (lambda x, _: _power(math.log10(x)) if x > 0 else "")
    axis.set_major_formatter(FuncFormatter(words))
