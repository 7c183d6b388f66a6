"""Checks of a layer's gradients: finite, and within their bounds.

`gradient_finiteness`: every gradient of the layer is finite on every degenerate geometry, and each row of its
projections of s gets one, for every P, where nothing is degenerate (`rows`).

`gradient_bounds`: autograd's derivatives of every pair's dist_sq and log_det within docs/theory.md, 9.1.

    |∂dist_sq/∂μ| ≤ |δ|/σ_min²          Σ_six |∂dist_sq/∂log σ_k| ≤ 2 dist_sq + 2√6 u_max √dist_sq
    0 ≤ ∂log_det/∂log σ_k ≤ 2           Σ_six ∂log_det/∂log σ_k = 6

The trace's means move with its σ, hence the second bound and not the equality. What rounding adds is 9.3, with the
means' own part, |u_k|σ_k times the error of ∂dist_sq/∂μ. Per pair: one key (or query) at a time has its row of the
score summed, all others being functions of other residues' Gaussians.
"""

import torch

from iga import bounds
from iga._typing import Tensor
from iga.functional import PointGaussians, Trace
from iga.testing.check import TRACE, check
from iga.testing.contract import Contract
from iga.testing.layer import budgets
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import build, cast, gradients, kept, leaves, native
from iga.testing.layer.guards import require_geometry
from iga.testing.layer.rows import unread_rows
from iga.testing.layer.subject import Subject
from iga.testing.tally import Tally

__all__ = ["gradient_bounds", "gradient_finiteness"]


