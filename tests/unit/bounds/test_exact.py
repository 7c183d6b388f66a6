"""Exact theorems of `iga.bounds`: held on degenerate pairs, and tight where they say so, values and gradients.

They are examined in float64 with the reference as judge.
"""

import math

import pytest
import torch

from helpers.bounds import (
    EYE,
    GRADIENT_SLACK,
    OFFSET_MAX,
    SIGMA_MAX,
    SIGMA_MIN,
    SLACK,
    aligned,
    generator,
    model_pairs,
    pairs,
)
from iga import bounds
from iga.overlap import gaussian_score, student_t_score
from iga.rotation import rotate
from iga.testing.judges.overlap import condition, overlap_reference


def test_log_det_lies_between_floor_and_ceiling_and_both_are_reached():
    _, log_det = overlap_reference(*pairs())
    assert log_det.isfinite().all()
    assert (log_det >= bounds.log_det_floor(SIGMA_MIN) - SLACK).all()
    assert (log_det <= bounds.log_det_ceiling(SIGMA_MAX) + SLACK).all()
    assert aligned([SIGMA_MIN] * 3, [0, 0, 0])[1] == pytest.approx(bounds.log_det_floor(SIGMA_MIN), abs=1e-12)
    assert aligned([SIGMA_MAX] * 3, [0, 0, 0])[1] == pytest.approx(bounds.log_det_ceiling(SIGMA_MAX), abs=1e-12)


def test_the_floors_of_the_contract_and_of_the_collapsed_model_are_what_they_are_said_to_be():
    assert bounds.log_det_floor(0.03) == pytest.approx(-18.9599, abs=5e-5)
    assert bounds.log_det_floor(1e-3) == pytest.approx(-39.367, abs=5e-4)  # σ² = the jitter 1e-6


def test_dist_sq_is_within_its_bound_and_the_bound_is_reached():
    gaussians = pairs(seed=1)
    dist_sq, _ = overlap_reference(*gaussians)
    bound = bounds.dist_sq_bound((gaussians[1] - gaussians[4]).square().sum(-1), SIGMA_MIN)
    assert dist_sq.isfinite().all() and (dist_sq >= 0).all() and (dist_sq <= bound * (1 + SLACK)).all()
    flat = aligned([SIGMA_MIN, SIGMA_MAX, SIGMA_MAX], [2.0, 0, 0])[0]
    assert flat == pytest.approx(bounds.dist_sq_bound(4.0, SIGMA_MIN), rel=1e-12)


def test_offsets_counted_in_their_own_sigma_add_a_constant_to_sqrt_dist_sq():
    extent, _, gaussians = model_pairs(seed=2)
    dist_sq, _ = overlap_reference(*gaussians)
    bound = bounds.sqrt_dist_sq_bound(extent, SIGMA_MIN, OFFSET_MAX)
    assert dist_sq.isfinite().all() and (dist_sq.sqrt() <= bound * (1 + SLACK)).all()
    # spheres at the floor, x and both offsets along (1, 1, 1): every inequality of the proof is an equality
    step = 5.0 / math.sqrt(3.0) + 2 * OFFSET_MAX * SIGMA_MIN
    reached = math.sqrt(aligned([SIGMA_MIN] * 3, [step] * 3)[0])
    assert reached == pytest.approx(bounds.sqrt_dist_sq_bound(5.0, SIGMA_MIN, OFFSET_MAX), rel=1e-12)


def test_a_floor_in_the_mean_only_breaks_the_bound_that_both_floors_give():
    collapsed, floored = 1e-6, SIGMA_MIN
    delta = 2 * OFFSET_MAX * floored
    assert math.sqrt(aligned([collapsed] * 3, [delta] * 3)[0]) > bounds.sqrt_dist_sq_bound(0.0, SIGMA_MIN, OFFSET_MAX)


def test_moving_a_mean_moves_sqrt_dist_sq_no_further_than_the_displacement_bound():
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = pairs(seed=3)
    step = torch.randn(len(q_mean), 3, generator=generator(4), dtype=torch.float64)
    before, _ = overlap_reference(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma)
    after, _ = overlap_reference(q_rot, q_mean + step, q_sigma, k_rot, k_mean, k_sigma)
    bound = bounds.displacement_bound(step.norm(dim=-1), SIGMA_MIN)
    moved = (after.sqrt() - before.sqrt()).abs()
    assert moved.isfinite().all() and (moved <= bound * (1 + SLACK) + SLACK * before.sqrt()).all()


