"""Checks of every pair and point of a trace: `log_det_floor`, `dist_sq_bound`, `geometry_logit_bound`.

Limits are the contract's, whatever the layer's own configuration says of itself.
"""

import math

import torch

from iga import bounds
from iga._typing import Tensor
from iga.testing.check import check
from iga.testing.layer import budgets
from iga.testing.layer.subject import Observation
from iga.testing.tally import Tally

__all__ = ["dist_sq_bound", "geometry_logit_bound", "log_det_floor", "varies"]


@check("layer", "ln nm⁶", on_traces=True, needs="trace")
def log_det_floor(seen: Observation, tally: Tally) -> None:
    """raw log_det ≥ 3 ln(2 σ_min²), less its rounding budget."""
    trace, lowest = seen.trace, seen.contract.sigma_min
    floor = bounds.log_det_floor(lowest)
    limit = floor - bounds.log_det_floor_budget(trace.log_det.dtype, lowest, drift=budgets.drift(trace))
    tally.add(trace.log_det, limit, _named(seen.label), lower=True, could_fail=varies(trace.log_det))
    if float(trace.log_det.detach().amin()) < limit:
        tally.note(f"floor 3 ln(2 σ_min²) = {floor:.4f}; two collapsed covariances with jitter 1e-6 give -39.367")


@check("layer", "1", on_traces=True, needs="trace")
def dist_sq_bound(seen: Observation, tally: Tally) -> None:
    """0 ≤ dist_sq ≤ |δ|² / (2 σ_min²), relative rounding budget included."""
    trace, contract, label = seen.trace, seen.contract, seen.label
    delta = trace.query.mean.double()[..., :, None, :] - trace.key.mean.double()[..., None, :, :]
    delta_sq = delta.square().sum(dim=-1)
    kappa, off = budgets.condition(trace, contract), budgets.drift(trace)
    rounding = bounds.dist_sq_bound_budget(kappa, trace.dist_sq.dtype, drift=off)
    limit = bounds.dist_sq_bound(delta_sq, contract.sigma_min) * (1 + rounding)
    where = _named(label)
    tally.add(trace.dist_sq, limit, where, could_fail=(delta_sq > 0) & varies(trace.dist_sq))
    lowest = trace.dist_sq.amin()
    tally.add(lowest, 0.0, f"{label}: lowest", lower=True, could_fail=varies(trace.dist_sq))


@check("layer", "nat", on_traces=True, needs="trace")
def geometry_logit_bound(seen: Observation, tally: Tally) -> None:
    """|G| within the bound of a single score at the pair's anchors, whatever P; and a capped logit within its cap.

    The contract's bound is the Gaussian score's; a layer whose own closed bound is lower has to keep that one.
    """
    trace, contract, label, config = seen.trace, seen.contract, seen.label, seen.subject.iga_config
    anchors = trace.rigid.mean.double()
    extent = (anchors[..., :, None, :] - anchors[..., None, :, :]).norm(dim=-1)[..., None, :, :]  # [*b, 1, q, k]
    ceiling = math.hypot(contract.sigma_max, contract.sigma_min)
    limit = bounds.gaussian_score_bound(extent, contract.sigma_min, ceiling, offset_max=config.offset_max)
    if config.score == "student_t":
        own = bounds.student_t_score_bound(
            extent, contract.sigma_min, ceiling, dof=config.dof, offset_max=config.offset_max
        )
        points = trace.score.shape[-3]
        limit = torch.minimum(limit, bounds.geometry_logit_bound(own, points, config.point_scaling))
    rounding = budgets.geometry_logit(trace, config, contract, budgets.displacement(trace, contract))
    # a bound on |G| that is met but for rounding; a fault cannot widen it past the bound itself
    able = varies(trace.geo_raw)
    tally.add(trace.geo_raw.abs(), limit + torch.minimum(rounding, limit), _named(label), could_fail=able)
    if config.logit_cap is not None:
        tally.add(
            trace.geo_scaled.abs(), budgets.cap(trace, config.logit_cap), _named(f"{label}, cap"), could_fail=able
        )


def varies(values: Tensor) -> bool:
    """Whether not all are one number: a constant within its bounds has shown nothing."""
    return bool((values != values.flatten()[0]).any()) if values.numel() else False


def _named(label: str):
    """Names an element of a [1, h, (p,) q, k] tensor."""

    def where(index: tuple[int, ...]) -> str:
        names = ("sample", "head", "point", "query", "key") if len(index) == 5 else ("sample", "head", "query", "key")
        return f"{label}, " + ", ".join(f"{n} {i}" for n, i in list(zip(names, index, strict=True))[1:])

    return where
