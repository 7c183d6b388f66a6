"""What the search judges: values of the closed form's error, each beside what is required and what is proven."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from iga import bounds
from iga._typing import Tensor
from iga.overlap import gaussian_overlap
from iga.testing.genomes import DOMAIN, Domain, Pairs
from iga.testing.oracle import condition, nearest_rotation, overlap_reference

__all__ = ["MEASURES", "Measure", "Outcome", "judge", "ratio"]

Judge = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Measure:
    """`value`, `required` and `proven` of an Outcome, per pair and in `unit`; the search goes up value/required."""

    name: str
    unit: str
    requirement: str
    theorem: str
    value: Callable[["Outcome"], Tensor]
    required: Callable[["Outcome"], Tensor]
    proven: Callable[["Outcome"], Tensor]
    grows: bool = True  # with κ: then it is searched in bands of κ


@dataclass(frozen=True)
class Outcome:
    """Pairs with what was computed (float64 copies) and what is true."""

    pairs: Pairs
    domain: Domain
    dist_sq: Tensor
    log_det: Tensor
    true_dist_sq: Tensor
    true_log_det: Tensor

    @property
    def kappa(self) -> Tensor:
        return condition(self.pairs[2], self.pairs[5])

    @property
    def u(self) -> float:
        return bounds.unit_roundoff(self.domain.dtype)

    @property
    def floor(self) -> float:
        return bounds.log_det_floor(self.domain.sigma_min)

    @property
    def ceiling(self) -> Tensor:
        delta_sq = (self.pairs[1].double() - self.pairs[4].double()).square().sum(-1)
        return bounds.dist_sq_bound(delta_sq, self.domain.sigma_min)


def _ulp(x: Tensor | float, u: float) -> Tensor:
    """The spacing of floating-point numbers at x."""
    return 2.0 * u * torch.exp2(torch.as_tensor(x, dtype=torch.float64).abs().log2().floor())


def _rounding_above_16u(o: Outcome) -> Tensor:
    """Half a spacing at log_det in excess of 16u: from |log_det| = 32 on, no result can be nearer."""
    return (0.5 * _ulp(o.true_log_det, o.u) / o.u - 16.0).clamp(min=0.0)


def _proven_floor(o: Outcome) -> Tensor:
    budget = bounds.log_det_floor_budget(o.domain.dtype, o.domain.sigma_min) / float(_ulp(o.floor, o.u))
    return torch.full_like(o.log_det, budget)


MEASURES = (
    Measure(
        "dist_sq, relative",
        "u",
        "15 + 8κ",
        "47 + 59.6κ",
        lambda o: (o.dist_sq - o.true_dist_sq).abs() / o.true_dist_sq / o.u,
        lambda o: 15.0 + 8.0 * o.kappa,
        lambda o: bounds.dist_sq_budget(o.kappa, o.domain.dtype) / o.u,
    ),
    Measure(
        "log_det, absolute",
        "u",
        "25 + 3κ",
        "23 + 12.5κ + 1 ulp",
        lambda o: (o.log_det - o.true_log_det).abs() / o.u,
        lambda o: 25.0 + 3.0 * o.kappa + _rounding_above_16u(o),
        lambda o: bounds.log_det_budget(o.kappa, o.domain.dtype, magnitude=o.true_log_det.abs()) / o.u,
    ),
    Measure(
        "log_det under its floor",
        "ulp",
        "4",
        "35u + 1 ulp",
        lambda o: (o.floor - o.log_det) / _ulp(o.floor, o.u),
        lambda o: torch.full_like(o.log_det, 4.0),
        _proven_floor,
        grows=False,
    ),
    Measure(
        "dist_sq over |δ|²/(2σ_min²), relative",
        "u",
        "15 + 2κ",
        "50 + 59.6κ",
        lambda o: (o.dist_sq / o.ceiling - 1.0) / o.u,
        lambda o: 15.0 + 2.0 * o.kappa,
        lambda o: bounds.dist_sq_bound_budget(o.kappa, o.domain.dtype) / o.u,
    ),
)


def judge(
    pairs: Pairs, domain: Domain = DOMAIN, *, oracle: Judge = overlap_reference, nearest: bool = False
) -> Outcome:
    """The closed form on the pairs beside the oracle's numbers; `nearest`: those of the nearest rotations."""
    dist_sq, log_det = gaussian_overlap(*pairs)
    reference = pairs
    if nearest:
        q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = pairs
        reference = (nearest_rotation(q_rot), q_mean, q_sigma, nearest_rotation(k_rot), k_mean, k_sigma)
    true_dist_sq, true_log_det = oracle(*reference)
    return Outcome(pairs, domain, dist_sq.double(), log_det.double(), true_dist_sq, true_log_det)


def ratio(measure: Measure, outcome: Outcome) -> Tensor:
    """value/required; a value that is not finite is the worst there is, a pair without distance judges no dist_sq."""
    share = measure.value(outcome) / measure.required(outcome)
    broken = ~(outcome.dist_sq.isfinite() & outcome.log_det.isfinite())
    return torch.where(broken, math.inf, torch.where(share.isnan(), 0.0, share))
