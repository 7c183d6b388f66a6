"""Checks of every pair and point that a layer shows: `log_det_floor`, `dist_sq_bound`, `geometry_logit_bound`.

Limits are the contract's, whatever the layer's own configuration says of itself.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch

from iga import bounds
from iga._typing import Tensor
from iga.gaussian import GaussianRigid
from iga.testing.check import check
from iga.testing.layer import budgets
from iga.testing.layer.seen import Seen
from iga.testing.layer.subject import Observation
from iga.testing.tally import Tally

__all__ = ["dist_sq_bound", "geometry_logit_bound", "log_det_floor", "varies"]


@check("layer", "ln nm⁶", on_traces=True, needs=("log_det",))
def log_det_floor(seen: Observation, tally: Tally) -> None:
    """raw log_det ≥ 3 ln(2 σ_min²), less its rounding budget; of a layer without trace in whatever form it computes."""
    lowest = seen.contract.sigma_min
    floor = bounds.log_det_floor(lowest)
    for log_det in [seen.trace.log_det] if seen.seen is None else seen.seen.all("log_det"):
        off = budgets.drift(seen.case.rigid, _wide(log_det))
        limit = floor - bounds.log_det_floor_budget(
            _wide(log_det), lowest, drift=off, roundings=bounds.REFERENCE, as_given=seen.seen is not None
        )
        tally.add(log_det, limit, _named(seen.label), lower=True, could_fail=varies(log_det))
        tally.figures.count("log_det", "ln nm⁶", log_det, width=1.0, limit=floor)
        if float(log_det.detach().amin()) < limit:
            tally.note(f"floor 3 ln(2 σ_min²) = {floor:.4f}; two collapsed covariances with jitter 1e-6 give -39.367")


@check("layer", "1", on_traces=True, needs=("dist_sq",))
def dist_sq_bound(seen: Observation, tally: Tally) -> None:
    """0 ≤ dist_sq ≤ |δ|² / (2 σ_min²), relative rounding budget included; the latter where means and σ are shown."""
    contract, label = seen.contract, seen.label
    for dist_sq, gaussians in _pairs(seen):
        able = varies(dist_sq)
        tally.add(dist_sq.amin(), 0.0, f"{label}: lowest", lower=True, could_fail=able)
        if gaussians is None:
            # Without an upper bound all that is left of it is that it is a number.
            tally.add((~dist_sq.isfinite()).sum(), 0.0, f"{label}: dist_sq that are not finite", could_fail=able)
            tally.note("means and σ of queries and keys are not shown: the upper bound was not judged")
            continue
        (query, key), (query_sigma, key_sigma) = gaussians
        delta_sq = _squared(query, key)
        kappa = budgets.condition_of(query_sigma, key_sigma, contract)
        off = budgets.drift(seen.case.rigid, _wide(dist_sq))
        rounding = bounds.dist_sq_bound_budget(kappa, _wide(dist_sq), drift=off, roundings=bounds.REFERENCE)
        limit = bounds.dist_sq_bound(delta_sq, contract.sigma_min) * (1 + rounding)
        tally.add(dist_sq, limit.expand(dist_sq.shape), _named(label), could_fail=(delta_sq > 0) & able)
        share = (dist_sq.double() / limit)[(delta_sq > 0).expand(dist_sq.shape)]
        tally.figures.count("dist_sq over its bound", "times the bound", share, width=0.5, limit=0.0, log10=True)


@check("layer", "nat", on_traces=True, needs=("logits",))
def geometry_logit_bound(seen: Observation, tally: Tally) -> None:
    """|G| within the bound of a single score at the pair's anchors, whatever P; and a capped logit within its cap.

    The contract's bound is the Gaussian score's; a layer whose own closed bound is lower has to keep that one. Of a
    layer without trace: every logit is finite, and each score that it shows is within the Gaussian's bound.
    """
    if seen.seen is not None:
        _shown_logits(seen, seen.seen, tally)
        return
    trace, contract, label, config = seen.trace, seen.contract, seen.label, seen.subject.iga_config
    ceiling = math.hypot(contract.sigma_max, contract.sigma_min)
    extent = _extent(trace.rigid)
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
    share = trace.geo_raw.double().abs() / limit
    tally.figures.count("|G| over its bound", "times the bound", share, width=0.5, limit=0.0, log10=True)
    if config.logit_cap is not None:
        tally.add(
            trace.geo_scaled.abs(), budgets.cap(trace, config.logit_cap), _named(f"{label}, cap"), could_fail=able
        )


def _shown_logits(seen: Observation, taps: Seen, tally: Tally) -> None:
    """What holds of any layer's logits, and of the scores of Gaussians.

    A score is ½ dist_sq and ½ log_det, each within its own bound and budget; of a Student-t's logarithm the bound is
    higher by less than log_det leaves free.
    """
    contract, label = seen.contract, seen.label
    for name in ("logits", "geometry_logit"):
        for logits in taps.all(name) if name in taps.sources else []:
            logits = logits.detach()
            wrong = logits.isnan() | logits.isposinf() if name == "logits" else ~logits.isfinite()  # −∞ excludes a key
            tally.add(wrong.sum(), 0.0, f"{label}: {name} that are not finite", could_fail=varies(logits))
            tally.highest(f"largest {name}", logits.masked_fill(logits.isneginf(), 0.0).abs())
    if "score" not in taps.sources:
        tally.note("no score of Gaussians is shown: that logits are finite is all that was judged")
        return
    means = taps.pairs("mean")
    for index, score in enumerate(taps.all("score")):
        if index < len(means):  # offsets are in the means already
            extent, offset = _squared(*means[index]).sqrt(), 0.0
        else:
            extent, offset = _extent(seen.case.rigid)[..., None, :, :], 3.0
        ceiling = math.hypot(contract.sigma_max, contract.sigma_min)
        limit = bounds.gaussian_score_bound(extent, contract.sigma_min, ceiling, offset_max=offset)
        kappa, off = contract.sigma_max / contract.sigma_min, budgets.drift(seen.case.rigid, _wide(score))
        rounding = bounds.dist_sq_bound_budget(kappa, _wide(score), drift=off, roundings=bounds.REFERENCE)
        room = bounds.log_det_floor_budget(
            _wide(score), contract.sigma_min, drift=off, roundings=bounds.REFERENCE, as_given=True
        )
        limit = torch.as_tensor(limit) * (1 + rounding) + room
        tally.add(score.abs(), limit.expand(score.shape), _named(label), could_fail=varies(score))
        share = score.double().abs() / limit
        tally.figures.count("|score| over its bound", "times the bound", share, width=0.5, limit=0.0, log10=True)


def _pairs(seen: Observation) -> Iterator[tuple[Tensor, Any]]:
    """Each dist_sq with ((query, key) means, (query, key) σ), or None where they are not shown."""
    if seen.seen is None:
        query, key = seen.trace.query, seen.trace.key
        yield seen.trace.dist_sq, ((query.mean, key.mean), (query.sigma, key.sigma))
        return
    shown = seen.seen.all("dist_sq")
    means, sigmas = seen.seen.pairs("mean"), seen.seen.pairs("sigma")
    for index, dist_sq in enumerate(shown):
        known = len(means) == len(sigmas) == len(shown)
        yield dist_sq, (means[index], sigmas[index]) if known else None


def _squared(query: Tensor, key: Tensor) -> Tensor:
    """|δ|², [*b, h, p, q, k], of means [*b, h, p, n, 3]."""
    delta = query.detach().double()[..., :, None, :] - key.detach().double()[..., None, :, :]
    return delta.square().sum(dim=-1)


def _extent(rigid: GaussianRigid) -> Tensor:
    """Distances of the anchors, [*b, 1, q, k], nm."""
    anchors = rigid.mean.double()
    return (anchors[..., :, None, :] - anchors[..., None, :, :]).norm(dim=-1)[..., None, :, :]


def _wide(values: Tensor) -> torch.dtype:
    """The dtype that a rounding budget is of: half precision gets that of float32."""
    return torch.promote_types(values.dtype, torch.float32)


def varies(values: Tensor) -> bool:
    """Whether not all are one number: a constant within its bounds has shown nothing."""
    return bool((values != values.flatten()[0]).any()) if values.numel() else False


def _named(label: str):
    """Names an element of a [1, h, (p,) q, k] tensor."""

    def where(index: tuple[int, ...]) -> str:
        names = ("sample", "head", "point", "query", "key") if len(index) == 5 else ("sample", "head", "query", "key")
        return f"{label}, " + ", ".join(f"{n} {i}" for n, i in list(zip(names, index, strict=True))[1:])

    return where
