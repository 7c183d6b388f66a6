"""Drawings of a protein: its Gaussians from three sides, and maps of its residues by residues."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from iga.report.inspected import Residue
from iga.report.page.drawings import FAINT, drawn
from iga.report.plots import COLOURS

__all__ = ["HALF", "ellipsoids", "matrix"]

# Semi-axes, in σ, of the ellipsoid that holds half of a Gaussian in space: the median of χ with 3 degrees of freedom.
HALF = 1.5382
_CORNERS = 24  # of a drawn ellipse: at its size on the page no corner is seen
_LINES = ("navy", "vermilion", "green", "pink", "orange", "blue", "grey")
_SIDES = (("first", "second", (0, 1)), ("first", "third", (0, 2)), ("second", "third", (1, 2)))


def ellipsoids(residues: Sequence[Residue]) -> list[tuple[str, str, list[tuple[float, ...]]]]:
    """(words, SVG, numbers) of each of three sides, along the principal axes of the residues' means.

    Drawn are the ellipsoids that hold half of each Gaussian, a colour a chain: an ellipsoid's outline is the ellipse of
    its covariance's projection. Numbers: a residue's place across and up, and the semi-axes of its outline, nm.
    """
    means = np.array([one["mean"] for one in residues])
    covariances = np.array([_matrix(one["covariance"]) for one in residues])
    centred = means - means.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=True)[2]  # rows: along the longest extent first
    if np.linalg.det(axes) < 0:  # a turn, no mirror image
        axes[2] *= -1
    placed = centred @ axes.T
    turned = axes @ covariances @ axes.T
    chains = list(dict.fromkeys(one["chain"] for one in residues))
    colours = [COLOURS[_LINES[chains.index(one["chain"]) % len(_LINES)]] for one in residues]
    made = []
    for across, up, (i, j) in _SIDES:
        found = [_outline(place[[i, j]], u[np.ix_([i, j], [i, j])]) for place, u in zip(placed, turned, strict=True)]
        outlines = [one for one, _ in found]
        numbers = [(*map(float, place[[i, j]]), *long) for place, (_, long) in zip(placed, found, strict=True)]
        words = f"The Gaussians, seen so that the {across} principal axis runs across and the {up} up"

        def draw(axes: Any, outlines: Any = outlines, across: str = across, up: str = up, ij: Any = (i, j)) -> None:
            from matplotlib.collections import PolyCollection

            for chain in chains:
                own = [place for place, one in zip(placed, residues, strict=True) if one["chain"] == chain]
                axes.plot(*np.array(own)[:, ij].T, color=FAINT, lw=0.6, alpha=0.6)
            axes.add_collection(PolyCollection(outlines, facecolors=colours, edgecolors=colours, alpha=0.35, lw=0.5))
            axes.set_aspect("equal")
            axes.autoscale_view()
            axes.set(xlabel=f"{across} principal axis, nm", ylabel=f"{up}, nm")
            axes.spines[["top", "right"]].set_visible(False)

        made.append((words, drawn(draw, words, (5.0, 4.2)), numbers))
    return made


def _matrix(six: Sequence[float]) -> list[list[float]]:
    xx, yy, zz, xy, xz, yz = six
    return [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]


def _outline(centre: Any, covariance: Any) -> tuple[Any, tuple[float, float]]:
    """Corners of the ellipse of `HALF` σ around the centre, [_CORNERS, 2], and its semi-axes, the longer first."""
    values, vectors = np.linalg.eigh(covariance)
    angle = np.linspace(0.0, 2 * math.pi, _CORNERS, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    axes = HALF * np.sqrt(np.clip(values, 0.0, None))
    return centre + (circle * axes) @ vectors.T, (float(axes[1]), float(axes[0]))


def matrix(values: Sequence[Sequence[float]], cell: int, names: Sequence[str], title: str, words: str) -> str:
    """A square of cells of `cell` residues, the darker the larger; by the root, so that small ones can be seen."""
    cells = np.array(values, dtype=float)
    most = max(float(cells.max(initial=0.0)), 1e-300)

    def draw(axes: Any) -> None:
        from matplotlib.colors import to_rgb

        shade = np.empty((*cells.shape, 4))
        shade[..., :3], shade[..., 3] = to_rgb(COLOURS["blue"]), np.sqrt(cells / most)
        axes.imshow(shade, interpolation="nearest", origin="upper")
        step = max(1, len(names) // 5)
        at = list(range(0, len(names), step))
        places = [(x + 0.5) / cell - 0.5 for x in at]
        labels = [" ".join(names[x].split()[:2]) for x in at]
        axes.set_xticks(places, labels, rotation=90)
        axes.set_yticks(places, labels)
        axes.set(xlabel="key", ylabel="query")
        axes.set_title(title, loc="left")

    return drawn(draw, words, (4.6, 4.6))
