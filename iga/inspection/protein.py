"""One structure through the layer: its Gaussians, its numbers beside their bounds, its heads, and what drives extremes.

Bounds are those of the checks of `iga verify` that look at every trace, and two more of the Gaussians themselves. The
features are drawn: what a trained layer would be given by the network around it is not known here.
"""

import math
import re
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F

from iga import bounds
from iga._text import one_line
from iga._typing import Bool, Float, Tensor
from iga.diagnostics import SATURATION
from iga.inspection.extremes import extremes, rows_saturated
from iga.inspection.growth import grown
from iga.inspection.layer import Layer
from iga.inspection.shown import Shown, called, case_of
from iga.report.common import Invariant
from iga.report.inspected import Head, Protein, Residue
from iga.structure import Structure
from iga.testing.checks import CHECKS
from iga.testing.layer.cases import sample_residues
from iga.testing.tally import Tally
from iga.testing.targets import TargetError

__all__ = ["CONTACT", "look"]

CONTACT = 0.8  # nm between Cα, the usual definition of a contact of two residues
CELLS = 96  # of a map along each side: what a page shows, and a document keeps small
GROWTH = 64  # residues on which growth with P is shown: dense scores of P = 64 fit


def look(layer: Layer, structure: Structure, residues: int, points: Sequence[int], seed: int) -> Protein:
    """What up to `residues` of the structure's residues give; new layers with each of `points` besides.

    Raises ValueError, one line, where a target of yours raises on them.
    """
    generator = torch.Generator().manual_seed(seed)
    most = layer.subject.claims.max_residues
    index = sample_residues(structure, residues if most is None else min(residues, most), generator)
    names = [f"{structure.chains[i]} {structure.numbers[i]} {structure.residue_names[i]}" for i in index.tolist()]
    names = [one_line(name.strip()) for name in names]
    case = case_of(layer, structure, index, seed)
    shown = called(layer, case)
    trans = structure.gaussian.trans[index].double()
    distance = torch.cdist(trans, trans)
    contacts = (distance < CONTACT) & ~torch.eye(len(index), dtype=torch.bool)
    pairs, often = extremes(shown.tensors, names, distance)
    weights = shown.tensors.get("weights")
    few = case_of(layer, structure, index[:GROWTH], seed)
    cell = -(-len(index) // CELLS)
    return {
        "path": structure.path,
        "residues": structure.n_residues,
        "masked": structure.n_residues - structure.n_valid,
        "chain_breaks": int(structure.chain_breaks.sum()),
        "looked_at": len(index),
        "how": _how(structure, len(index), seed),
        "files": [],
        "notes": [f"{count} masked: {reason}" for reason, count in structure.masked.items()],
        "invariants": [*_gaussians(layer, shown, names), *_scores(layer, shown, names)],
        "shown": _residues(structure, index, names, contacts),
        "cell": cell,
        "contacts": _pooled(contacts.double(), cell),
        "heads": _heads(shown.tensors, contacts, cell),
        "extremes": pairs,
        "often": often,
        "saturated": [] if weights is None or len(index) < 2 else rows_saturated(weights, names, distance),
        "grown": grown(layer, few, points, seed),
    }


def _how(structure: Structure, count: int, seed: int) -> str:
    if count == structure.n_valid:
        return f"all {count} residues that have a frame"
    return (
        f"a sample, {count} of {structure.n_valid} residues that have a frame: half of them in a row, half spread over "
        f"all, drawn with seed {seed}"
    )


def _gaussians(layer: Layer, shown: Shown, names: Sequence[str]) -> list[Invariant]:
    """σ within its range and κ within the range's ratio, of the Gaussians that the layer made; none if not shown."""
    if not shown.sigmas:
        return []
    low, high = layer.contract.sigma_min, layer.contract.sigma_max
    ceiling = bounds.smooth_ceiling(low, high)
    sigma_range, condition = Tally("sigma_range", "nm"), Tally("condition_range", "1")
    for query, key in shown.sigmas:
        for side, sigma in (("query", query), ("key", key)):
            sigma = sigma.double()
            # the smooth ceiling is a root of two squares and their sum, each rounded: 2 u, and once more for σ_max
            room = 4 * bounds.unit_roundoff(layer.dtype)
            name = _axis_named(side, names)
            sigma_range.add(sigma, ceiling * (1 + room), name)
            sigma_range.add(sigma, low, name, lower=True)
            over = sigma / low  # so that the floor is the edge of a bin
            sigma_range.figures.count(f"σ of {side} over the floor", "σ_min", over, width=0.1, limit=0.0, log10=True)
            kappa = sigma.amax(dim=-1) / sigma.amin(dim=-1)
            condition.add(kappa, ceiling / low * (1 + room), _axis_named(side, names))
            condition.figures.count(f"κ of {side}", "largest σ over smallest", kappa, width=0.1, log10=True)
    return [_finding(one) for one in (sigma_range, condition)]


def _axis_named(side: str, names: Sequence[str]):
    def where(index: tuple[int, ...]) -> str:
        head, point, residue, *axis = index
        return f"head {head}, point {point}, {side} {names[residue]}" + (f", axis {axis[0] + 1}" if axis else "")

    return where


def _scores(layer: Layer, shown: Shown, names: Sequence[str]) -> list[Invariant]:
    """The findings of the checks that look at every trace, with the residues' names for their indices."""
    found = []
    for check in CHECKS:
        if check.each_trace is None or check.not_applicable(layer.subject, "fast"):
            continue
        tally = Tally(check.name, check.unit)
        try:
            with torch.no_grad():
                check.each_trace(shown.observation, tally)
        except TargetError as error:
            raise ValueError(f"{layer.subject.name}: {error}") from error
        made = _finding(tally)
        where = made["worst_example"].removeprefix(shown.observation.label).lstrip(",: ")
        made["worst_example"] = re.sub(r"\b(query|key) (\d+)\b", lambda at: f"{at[1]} {names[int(at[2])]}", where)
        found.append(made)
    return found


def _finding(tally: Tally) -> Invariant:
    made = tally.finding()
    numbers = {name: _finite(getattr(made, name)) for name in ("worst", "budget")}
    return cast(Invariant, vars(made) | numbers | {"expected_broken": None})


def _residues(
    structure: Structure, index: Tensor, names: Sequence[str], contacts: Bool[Tensor, "n n"]
) -> list[Residue]:
    gaussian = structure.gaussian[index].to(dtype=torch.float64)
    covariance = gaussian.covariance()
    six = torch.stack([covariance[:, i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))], dim=-1)
    rows = zip(names, index.tolist(), gaussian.mean.tolist(), gaussian.sigma.tolist(), six.tolist(), strict=True)
    return [
        {
            "name": name,
            "chain": structure.chains[at],
            "mean": [round(x, 5) for x in mean],
            "sigma": [round(x, 5) for x in sigma],
            "covariance": [float(f"{x:.6g}") for x in u],
            "contacts": int(near),
        }
        for (name, at, mean, sigma, u), near in zip(rows, contacts.sum(dim=-1).tolist(), strict=True)
    ]


