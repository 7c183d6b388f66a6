"""Steps in means and log scales (theory.md, 9.5): no score bends or moves more than it may, and some nearly do."""

import math

import pytest
import torch

from helpers.bounds import MP, SIGMA_MIN, generator, pairs
from iga import bounds
from iga.overlap import gaussian_score, student_t_score
from iga.testing.judges.overlap import overlap_reference

DOFS = (0.5, 4.0, 30.0)
# float64's judge loses κ² u₆₄ ≤ 3·10⁻⁹ of a derivative at κ = 5000, and twice that of a second one
SLACK = 1e-6
MOST = 200.0  # κ of the pairs whose second derivatives are taken


def bent(inputs, move, scales, dof, score=student_t_score):
    """(score, slope, second derivative), each [n], of the steps (move [n, 3], scales [n, 6]) at their beginning."""
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = inputs
    t = torch.zeros(len(q_mean), dtype=torch.float64, requires_grad=True)
    value = stepped(inputs, move, scales, t, dof, score)
    (slope,) = torch.autograd.grad(value.sum(), t, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), t)
    return value.detach(), slope.detach(), second


def stepped(inputs, move, scales, t, dof, score=student_t_score):
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = inputs
    grown = (t[:, None] * scales).exp()
    given = (q_rot, q_mean + t[:, None] * move, q_sigma * grown[:, :3], k_rot, k_mean, k_sigma * grown[:, 3:])
    dist_sq, log_det = overlap_reference(*given)
    return score(dist_sq, log_det, dof=dof) if score is student_t_score else score(dist_sq, log_det)


def drawn(seed, count=3000):
    """Pairs whose σ is at most MOST times the floor, at distances about √ν, and steps that do not pass the floor."""
    gaussians = [x.clone() for x in pairs(count, seed)]
    for k in (2, 5):
        gaussians[k] = gaussians[k].clamp(max=MOST * SIGMA_MIN)
    draw = generator(seed + 1)
    move = torch.randn(count, 3, generator=draw, dtype=torch.float64)
    move *= SIGMA_MIN * torch.exp(torch.randn(count, 1, generator=draw, dtype=torch.float64))
    scales = 2.0 * torch.rand(count, 6, generator=draw, dtype=torch.float64) - 1.0
    ends = torch.rand(count, 6, generator=draw) < 0.5
    return gaussians, move, torch.where(ends, scales.sign(), scales), draw


@pytest.mark.parametrize("dof", DOFS)
def test_no_step_bends_the_score_more_than_its_bound(dof):
    gaussians, move, scales, draw = drawn(21)
    dist_sq, _ = overlap_reference(*gaussians)
    spread = math.sqrt(dof) * torch.exp(torch.randn(len(move), generator=draw, dtype=torch.float64))
    gaussians[1] = gaussians[4] + (gaussians[1] - gaussians[4]) * (spread / dist_sq.sqrt().clamp(min=1e-6))[:, None]
    for by_mean, by_scale in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
        _, _, second = bent(gaussians, by_mean * move, by_scale * scales, dof)
        rates = by_scale * scales.abs().amax(-1)
        most = bounds.student_t_curvature_bound(by_mean * move.norm(dim=-1), rates, SIGMA_MIN, dof=dof)
        assert second.isfinite().all() and (second.abs() <= most * (1 + SLACK)).all()
        assert (second != 0).any()


@pytest.mark.parametrize("dof", DOFS)
def test_a_step_changes_the_score_by_its_slope_within_half_the_bend_and_by_no_more_than_it_may(dof):
    gaussians, move, scales, _ = drawn(31)
    scales = 0.3 * scales.abs()  # upwards, so that the floor holds on the way
    before, slope, _ = bent(gaussians, move, scales, dof)
    after = stepped(gaussians, move, scales, torch.ones(len(move), dtype=torch.float64), dof)
    given = (move.norm(dim=-1), scales.amax(-1), SIGMA_MIN)
    bend = bounds.student_t_curvature_bound(*given, dof=dof)
    assert ((after - before - slope).abs() <= 0.5 * bend * (1 + SLACK)).all()
    assert ((after - before).abs() <= bounds.student_t_step_bound(*given, dof=dof) * (1 + SLACK)).all()


