"""Steps in means, scales and frames (theory.md, 9.5): no score bends or moves more than it may, and some nearly do."""

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


def bent(inputs, move, scales, dof, score=student_t_score, turns=None):
    """(score, slope, second derivative), each [n], of the steps (move [n, 3], scales [n, 6]) at their beginning."""
    t = torch.zeros(len(move), dtype=torch.float64, requires_grad=True)
    value = stepped(inputs, move, scales, t, dof, score, turns)
    (slope,) = torch.autograd.grad(value.sum(), t, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), t)
    return value.detach(), slope.detach(), second


def stepped(inputs, move, scales, t, dof, score=student_t_score, turns=None, arm=None):
    """The scores at t; turns are two of [n, 3], radians about axes of the query's and of the key's frame.

    With arm [n, 3] the query turns about the point from which its mean lies there, in its frame.
    """
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = inputs
    grown = (t[:, None] * scales).exp()
    if turns is not None:
        before = q_rot
        q_rot, k_rot = (rot @ turned(turn, t) for rot, turn in zip((q_rot, k_rot), turns, strict=True))
        if arm is not None:
            q_mean = q_mean + ((q_rot - before) * arm[:, None, :]).sum(-1)
    given = (q_rot, q_mean + t[:, None] * move, q_sigma * grown[:, :3], k_rot, k_mean, k_sigma * grown[:, 3:])
    dist_sq, log_det = overlap_reference(*given)
    return score(dist_sq, log_det, dof=dof) if score is student_t_score else score(dist_sq, log_det)


def turned(turn, t):
    """e^[t·turn]×, [n, 3, 3]: Rodrigues' formula, smooth in t."""
    angle, (x, y, z), zero = turn.norm(dim=-1), turn.unbind(-1), torch.zeros(len(turn), dtype=torch.float64)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(-1, 3, 3)
    sine, versine = (t * angle).sin() / angle, (1.0 - (t * angle).cos()) / angle.square()
    return torch.eye(3, dtype=torch.float64) + sine[:, None, None] * cross + versine[:, None, None] * (cross @ cross)


def drawn_turns(count, draw):
    """Unit turns of both frames, half of them about an axis of the frame, the key's often against the query's."""
    axes = torch.eye(3, dtype=torch.float64)[torch.randint(0, 3, (count,), generator=draw)]
    free = torch.nn.functional.normalize(torch.randn(count, 3, generator=draw, dtype=torch.float64), dim=-1)
    first = torch.where(torch.rand(count, 1, generator=draw) < 0.5, axes, free)
    return first, torch.where(torch.rand(count, 1, generator=draw) < 0.5, -first, free.roll(1, 0))


def ratio_of_scales(gaussians):
    """The largest σ_max/σ_min of either Gaussian, [n]."""
    return torch.stack([x.amax(-1) / x.amin(-1) for x in (gaussians[2], gaussians[5])]).amax(0)


def spread_out(gaussians, dof, draw):
    """The pairs moved apart so that dist_sq is about ν, where the score changes most."""
    dist_sq, _ = overlap_reference(*gaussians)
    spread = math.sqrt(dof) * torch.exp(torch.randn(len(dist_sq), generator=draw, dtype=torch.float64))
    gaussians[1] = gaussians[4] + (gaussians[1] - gaussians[4]) * (spread / dist_sq.sqrt().clamp(min=1e-6))[:, None]
    return gaussians


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
    gaussians = spread_out(gaussians, dof, draw)
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


@pytest.mark.parametrize("dof", DOFS)
def test_no_turn_bends_or_moves_the_score_more_than_its_bound(dof):
    """Turns alone, with scales that change, and with means."""
    gaussians, move, scales, draw = drawn(41, 6000)
    gaussians = spread_out(gaussians, dof, draw)
    kappa = ratio_of_scales(gaussians)
    turns = drawn_turns(len(move), draw)
    for by_mean, by_scale, by_turn in ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.01), (1.0, 0.0, 1.0)):
        given = (gaussians, by_mean * move, by_scale * scales, dof)
        _, slope, second = bent(*given, turns=[by_turn * turn for turn in turns])
        way = (by_mean * move.norm(dim=-1), by_scale * scales.abs().amax(-1), SIGMA_MIN)
        most = bounds.student_t_curvature_bound(*way, dof=dof, turn=by_turn, kappa=kappa)
        steepest = bounds.student_t_step_bound(*way, dof=dof, turn=by_turn, kappa=kappa)
        # spheres turn into themselves: there the bounds by turns alone are 0, and the judge's rounding is left, some
        # hundreds of ν u₆₄ = 10⁻¹⁶ ν, where a turn that counts moves the score by order 1
        rounding = 1e-9 * by_turn
        assert (second.abs() <= most * (1 + SLACK) + rounding).all()
        assert (slope.abs() <= steepest * (1 + SLACK) + rounding).all()
        if by_turn == 1.0:  # and a bound that leaves the turn out is exceeded
            assert (second.abs() > bounds.student_t_curvature_bound(*way, dof=dof)).any()
            assert (slope.abs() > bounds.student_t_step_bound(*way, dof=dof)).any()


