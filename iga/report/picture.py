"""The picture of the README: what `iga picture` measured of the presets, drawn with matplotlib.

A column a preset, a row a quantity; the other presets stand behind it in grey, so that those
which coincide are all seen.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iga.report.plots import COLOURS, check_file, save, tidy

__all__ = ["draw"]

_LINES = {"pre_fix": "vermilion", "logdet_clamp": "orange", "sigma_floor": "pink", "soft_start": "green"}
_OTHERS = "navy"
_INK, _GREY = "0.2", "0.75"


def draw(data: dict[str, Any], output: Path, *, floor: float, largest: float) -> None:
    """Draw the numbers to a PNG, SVG or PDF file; raises as `check_file` and `save` do.

    floor    the proven floor of log det Σ for σ ≥ 0.03 nm
    largest  the largest number of fp16
    """
    check_file(output)
    from matplotlib.figure import Figure

    presets = data["presets"]
    figure = Figure(figsize=(1.9 + 2.1 * len(presets), 6.6), layout="constrained")
    grid = figure.subplots(3, len(presets), sharey="row", squeeze=False)
    growth = {name: [value / row["growth"][0] for value in row["growth"]] for name, row in presets.items()}
    rows = (
        ("lowest log-det\n(ln nm⁶)", data["sigma_max"], {name: row["log_det_min"] for name, row in presets.items()}),
        (
            "largest geometry logit\n(nat), P = 8",
            data["sigma_max"],
            {n: row["logit_absmax"] for n, row in presets.items()},
        ),
        ("growth with P,\nequal points", data["points"], growth),
    )
    for axes, (words, along, values) in zip(grid, rows, strict=True):
        for axis, name in zip(axes, presets, strict=True):
            for other in values:
                if other != name:
                    axis.plot(along, values[other], color=_GREY, lw=0.9)
            axis.plot(along, values[name], color=COLOURS[_LINES.get(name, _OTHERS)], lw=2.2, marker="o", ms=4)
            tidy(axis)
            axis.tick_params(labelsize=8)
        axes[0].set_ylabel(words)
    for axis, name in zip(grid[0], presets, strict=True):
        axis.set_title(name, fontweight="bold", fontsize=11)
    for axis in (*grid[0], *grid[1]):
        axis.set_xscale("log")
        axis.set_xlabel("largest σ (nm)", fontsize=9)
    for axis in grid[2]:
        axis.set_xscale("log", base=2)
        axis.set_xticks(data["points"], [str(p) for p in data["points"]])
        axis.set_xlabel("points per head P", fontsize=9)
    grid[1][0].set_yscale("log")
    grid[2][0].set_yscale("log", base=2)
    jitter = 3.0 * math.log(2e-6)  # two covariances of nothing but a jitter of 10⁻⁶ nm²: docs/theory.md, section 4
    _reference(grid[0], floor, f"proven floor\n{floor:.2f}")
    _reference(grid[0], jitter, f"jitter alone\n{jitter:.2f}")
    _reference(grid[1], largest, "largest fp16\n65504")
    save(figure, output)


def _reference(axes: Sequence[Any], level: float, words: str) -> None:
    """A dotted line through a row, named in the margin."""
    for axis in axes:
        axis.axhline(level, color=_INK, ls=(0, (1, 2)), lw=1.0)
    words = words.replace("-", "−")
    axes[-1].annotate(words, (1.0, level), (5, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                      va="center", color=_INK, fontsize=9, annotation_clip=False)  # fmt: skip
