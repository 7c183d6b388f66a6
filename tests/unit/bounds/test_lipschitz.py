"""Slopes of the Student-t score (theory.md, 9.4): within their bounds on degenerate pairs, reached where claimed."""

import math

import pytest
import torch

from helpers.bounds import OFFSET_MAX, SIGMA_MIN, generator, pairs
from iga import bounds
from iga.overlap import student_t_score
from iga.testing.judges.overlap import condition, overlap_reference

# float64, whose judge loses κ u₆₄ ≤ 10⁻¹² of a slope at κ ≤ 5000
SLACK = 1e-8
DOFS = (0.5, 1.0, 4.0, 30.0)


def slopes(inputs, offsets, dof):
    """∂score/∂μ_i [n, 3]; ∂score/∂log σ [n, 6], means fixed; ∂score/∂ω [n, 2, 3, 3]; ∂score/∂log σ, means moving."""
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = inputs

    def of(moving):
        logs = [x.log().requires_grad_() for x in (q_sigma, k_sigma)]
        rots, means = (
            [x.clone().requires_grad_() for x in (q_rot, k_rot)],
            [x.clone().requires_grad_() for x in (q_mean, k_mean)],
        )
        sigma = [x.exp() for x in logs]
        at = [
            m + (r.detach() @ (u * (s - s.detach()))[..., None])[..., 0] * moving
            for m, r, u, s in zip(means, rots, offsets, sigma, strict=True)
        ]
        dist_sq, log_det = overlap_reference(rots[0], at[0], sigma[0], rots[1], at[1], sigma[1])
        score = student_t_score(dist_sq, log_det, dof=dof)
        found = torch.autograd.grad(score.sum(), [means[0], *logs, *rots])
        turned = [r.mT @ g for r, g in zip((q_rot, k_rot), found[3:], strict=True)]
        return found[0], torch.cat(found[1:3], -1), torch.stack([m - m.mT for m in turned], 1)

    return *of(0.0), of(1.0)[1]


@pytest.mark.parametrize("dof", DOFS)
def test_no_slope_of_the_score_is_over_its_bound(dof):
    """Pairs as they are, and drawn to where the score is steepest, √dist_sq about √ν."""
    gaussians = list(pairs(20000, seed=11))
    dist_sq, _ = overlap_reference(*gaussians)
    spread = math.sqrt(dof) * torch.exp(torch.randn(len(dist_sq), generator=generator(12), dtype=torch.float64))
    near = gaussians[4] + (gaussians[1] - gaussians[4]) * (spread / dist_sq.sqrt().clamp(min=1e-6))[:, None]
    offsets = [
        OFFSET_MAX * (2 * torch.rand(20000, 3, generator=generator(seed), dtype=torch.float64) - 1) for seed in (13, 14)
    ]
    for mean in (gaussians[1], near):
        of_mean, fixed, turned, moving = slopes([gaussians[0], mean, *gaussians[2:]], offsets, dof)
        assert of_mean.isfinite().all() and fixed.isfinite().all() and turned.isfinite().all()
        assert (of_mean.norm(dim=-1) <= bounds.student_t_gradient_bound(SIGMA_MIN, dof=dof) * (1 + SLACK)).all()
        for found, moves in ((fixed, False), (moving, True)):
            most = bounds.student_t_log_scale_gradient_bound(OFFSET_MAX, dof=dof, mean_moves=moves)
            assert (found.abs().sum(-1) <= most * (1 + SLACK)).all()
        kappa = condition(gaussians[2], gaussians[5])
        most = bounds.student_t_torque_bound(kappa, dof=dof)
        room = 1e-13 * kappa.square() * (dof + 3)  # the judge itself loses κ² u₆₄
        assert (turned.abs().amax((-1, -2, -3)) <= most * (1 + SLACK) + room).all()


@pytest.mark.parametrize("dof", DOFS)
def test_the_slopes_by_a_mean_and_by_log_scales_are_reached(dof):
    eye, zero = torch.eye(3, dtype=torch.float64)[None], torch.zeros(1, 3, dtype=torch.float64)
    floor = torch.full((1, 3), SIGMA_MIN, dtype=torch.float64)
    apart = torch.tensor([[math.sqrt(2 * dof) * SIGMA_MIN, 0.0, 0.0]], dtype=torch.float64)
    of_mean, _, _, _ = slopes([eye, apart, floor, eye, zero, floor], [zero, zero], dof)
    assert float(of_mean.norm()) == pytest.approx(bounds.student_t_gradient_bound(SIGMA_MIN, dof=dof), rel=1e-12)
    needle = torch.tensor([[1e3 * SIGMA_MIN, SIGMA_MIN, SIGMA_MIN]], dtype=torch.float64)
    far = torch.tensor([[1e6 * SIGMA_MIN, 0.0, 0.0]], dtype=torch.float64)
    _, fixed, _, _ = slopes([eye, far, needle, eye, zero, floor], [zero, zero], dof)
    most = bounds.student_t_log_scale_gradient_bound(dof=dof, mean_moves=False)
    assert 0.999 * most < float(fixed.abs().sum()) <= most


def test_the_gaussian_score_has_no_such_bound():
    eye, zero = torch.eye(3, dtype=torch.float64)[None], torch.zeros(1, 3, dtype=torch.float64)
    floor = torch.full((1, 3), SIGMA_MIN, dtype=torch.float64)
    far = torch.tensor([[20.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    dist_sq, _ = overlap_reference(eye, far, floor, eye, zero, floor)
    (slope,) = torch.autograd.grad(-0.5 * dist_sq.sum(), far)
    assert float(slope.norm()) > 200 * bounds.student_t_gradient_bound(SIGMA_MIN, dof=4.0)


def test_weights_move_by_no_more_than_their_bound_and_reach_it():
    g = generator(15)
    logits = 3 * torch.randn(5000, 16, generator=g, dtype=torch.float64)
    change = 4 * torch.rand(5000, 1, generator=g, dtype=torch.float64)
    moved = logits + change * (2 * torch.rand(5000, 16, generator=g, dtype=torch.float64) - 1)
    found = 0.5 * (moved.softmax(-1) - logits.softmax(-1)).abs().sum(-1)
    assert (found <= bounds.weight_change_bound(change[:, 0]) * (1 + 1e-12)).all()
    # two keys, the one at 1/(1 + e^Δ), moved apart by 2Δ
    apart = torch.tensor([-1.5, 0.0], dtype=torch.float64)
    moved = apart + torch.tensor([1.5, -1.5], dtype=torch.float64)
    found = 0.5 * float((moved.softmax(-1) - apart.softmax(-1)).abs().sum())
    assert found == pytest.approx(bounds.weight_change_bound(1.5), rel=1e-12)
