"""Pictures by matplotlib (extra `plot`): whether one can be drawn to a path, and writing it there."""

import io
from pathlib import Path
from typing import Any

from iga._files import write_bytes

__all__ = ["check_plot", "save"]


def check_plot(path: Path) -> None:
    """Raises ValueError where matplotlib is missing, or the file's ending is none that it writes."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("drawing needs matplotlib: pip install 'invariant-gaussian-attention[plot]'") from error
    if _kind(path) not in FigureCanvasAgg(Figure()).get_supported_filetypes():
        raise ValueError(f"{path}: a picture's name ends in .png, .svg or .pdf")


def save(figure: Any, path: Path) -> None:
    """The figure as a file that is whole or not there; to a pipe or device without an ending, a PNG. OSError if it
    can't be written."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=_kind(path), dpi=130)
    write_bytes(path, buffer.getvalue())


def _kind(path: Path) -> str:
    if not path.suffix and path.exists() and not path.is_file():
        return "png"
    return path.suffix.lstrip(".").lower()
