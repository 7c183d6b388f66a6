"""The picture of the README: what `iga picture` measured of the presets, drawn with matplotlib."""

from pathlib import Path
from typing import Any

from iga.report.plots import COLOURS, check_file, save, tidy

__all__ = ["draw"]

# Colour, marker, line width, marker size, dashes; where two presets coincide, the later one is drawn thin and dashed
# over a wide earlier one.
_LINES = {
    "pre_fix": ("vermilion", "o", 4.5, 10, "-"),
    "logdet_clamp": ("yellow", "v", 1.6, 5, "--"),
    "sigma_floor": ("pink", "s", 4.5, 9, "-"),
    "soft_start": ("blue", "D", 1.6, 5, "--"),
    "bounded": ("navy", "*", 2.4, 11, "-"),
}


def draw(data: dict[str, Any], output: Path, *, floor: float, largest: float) -> None:
    """Draw the numbers to a PNG, SVG or PDF file; raises as `check_file` and `save` do.

    floor    the proven floor of log det Σ for σ ≥ 0.03 nm
    largest  the largest number of fp16
    """
    check_file(output)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    low, large, growth = figure.subplots(1, 3)
    for name, row in data["presets"].items():
        colour, marker, width, size, dashes = _LINES.get(name, ("black", "x", 1.6, 5, ":"))
        style = {"color": COLOURS[colour], "marker": marker, "lw": width, "ms": size, "ls": dashes, "label": name}
        low.plot(data["sigma_max"], row["log_det_min"], **style)
        large.plot(data["sigma_max"], row["logit_absmax"], **style)
        growth.plot(data["points"], [value / row["growth"][0] for value in row["growth"]], **style)
    low.axhline(floor, color="0.4", ls="--", lw=1)
    low.text(data["sigma_max"][0], floor - 1.6, "proven floor for σ ≥ 0.03 nm: −18.96", color="0.3", fontsize=9)
    low.text(data["sigma_max"][0], -38.6, "−39.37: nothing left but the jitter", color="0.3", fontsize=9)
    low.set(xscale="log", xlabel="largest σ, nm", ylabel="log det Σ, ln nm⁶", title="Lowest log-det")
    large.axhline(largest, color="0.4", ls="--", lw=1)
    large.text(data["sigma_max"][0], largest * 3, "largest fp16 number", color="0.3", fontsize=9)
    large.set(xscale="log", yscale="log", xlabel="largest σ, nm", ylabel="nat", title="Largest |geometry logit|, P = 8")
    growth.set(xlabel="points per head P", ylabel="relative to P = 1", title="Growth with P, equal points")
    growth.set_xscale("log", base=2)
    growth.set_yscale("log", base=2)
    growth.set_xticks(data["points"], [str(p) for p in data["points"]])
    for axes in (low, large, growth):
        tidy(axes)
    growth.legend(frameon=False, fontsize=10, loc="upper left")
    save(figure, output)
