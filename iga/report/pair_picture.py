"""The picture of a counterexample: two Gaussians as ellipsoids, seen along three axes, and the distance between them.

Each ellipse is the shadow of an ellipsoid, the points at one σ of its Gaussian: of a covariance Σ the shadow on two
axes is the ellipse of the 2×2 part of Σ. Drawn with matplotlib (extra `plot`).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iga.report.plots import COLOURS, check_file, save, tidy

__all__ = ["draw"]

VIEWS = ((0, 1), (0, 2), (1, 2))
STEPS = 128  # corners of an ellipse
AXES = "xyz"
Numbers = Sequence[float]


def draw(pair: Mapping[str, Numbers], title: str, output: Path) -> None:
    """Draw one pair to a PNG, SVG or PDF file; raises as `check_file` and `save` do.

    pair   the numbers of q_rot (9, row by row), q_mean, q_sigma, k_rot, k_mean and k_sigma, nm
    title  what is said above it
    """
    check_file(output)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.6), layout="constrained")
    ends = {
        name: (covariance(pair[f"{end}_rot"], pair[f"{end}_sigma"]), list(pair[f"{end}_mean"]), colour)
        for name, end, colour in (("query", "q", COLOURS["vermilion"]), ("key", "k", COLOURS["blue"]))
    }
    for axes, (first, second) in zip(figure.subplots(1, len(VIEWS)), VIEWS, strict=True):
        _view(axes, ends, first, second)
    delta = math.dist(pair["q_mean"], pair["k_mean"])
    sigmas = "; ".join(f"{end} σ " + ", ".join(f"{x:.4g}" for x in pair[f"{end}_sigma"]) for end in ("q", "k"))
    figure.suptitle(f"{title}\n|δ| {delta:.4g} nm; {sigmas} nm", fontsize=10)
    save(figure, output)


def covariance(rot: Numbers, sigma: Numbers) -> list[list[float]]:
    """Σ = R diag(σ²) Rᵀ of nine numbers and three."""
    rows = [rot[3 * a : 3 * a + 3] for a in range(3)]
    return [[sum(rows[a][k] * rows[b][k] * sigma[k] ** 2 for k in range(3)) for b in range(3)] for a in range(3)]


def ellipse(sigma: list[list[float]], mean: Numbers, first: int, second: int) -> tuple[list[float], list[float]]:
    """The shadow on two axes as a closed line: mean + L (cos t, sin t), with L Lᵀ the 2×2 part of Σ."""
    a, b, c = sigma[first][first], sigma[first][second], sigma[second][second]
    low = math.sqrt(max(a, 0.0))
    cross = b / low if low else 0.0
    rest = math.sqrt(max(c - cross**2, 0.0))
    turns = [2 * math.pi * k / STEPS for k in range(STEPS + 1)]
    across = [mean[first] + low * math.cos(t) for t in turns]
    up = [mean[second] + cross * math.cos(t) + rest * math.sin(t) for t in turns]
    return across, up


def _view(axes: Any, ends: dict[str, Any], first: int, second: int) -> None:
    for name, (sigma, mean, colour) in ends.items():
        across, up = ellipse(sigma, mean, first, second)
        axes.fill(across, up, color=colour, alpha=0.25)
        axes.plot(across, up, color=colour, lw=1.4, label=name)
    points = [mean for _, mean, _ in ends.values()]
    axes.plot([p[first] for p in points], [p[second] for p in points], "o-", color="0.25", lw=1, ms=3, label="δ")
    axes.set(xlabel=f"{AXES[first]}, nm", ylabel=f"{AXES[second]}, nm")
    axes.set_aspect("equal", adjustable="datalim")
    tidy(axes)
    if (first, second) == VIEWS[0]:
        axes.legend(frameon=False, fontsize=9)
