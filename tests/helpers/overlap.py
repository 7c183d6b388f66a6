"""Pairs for the tests of the closed form, and the budgets of `iga.bounds` that they are held to."""

import pytest
import torch

from iga import bounds
from iga.overlap import gaussian_overlap
from iga.search.pairs import Domain, decode, degenerate_pairs
from iga.testing.judges.overlap import condition, drift

DOUBLE = Domain(dtype=torch.float64)
SINGLE = Domain(dtype=torch.float32)
DOMAINS = pytest.mark.parametrize("domain", [SINGLE, DOUBLE], ids=["float32", "float64"])


def batch(domain, count=3000, seed=0):
    return decode(degenerate_pairs(count, torch.Generator().manual_seed(seed), domain), domain)


def budgets(pairs, dtype, *, dist_sq, log_det, nearest=False):
    """Absolute budgets of dist_sq and log_det for each pair, with the drift that its matrices have."""
    u = bounds.unit_roundoff(dtype)
    off = max(bounds.ROUNDED_DRIFT, float(torch.maximum(drift(pairs[0]), drift(pairs[3])).max()) / u)
    kappa = condition(pairs[2], pairs[5])
    return (
        bounds.dist_sq_budget(kappa, dtype, drift=off, roundings=bounds.REFERENCE) * dist_sq,
        bounds.log_det_budget(kappa, dtype, magnitude=log_det.abs(), drift=off, roundings=bounds.REFERENCE),
    )


def assert_within(value, expected, budget):
    assert value.isfinite().all() and expected.isfinite().all() and (budget >= 0).all()
    error = (value.double() - expected).abs()
    worst = int((error - budget).flatten().argmax())
    assert (error <= budget).all(), (
        f"error {float(error.flatten()[worst]):.4g} over budget {float(budget.flatten()[worst]):.4g} at pair {worst}"
    )


def assert_overlap_within(pairs, reference, dtype):
    dist_sq, log_det = gaussian_overlap(*pairs)
    by_dist_sq, by_log_det = budgets(pairs, dtype, dist_sq=reference[0], log_det=reference[1])
    assert_within(dist_sq, reference[0], by_dist_sq)
    assert_within(log_det, reference[1], by_log_det)
