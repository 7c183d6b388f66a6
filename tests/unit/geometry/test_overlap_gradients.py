"""Laws of the closed form's gradients: within their budgets, along the tangent, and with their sum rules.

Tolerances are the budgets of `iga.bounds`, derived in docs/theory.md, section 6 and 9; the judges share no code with
`iga.overlap`.
"""

import torch

from helpers.overlap import DOMAINS, assert_within, batch
from iga import bounds
from iga.overlap import gaussian_overlap
from iga.search.pairs import Domain
from iga.testing.judges.overlap import condition, overlap_reference


def gradients(function, pairs, dtype):
    """(dist_sq, its six gradients, log_det's six), float64 copies."""
    inputs = [x.to(dtype).clone().requires_grad_() for x in pairs]
    dist_sq, log_det = function(*inputs)
    of_dist_sq = torch.autograd.grad(dist_sq.sum(), inputs, retain_graph=True)
    of_log_det = torch.autograd.grad(log_det.sum(), inputs, materialize_grads=True)
    return dist_sq.detach().double(), [g.double() for g in of_dist_sq], [g.double() for g in of_log_det]


def tangent(rot, gradient):
    """The skew part of Rᵀ ∂/∂R: the derivative along the rotations, where all forms agree."""
    m = (rot.double()[..., :, :, None] * gradient[..., :, None, :]).sum(-3)
    return m - m.mT


@DOMAINS
def test_gradients_in_means_and_scales_are_within_their_budgets(domain):
    pairs = batch(domain, seed=16)
    dist_sq, expected, expected_log_det = gradients(overlap_reference, pairs, torch.float64)
    _, found, found_log_det = gradients(gaussian_overlap, pairs, domain.dtype)
    kappa = condition(pairs[2], pairs[5])
    shortest = torch.minimum(pairs[2].amin(-1), pairs[5].amin(-1)).double()
    by_mean = bounds.dist_sq_gradient_budget(dist_sq, kappa, shortest, domain.dtype)[:, None]
    by_scale = bounds.log_scale_gradient_budget(dist_sq, kappa, domain.dtype)[:, None].expand(-1, 3)
    by_log_det = bounds.log_det_gradient_budget(kappa, domain.dtype)[:, None].expand(-1, 3)
    for mean, sigma in ((1, 2), (4, 5)):
        assert_within((found[mean] - expected[mean]).norm(dim=-1), torch.zeros(len(kappa)), by_mean[:, 0])
        size = pairs[sigma].double()
        assert_within(size * found[sigma], size * expected[sigma], by_scale)
        assert_within(size * found_log_det[sigma], size * expected_log_det[sigma], by_log_det)


@DOMAINS
def test_gradients_in_rotations_agree_along_the_tangent(domain):
    pairs = batch(domain, seed=17)
    dist_sq, expected, _ = gradients(overlap_reference, pairs, torch.float64)
    _, found, _ = gradients(gaussian_overlap, pairs, domain.dtype)
    budget = bounds.torque_budget(dist_sq, condition(pairs[2], pairs[5]), domain.dtype)
    for rot in (0, 3):
        truth = tangent(pairs[rot], expected[rot])
        assert_within(tangent(pairs[rot], found[rot]), truth, budget[:, None, None].expand_as(truth))


def test_off_the_tangent_the_forms_differ_so_the_tangent_is_what_must_be_compared():
    pairs = batch(Domain(sigma_max=3.0, dtype=torch.float64), seed=18)
    dist_sq, expected, _ = gradients(overlap_reference, pairs, torch.float64)
    _, found, _ = gradients(gaussian_overlap, pairs, torch.float64)
    apart = (found[0] - expected[0]).abs().amax((-1, -2))
    assert (apart > 0.1 * dist_sq).double().mean() > 0.5


@DOMAINS
def test_scale_gradients_obey_their_sum_rules(domain):
    """Σ ∂dist_sq/∂log σ = −2 dist_sq, means fixed; Σ ∂log_det/∂log σ = 6: homogeneity."""
    pairs = batch(domain, seed=19)
    dist_sq, of_dist_sq, of_log_det = gradients(gaussian_overlap, pairs, domain.dtype)
    kappa = condition(pairs[2], pairs[5])
    total = sum((pairs[k].double() * of_dist_sq[k]).sum(-1) for k in (2, 5))
    assert_within(total, -2 * dist_sq, 6 * bounds.log_scale_gradient_budget(dist_sq, kappa, domain.dtype))
    total = sum((pairs[k].double() * of_log_det[k]).sum(-1) for k in (2, 5))
    assert_within(total, torch.full_like(total, 6.0), 6 * bounds.log_det_gradient_budget(kappa, domain.dtype))