@check("layer", "entries", degenerate=True, requires=("gradients",))
def gradient_finiteness(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Counts entries that are not finite among the gradients to features, frames, Gaussians and parameters.

    And rows of weights that never get any gradient.
    """
    for index, given in enumerate(cases):
        points = contract.points[index % len(contract.points)]
        layer, case = build(subject, points, seed), cast(given, native(subject))
        if given.rigid is cases[0].rigid:  # a structure as it is
            require_geometry(subject, layer, case, tally)
        leaf, inputs = leaves(case)
        inputs |= {name: x for name, x in layer.named_parameters() if x.requires_grad}
        output = subject.output(layer, leaf)
        for name, gradient in gradients(output.square().sum(), inputs).items():
            if gradient is None:
                tally.add(0.0, 0.0, f"{case.label}: {name}", could_fail=False)
                continue
            bad = (~gradient.isfinite()).double().sum()
            reached = bool((gradient != 0).any())
            tally.add(bad, 0.0, f"{case.label}, P = {points}: gradient of {name}", could_fail=reached)
    noted: set[str] = set()
    for points in contract.points:
        for name, rows in unread_rows(subject, cases[0], points, seed):
            where = f"{cases[0].label}, P = {points}: rows of {name} without gradient"
            tally.add(float(len(rows)), 0.0, where)
            if rows and name not in noted:
                noted.add(name)
                tally.note(f"value: {_spans(rows)} of {name} never reach the output, P = {points}")


def _spans(rows: list[int]) -> str:
    """ "rows 3, 12–14", counted from 0; the first three spans of many."""
    starts = [row for row in rows if row - 1 not in rows]
    ends = [row for row in rows if row + 1 not in rows]
    spans = [f"{a}" if a == b else f"{a}–{b}" for a, b in zip(starts, ends, strict=True)]
    return f"rows {', '.join(spans[:3])}{', …' if len(spans) > 3 else ''}"


RESIDUES = 6
FEW = 4  # points: each of them is judged on every pair, so more would only repeat


@check("layer", "see example", degenerate=True, needs=TRACE, requires=("gradients",))
def gradient_bounds(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Each derivative over its bound, rounding included."""
    choices = [p for p in contract.points if p <= FEW] or [contract.points[0]]
    for index, given in enumerate(cases):
        points = choices[index % len(choices)]
        case = cast(given, native(subject))
        layer = build(subject, points, seed + index)
        if index == 0:
            require_geometry(subject, layer, case, tally)
        trace = subject.trace(layer, kept(case, torch.arange(min(RESIDUES, case.s.shape[-2]))))
        where = f"{given.label}, P = {points}"
        if not (trace.dist_sq.requires_grad and trace.log_det.requires_grad):
            tally.fail(where, "the trace's dist_sq or log_det carries no gradient")
            continue
        _judge(trace, subject.iga_config.offset_max, contract, where, tally)


def _judge(trace: Trace, offset_max: float, contract: Contract, where: str, tally: Tally) -> None:
    dtype, low = trace.dist_sq.dtype, contract.sigma_min
    dist_sq, kappa = trace.dist_sq.detach().double(), budgets.condition(trace, contract)
    query, key = trace.query.mean.detach().double(), trace.key.mean.detach().double()
    delta = (query[..., :, None, :] - key[..., None, :, :]).norm(dim=-1)
    off = budgets.drift(trace.rigid, dtype)
    rounding = bounds.dist_sq_gradient_budget(dist_sq, kappa, low, dtype, drift=off)

    total, by_log_det = torch.zeros_like(dist_sq), torch.zeros_like(dist_sq)
    moved = torch.as_tensor(bounds.log_scale_gradient_budget(dist_sq, kappa, dtype, drift=off))
    for side, gaussians in (("query", trace.query), ("key", trace.key)):
        sigma = gaussians.sigma.detach().double()
        by_mean, by_sigma = _per_pair(trace.dist_sq, gaussians, side)
        limit = bounds.dist_sq_gradient_bound(delta, low)
        norm = by_mean.norm(dim=-1)
        tally.add(norm, limit + rounding, f"{where}: ∂dist_sq/∂{side} mean", could_fail=rounding < limit)
        wide = sigma[..., :, None, :] if side == "query" else sigma[..., None, :, :]
        total = total + (by_sigma * wide).abs().sum(dim=-1)
        moved = moved + offset_max * wide.sum(dim=-1) * rounding
        _, by_sigma = _per_pair(trace.log_det, gaussians, side)
        each = by_sigma * wide
        by_log_det = by_log_det + each.sum(dim=-1)
        slack = torch.as_tensor(bounds.log_det_gradient_budget(kappa, dtype, drift=off))[..., None]
        tally.add(each, 2 + slack, f"{where}: ∂log_det/∂log σ of the {side}")
        tally.add(each, -slack, f"{where}: ∂log_det/∂log σ of the {side}", lower=True)
    limit = torch.as_tensor(bounds.log_scale_gradient_bound(dist_sq, offset_max, mean_moves=True))
    tally.add(total, limit + 6 * moved, f"{where}: Σ|∂dist_sq/∂log σ|", could_fail=6 * moved < limit)
    slack = 6 * torch.as_tensor(bounds.log_det_gradient_budget(kappa, dtype, drift=off))
    tally.add((by_log_det - 6).abs(), slack, f"{where}: Σ ∂log_det/∂log σ − 6", could_fail=slack < 6)


def _per_pair(values: Tensor, gaussians: PointGaussians, side: str) -> tuple[Tensor, Tensor]:
    """Derivatives of each pair's value to one side's mean and σ, [*b, h, p, q, k, 3], float64; σ moves the mean too."""
    across = -1 if side == "query" else -2
    found: list[tuple[Tensor, Tensor]] = []
    for other in range(values.shape[across]):
        row = values.select(across, other).sum()
        inputs = (gaussians.mean, gaussians.sigma)
        grads = torch.autograd.grad(row, inputs, retain_graph=True, allow_unused=True)
        mean, sigma = (torch.zeros_like(x) if g is None else g for g, x in zip(grads, inputs, strict=True))
        found.append((mean.double(), sigma.double()))
    dim = -2 if side == "query" else -3
    return torch.stack([mean for mean, _ in found], dim=dim), torch.stack([sigma for _, sigma in found], dim=dim)