def _heads(tensors: dict[str, Tensor], contacts: Bool[Tensor, "n n"], cell: int) -> list[Head]:
    if "weights" not in tensors:
        return []
    weights = tensors["weights"].double()
    near = contacts.sum(dim=-1) > 0
    chance = float(contacts[near].double().mean()) if bool(near.any()) else None
    entropy = torch.special.entr(weights).sum(dim=-1)
    made: list[Head] = []
    for head, one in enumerate(weights):
        logits, geometry = (_of_head(tensors, name, head) for name in ("logits", "geometry_logit"))
        on = float((one * contacts).sum(dim=-1)[near].mean()) if chance is not None else math.nan
        lowest, highest = (math.nan, math.nan) if logits is None else (float(logits.amin()), float(logits.amax()))
        made.append(
            {
                "head": head,
                "saturated": round(float((one.amax(dim=-1) > SATURATION).double().mean()), 6),
                "entropy": _finite(float(entropy[head].mean())),
                "largest": _finite(float(one.amax())),
                "on_contacts": _finite(on),
                "by_chance": chance,
                "lowest_logit": _finite(lowest),
                "highest_logit": _finite(highest),
                "largest_geometry": None if geometry is None else _finite(float(geometry.abs().amax())),
                "map": _pooled(one, cell),
            }
        )
    return made


def _of_head(tensors: dict[str, Tensor], name: str, head: int) -> Tensor | None:
    """What the head has of it, without the −∞ that excludes keys; None where nothing is shown or left."""
    if name not in tensors or head >= len(tensors[name]):
        return None
    values = tensors[name][head].double().flatten()
    values = values[~values.isneginf()]
    return values if values.numel() else None


def _pooled(values: Float[Tensor, "n n"], cell: int) -> list[list[float]]:
    """Means over cells of cell × cell; those at the end of what is left."""
    values = values.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    small = F.avg_pool2d(values[None, None], cell, ceil_mode=True, count_include_pad=False)[0, 0]
    return [[float(f"{x:.3g}") for x in row] for row in small.tolist()]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