@pytest.mark.parametrize("log_det_min", [None, -20.0, -5.0])
def test_scores_lie_in_their_ranges(log_det_min):
    extent, _, gaussians = model_pairs(seed=5)
    dist_sq, log_det = overlap_reference(*gaussians)
    arguments = (extent, SIGMA_MIN, SIGMA_MAX, OFFSET_MAX, log_det_min)
    for score, (low, high), bound in (
        (
            gaussian_score(dist_sq, log_det, log_det_min=log_det_min),
            bounds.gaussian_score_range(*arguments),
            bounds.gaussian_score_bound(*arguments),
        ),
        (
            student_t_score(dist_sq, log_det, dof=4.0, log_det_min=log_det_min),
            bounds.student_t_score_range(*arguments, dof=4.0),
            bounds.student_t_score_bound(*arguments, dof=4.0),
        ),
    ):
        room = SLACK * (1 + score.abs())
        assert score.isfinite().all()
        assert (score >= low - room).all() and (score <= high + room).all() and (score.abs() <= bound + room).all()


@pytest.mark.parametrize("extent", [0.0, 20.0, 1e3])
def test_score_ranges_are_nearly_reached(extent):
    """Thin along the anchors' line, wide across it, offsets at their limit: only their directions do not all agree."""
    step = [extent + 2 * OFFSET_MAX * SIGMA_MIN, 2 * OFFSET_MAX * SIGMA_MAX, 2 * OFFSET_MAX * SIGMA_MAX]
    dist_sq, log_det = aligned([SIGMA_MIN, SIGMA_MAX, SIGMA_MAX], step)
    wide = aligned([SIGMA_MAX] * 3, [extent / math.sqrt(3.0) + 2 * OFFSET_MAX * SIGMA_MAX] * 3)
    scores = [(0.5 * d + 0.5 * x, 3.5 * math.log1p(d / 4) + 0.5 * x) for d, x in ((dist_sq, log_det), wide)]
    for k, low in (
        (0, bounds.gaussian_score_range(extent, SIGMA_MIN, SIGMA_MAX)[0]),
        (1, bounds.student_t_score_range(extent, SIGMA_MIN, SIGMA_MAX, dof=4.0)[0]),
    ):
        reached = max(pair[k] for pair in scores)
        assert 0.95 * -low <= reached <= -low * (1 + 1e-12)


def test_a_raw_gaussian_score_does_not_fit_in_fp16_and_a_student_t_mean_does():
    assert not bounds.fits_in_fp16(bounds.gaussian_score_bound(20.0, SIGMA_MIN, SIGMA_MAX))
    score = bounds.student_t_score_bound(20.0, SIGMA_MIN, SIGMA_MAX, dof=4.0)
    assert score <= 48.0
    assert bounds.fits_in_fp16(bounds.geometry_logit_bound(score, 10**6, "mean"))
    assert torch.tensor(bounds.FP16_MAX).half().isfinite() and bounds.fits_in_fp16(-bounds.FP16_MAX)
    assert torch.tensor(65520.0).half().isinf() and not bounds.fits_in_fp16(65520.0)


def test_an_unknown_scaling_or_floor_or_form_is_named():
    with pytest.raises(ValueError, match="scaling.*'max'"):
        bounds.scaling_exponent("max")
    with pytest.raises(ValueError, match="floor.*'soft'"):
        bounds.floor_gradient(1.0, 0.03, "soft")
    with pytest.raises(ValueError, match="form.*'fast'"):
        bounds.digits_left(10.0, torch.float32, form="fast")