def spheres(apart):
    """Two at the floor in one frame, `apart` σ_min from each other along x."""
    eye, mean = torch.eye(3, dtype=torch.float64)[None], torch.zeros(1, 3, dtype=torch.float64)
    sigma = torch.full((1, 3), SIGMA_MIN, dtype=torch.float64)
    moved = mean + torch.tensor([apart * SIGMA_MIN, 0.0, 0.0], dtype=torch.float64)
    return [eye, moved, sigma, eye, mean, sigma]


@pytest.mark.parametrize("dof", DOFS)
def test_spheres_at_one_place_bend_as_much_as_a_step_of_means_may(dof):
    move = torch.tensor([[0.5 * SIGMA_MIN, 0.0, 0.0]], dtype=torch.float64)
    inputs = spheres(1e-4)  # the judge's distance has no second derivative at 0
    _, _, second = bent(inputs, move, torch.zeros(1, 6, dtype=torch.float64), dof)
    most = bounds.student_t_curvature_bound(0.5 * SIGMA_MIN, 0.0, SIGMA_MIN, dof=dof)
    assert float(second.abs()) == pytest.approx(most, rel=1e-6)


@pytest.mark.parametrize("dof", DOFS)
def test_scales_that_turn_the_far_end_bend_the_score_by_the_share_of_dist_sq(dof):
    """9.5 with M = diag(2, −2, 0), w along (1, 1, 0), d → ∞, det unmoved: (2ν + 6)/(2ν + 12) of the bound."""
    inputs = spheres(0.0)
    inputs[2] = inputs[2] * 1e3  # the query's scales are those of the pair
    inputs[1] = inputs[2] * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64) * 1e3
    scales = torch.tensor([[1.0, -1.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    _, _, second = bent(inputs, torch.zeros(1, 3, dtype=torch.float64), scales, dof)
    share = float(second.abs()) / bounds.student_t_curvature_bound(0.0, 1.0, SIGMA_MIN, dof=dof)
    assert share == pytest.approx((2 * dof + 6) / (2 * dof + 12), rel=1e-4)


@pytest.mark.parametrize("dof", DOFS)
def test_a_small_step_at_the_steepest_place_moves_the_score_as_far_as_it_may(dof):
    """By means alone: 9.4's spheres √(2ν) σ_min apart, moved along their difference by a thousandth of σ_min."""
    step = 1e-3 * SIGMA_MIN
    inputs = spheres(math.sqrt(2 * dof))
    move, still = torch.tensor([[step, 0.0, 0.0]], dtype=torch.float64), torch.zeros(1, 6, dtype=torch.float64)
    before, after = (stepped(inputs, move, still, torch.tensor([t], dtype=torch.float64), dof) for t in (0.0, 1.0))
    most = bounds.student_t_step_bound(step, 0.0, SIGMA_MIN, dof=dof)
    assert 0.99 * most <= float((after - before).abs()) <= most * (1 + SLACK)


def test_the_gaussian_score_keeps_neither_bound():
    """Far from each other its slope and its bend by log scales grow with dist_sq."""
    inputs = spheres(100.0)
    move, scales = torch.full((1, 3), 1e-3, dtype=torch.float64), torch.ones(1, 6, dtype=torch.float64)
    _, slope, second = bent(inputs, move, scales, 4.0, gaussian_score)
    given = (float(move.norm()), 1.0, SIGMA_MIN)
    assert float(second.abs()) > 10 * bounds.student_t_curvature_bound(*given, dof=4.0)
    assert float(slope.abs()) > 10 * bounds.student_t_step_bound(*given, dof=4.0)


def test_the_bounds_are_the_numbers_of_their_theorems():
    for displacement, step, low, dof in ((0.01, 0.01, 0.03, 4.0), (2.0, 0.5, 0.1, 0.5)):
        d, b, s, n = (MP.mpf(x) for x in (displacement, step, low, dof))
        bend = (n + 3) * ((d / (MP.sqrt(2 * n) * s) + b) ** 2 + b**2) + 6 * b**2
        most = d * (n + 3) / (2 * MP.sqrt(2 * n) * s) + b * (n + 4)
        assert bounds.student_t_curvature_bound(displacement, step, low, dof=dof) == pytest.approx(float(bend))
        assert bounds.student_t_step_bound(displacement, step, low, dof=dof) == pytest.approx(float(most))