@pytest.mark.parametrize("dof", DOFS)
def test_a_needle_turned_before_a_far_sphere_moves_and_bends_the_score_as_theory_says(dof):
    """9.5's example: dist_sq ∝ cos²φ/(κ² + 1) + sin²φ/2, φ between the needle and the way to the sphere."""
    ratio, still = 50.0, torch.zeros(1, 6, dtype=torch.float64)
    eye, zero = torch.eye(3, dtype=torch.float64)[None], torch.zeros(1, 3, dtype=torch.float64)
    thin = torch.full((1, 3), SIGMA_MIN, dtype=torch.float64)
    needle = thin * torch.tensor([ratio, 1.0, 1.0], dtype=torch.float64)
    turns = [torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64), torch.full((1, 3), 1e-9, dtype=torch.float64)]

    def at(phi):
        away = 1e4 * ratio * SIGMA_MIN * torch.tensor([[math.cos(phi), math.sin(phi), 0.0]], dtype=torch.float64)
        return bent([eye, away, needle, eye, zero, thin], zero, still, dof, turns=turns)

    way = {"dof": dof, "turn": 1.0, "kappa": ratio}
    bend, slope = abs(float(at(0.0)[2])), abs(float(at(math.atan(math.sqrt(2 / (ratio**2 + 1))))[1]))
    assert bend == pytest.approx((dof + 3) / 2 * (ratio**2 - 1), rel=1e-5)
    assert slope == pytest.approx((dof + 3) * (ratio**2 - 1) / (2 * math.sqrt(2 * (ratio**2 + 1))), rel=1e-5)
    assert bend < bounds.student_t_curvature_bound(0.0, 0.0, SIGMA_MIN, **way) < bend * (2.5 + 7.5 / (dof + 3))
    times = math.sqrt(8 / 3 * (1 + ratio**-2)) * (dof + 5) / (dof + 3)
    assert bounds.student_t_step_bound(0.0, 0.0, SIGMA_MIN, **way) == pytest.approx(times * slope, rel=1e-5)


@pytest.mark.parametrize("dof", DOFS)
def test_a_turn_moves_the_score_by_its_slope_within_half_the_bend_and_by_no_more_than_it_may(dof):
    """Whole steps, means on arcs: the query's mean turns along about a point that lies 0.2 nm away."""
    gaussians, move, scales, draw = drawn(51)
    gaussians = spread_out(gaussians, dof, draw)
    kappa, angle, length = ratio_of_scales(gaussians) * math.exp(0.02), 0.02, 0.2
    turns = [angle * turn for turn in drawn_turns(len(move), draw)]
    arm = length * torch.nn.functional.normalize(torch.randn(len(move), 3, generator=draw, dtype=torch.float64), dim=-1)
    scales = 0.02 * scales.abs()  # upwards: the floor holds on the way, and κ grows by e^0.02 at most

    def at(t):
        return stepped(gaussians, torch.zeros_like(move), scales, t, dof, turns=turns, arm=arm)

    t = torch.zeros(len(move), dtype=torch.float64, requires_grad=True)
    before = at(t)
    (slope,) = torch.autograd.grad(before.sum(), t)
    change = at(torch.ones(len(move), dtype=torch.float64)) - before.detach()
    way = {"dof": dof, "turn": angle, "kappa": kappa}
    bend = bounds.student_t_curvature_bound(angle * length, 0.02, SIGMA_MIN, bend=angle**2 * length, **way)
    assert ((change - slope).abs() <= 0.5 * bend * (1 + SLACK)).all()
    most = bounds.student_t_step_bound(angle * length, 0.02, SIGMA_MIN, **way)
    assert (change.abs() <= most * (1 + SLACK)).all()
    assert (change.abs() > 0.1).any()


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
    for displacement, step, low, dof, turn, kappa, arm in (
        (0.01, 0.01, 0.03, 4.0, 0.0, 1.0, 0.0),
        (2.0, 0.5, 0.1, 0.5, 0.3, 7.0, 0.4),
    ):
        d, b, s_min, n, a, k, x = (MP.mpf(y) for y in (displacement, step, low, dof, turn, kappa, arm))
        s = b + a * (k - 1 / k) / MP.sqrt(3)
        e = (2 * a**2 * (k**2 - k**-2) + 8 * b * a * (k + 1 / k)) / MP.sqrt(3)
        slope = (n + 3) / (2 * MP.sqrt(2 * n) * s_min)
        bend = (n + 3) * ((d / (MP.sqrt(2 * n) * s_min) + s) ** 2 + s**2 + e / 2) + 6 * s**2 + 3 * e / 2 + x * slope
        most = d * slope + b * (n + 4) + a * (n + 5) * (k - 1 / k) / MP.sqrt(3)
        words = {"dof": dof, "turn": turn, "kappa": kappa}
        found = bounds.student_t_curvature_bound(displacement, step, low, bend=arm, **words)
        assert found == pytest.approx(float(bend))
        assert bounds.student_t_step_bound(displacement, step, low, **words) == pytest.approx(float(most))
