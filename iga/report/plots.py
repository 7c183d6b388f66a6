"""One palette and one set-up of axes for all pictures, which matplotlib (extra `plot`) draws, and their file.

Colours are safe for the colour-blind (Okabe & Ito). `dark`: the same hue on a dark page.
"""

import io
from pathlib import Path
from typing import Any

from iga._files import write_bytes

__all__ = ["COLOURS", "DARK", "check_file", "check_matplotlib", "plain_numbers", "save", "tidy"]

COLOURS = {
    **{"navy": "#00406B", "blue": "#2F9BD6", "vermilion": "#D55E00", "orange": "#E69F00", "yellow": "#F0C000"},
    **{"pink": "#CC79A7", "green": "#009E73", "grey": "#8A8A8A", "black": "#000000"},
}
DARK = {
    **{"navy": "#8CB8FF", "blue": "#56B4E9", "vermilion": "#FF8A3D", "orange": "#FFB733", "yellow": "#F0C000"},
    **{"pink": "#E58FC0", "green": "#2FD0A0", "grey": "#B8B8B8", "black": "#FFFFFF"},
}


def check_matplotlib() -> None:
    """Raises ValueError where matplotlib is missing, naming the extra that brings it."""
    try:
        import matplotlib.figure  # noqa: F401 - asked for only to see whether it is there
    except ImportError as error:
        extra = "pip install 'invariant-gaussian-attention[plot]'"
        raise ValueError(f"drawing needs matplotlib: install iga with its extra, {extra}") from error


def check_file(path: Path) -> None:
    """Raises ValueError where matplotlib is missing, or the file's ending is none that it writes."""
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if _kind(path) not in FigureCanvasAgg(Figure()).get_supported_filetypes():
        raise ValueError(f"{path}: a picture's name ends in .png, .svg or .pdf")


def save(figure: Any, path: Path) -> None:
    """The figure as a file that is whole or not there; to a pipe or device without an ending, a PNG. OSError if it
    can't be written."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=_kind(path), dpi=130)
    write_bytes(path, buffer.getvalue())


def tidy(axes: Any, *, grid: str = "0.9") -> None:
    """A faint grid, and no frame above and on the right."""
    axes.grid(True, which="major", color=grid, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def plain_numbers(axis: Any) -> None:
    """1, 2, 5, 10, … on a logarithmic axis, of which an interval may hold no power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _kind(path: Path) -> str:
    if not path.suffix and path.exists() and not path.is_file():
        return "png"
    return path.suffix.lstrip(".").lower()