def gradients(inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    dist_sq, log_det = overlap_reference(*leaves)
    of_dist_sq = torch.autograd.grad(dist_sq.sum(), leaves, retain_graph=True)
    of_log_det = torch.autograd.grad(log_det.sum(), leaves, materialize_grads=True)
    return dist_sq.detach(), of_dist_sq, of_log_det


def test_gradients_of_the_overlap_are_within_their_bounds():
    gaussians = pairs(seed=6)
    dist_sq, found, of_log_det = gradients(gaussians)
    room = 1 + GRADIENT_SLACK
    delta = (gaussians[1] - gaussians[4]).norm(dim=-1)
    assert (found[1].norm(dim=-1) <= bounds.dist_sq_gradient_bound(delta, SIGMA_MIN) * room).all()
    by_scale = torch.cat([gaussians[2] * found[2], gaussians[5] * found[5]], -1)
    expected = bounds.log_scale_gradient_bound(dist_sq, mean_moves=False)
    assert (
        torch.allclose(by_scale.abs().sum(-1), expected, rtol=GRADIENT_SLACK, atol=0.0)
        and (by_scale <= SLACK * dist_sq[:, None]).all()
    )
    of_scale = torch.cat([gaussians[2] * of_log_det[2], gaussians[5] * of_log_det[5]], -1)
    assert (of_scale >= 0).all() and (of_scale <= 2 * room).all()
    assert torch.allclose(of_scale.sum(-1), torch.full_like(dist_sq, 6.0), rtol=GRADIENT_SLACK, atol=0.0)


def test_the_gradient_in_delta_reaches_its_bound():
    delta = torch.tensor([2.0, 0, 0], dtype=torch.float64, requires_grad=True)
    sigma = torch.full((3,), SIGMA_MIN, dtype=torch.float64)
    dist_sq, _ = overlap_reference(EYE, delta, sigma, EYE, torch.zeros(3, dtype=torch.float64), sigma)
    (found,) = torch.autograd.grad(dist_sq, delta)
    assert float(found.norm()) == pytest.approx(bounds.dist_sq_gradient_bound(2.0, SIGMA_MIN), rel=1e-12)


def scale_gradients(rot_i, anchor_i, log_i, u_i, rot_j, anchor_j, log_j, u_j):
    """(dist_sq, Σ |∂dist_sq/∂log σ|) with the means moving with σ."""
    logs = [log_i.clone().requires_grad_(), log_j.clone().requires_grad_()]
    sigma = [x.exp() for x in logs]
    means = [rotate(rot_i, u_i * sigma[0]) + anchor_i, rotate(rot_j, u_j * sigma[1]) + anchor_j]
    dist_sq, _ = overlap_reference(rot_i, means[0], sigma[0], rot_j, means[1], sigma[1])
    found = torch.autograd.grad(dist_sq.sum(), logs)
    return dist_sq.detach(), torch.cat(found, -1).abs().sum(-1)


def test_the_gradient_in_log_scale_with_moving_means_is_within_its_bound_and_reaches_it():
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = pairs(seed=7)
    _, u, _ = model_pairs(seed=7)
    dist_sq, total = scale_gradients(q_rot, q_mean, q_sigma.log(), u[:, 0], k_rot, k_mean, k_sigma.log(), u[:, 1])
    bound = bounds.log_scale_gradient_bound(dist_sq, OFFSET_MAX, mean_moves=True)
    assert total.isfinite().all() and (total <= bound * (1 + 1e-8)).all()
    # equal spheres with offsets turned inwards and anchors further apart than they reach: both terms have one sign
    log, inwards = torch.full((3,), math.log(0.1), dtype=torch.float64), torch.full((3,), -OFFSET_MAX).double()
    anchor = torch.full((3,), 5.0, dtype=torch.float64)
    dist_sq, total = scale_gradients(EYE, anchor, log, inwards, EYE, -anchor, log, -inwards)
    bound = bounds.log_scale_gradient_bound(dist_sq, OFFSET_MAX, mean_moves=True)
    assert float(total) == pytest.approx(float(bound), rel=1e-9)


def test_the_torque_is_within_its_bound_and_nearly_reaches_it():
    gaussians = pairs(60000, seed=8)
    dist_sq, found, _ = gradients(gaussians)
    kappa = condition(gaussians[2], gaussians[5])
    bound = bounds.torque_bound(dist_sq, kappa)
    share = 0.0
    for k in (0, 3):
        m = (gaussians[k][..., :, :, None] * found[k][..., :, None, :]).sum(-3)
        torque = (m - m.mT).abs().amax((-1, -2))
        # the float64 judge itself loses κ² u₆₄ of it
        assert (torque <= bound * (1 + 1e-8) + 1e-13 * kappa.square() * dist_sq).all()
        able = kappa > 2
        share = max(share, float((torque / bound)[able & (dist_sq > 0)].max()))
    assert share > 0.95
