"""The picture of the README: what each preset does as the scales grow long, and as the points grow many.

Measured on synthetic structures and their degenerate perturbations, drawn with matplotlib (extra `plot`).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from iga._files import write_text
from iga.bounds import FP16_MAX, log_det_floor
from iga.diagnostics import geo_scaled_absmax, log_det_min
from iga.plots import check_plot, save
from iga.presets import PRESETS
from iga.synthetic import synthetic_structures
from iga.testing.cases import PERTURBATIONS, make_case, perturbed_case
from iga.testing.contract import DEFAULT_POINTS, PROFILES, Contract, check_seed
from iga.testing.subject import Subject

__all__ = ["SIGMA_MAX", "draw", "measure", "write_numbers"]

SIGMA_MAX = (0.3, 1.0, 3.0, 10.0, 30.0, 75.0, 150.0)  # nm
POINTS = 8

# Colour, marker, line width, marker size, dashes. Colours are safe for the colour-blind (Okabe & Ito); where two
# presets coincide, the later one is drawn thin and dashed over a wide earlier one.
_LINES = {
    "pre_fix": ("#D55E00", "o", 4.5, 10, "-"),
    "logdet_clamp": ("#F0C000", "v", 1.6, 5, "--"),
    "sigma_floor": ("#CC79A7", "s", 4.5, 9, "-"),
    "soft_start": ("#2F9BD6", "D", 1.6, 5, "--"),
    "bounded": ("#00406B", "*", 2.4, 11, "-"),
}


def measure(
    *,
    seed: int = 0,
    sigma_max: Sequence[float] = SIGMA_MAX,
    points: Sequence[int] = DEFAULT_POINTS,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """{"sigma_max", "points", "presets": {name: {"log_det_min", "logit_absmax", "growth"}}}: the numbers drawn.

    log_det_min and logit_absmax: over all degenerate perturbations of one synthetic structure whose σ reach sigma_max
    (nm), random parameters, P = 8. growth: largest |geometry logit| of a fresh layer with P equal points.
    """
    check_seed(seed)
    report = on_progress or (lambda what, done, total: None)
    profile = replace(PROFILES["fast"], residues=48)
    structure = synthetic_structures(1, seed=seed)[0]
    case = make_case(structure, profile, residues=profile.residues, seed=seed)
    result: dict[str, Any] = {"sigma_max": list(sigma_max), "points": list(points), "seed": seed, "presets": {}}
    for done, (name, config) in enumerate(PRESETS.items()):
        report("presets", done, len(PRESETS))
        subject = Subject(name, config, profile)
        layer = subject.random(POINTS, seed)
        lowest, largest = [], []
        with torch.no_grad():
            for ceiling in sigma_max:
                contract = Contract(sigma_max=ceiling)
                traces = [
                    subject.trace(layer, perturbed_case(case, label, contract, seed=seed)) for label in PERTURBATIONS
                ]
                lowest.append(min(float(log_det_min(trace)) for trace in traces))
                largest.append(max(float(geo_scaled_absmax(trace)) for trace in traces))
            growth = [float(geo_scaled_absmax(subject.trace(subject.coherent(p, seed), case))) for p in points]
        result["presets"][name] = {"log_det_min": lowest, "logit_absmax": largest, "growth": growth}
    report("presets", len(PRESETS), len(PRESETS))
    return result


def write_numbers(data: dict[str, Any], path: Path) -> None:
    """`measure`'s numbers as JSON; OSError if that can't be done."""
    write_text(path, json.dumps(data, indent=2) + "\n")


def draw(data: dict[str, Any], output: Path) -> None:
    """Draw `measure`'s numbers to a PNG, SVG or PDF file; raises as `iga.plots` does."""
    check_plot(output)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    low, large, growth = figure.subplots(1, 3)
    for name, row in data["presets"].items():
        colour, marker, width, size, dashes = _LINES.get(name, ("black", "x", 1.6, 5, ":"))
        style = {"color": colour, "marker": marker, "lw": width, "ms": size, "ls": dashes, "label": name}
        low.plot(data["sigma_max"], row["log_det_min"], **style)
        large.plot(data["sigma_max"], row["logit_absmax"], **style)
        growth.plot(data["points"], [value / row["growth"][0] for value in row["growth"]], **style)
    floor = log_det_floor(0.03)
    low.axhline(floor, color="0.4", ls="--", lw=1)
    low.text(data["sigma_max"][0], floor - 1.6, "proven floor for σ ≥ 0.03 nm: −18.96", color="0.3", fontsize=9)
    low.text(data["sigma_max"][0], -38.6, "−39.37: nothing left but the jitter", color="0.3", fontsize=9)
    low.set(xscale="log", xlabel="largest σ, nm", ylabel="log det Σ, ln nm⁶", title="Lowest log-det")
    large.axhline(FP16_MAX, color="0.4", ls="--", lw=1)
    large.text(data["sigma_max"][0], FP16_MAX * 3, "largest fp16 number", color="0.3", fontsize=9)
    large.set(xscale="log", yscale="log", xlabel="largest σ, nm", ylabel="nat", title="Largest |geometry logit|, P = 8")
    growth.set(xlabel="points per head P", ylabel="relative to P = 1", title="Growth with P, equal points")
    growth.set_xscale("log", base=2)
    growth.set_yscale("log", base=2)
    growth.set_xticks(data["points"], [str(p) for p in data["points"]])
    for axes in (low, large, growth):
        axes.grid(True, which="major", color="0.9", lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    growth.legend(frameon=False, fontsize=10, loc="upper left")
    save(figure, output)
