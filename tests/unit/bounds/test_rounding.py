"""Budgets of `iga.bounds`: no float32 error that a search finds exceeds them, and they are not absurdly wide.

They are examined in float32 against float64.
"""

import math

import pytest
import torch

from helpers.bounds import EYE, SIGMA_MAX, SIGMA_MIN, SINGLE, SLACK, generator, pairs
from iga import bounds
from iga.overlap import gaussian_overlap
from iga.rotation import rotate
from iga.search.pairs import decode, degenerate_pairs, mutated
from iga.testing.judges.overlap import overlap_reference
from iga.testing.overlap.worst_rounding import MEASURES, hill_climb, judge, ratio


def test_log_det_may_fall_under_its_floor_by_four_spacings_at_most():
    assert (
        bounds.log_det_floor_budget(torch.float32, SIGMA_MIN, roundings=bounds.REFERENCE) <= 4 * 2.0**-19
    )  # of float32 at −18.96


def test_beyond_its_range_a_budget_claims_nothing():
    assert bounds.dist_sq_budget(torch.tensor([10.0, 1e6]), torch.float32).isinf().tolist() == [False, True]
    assert bounds.digits_left(1e6, torch.float32) == 0.0
    assert bounds.digits_left(5000.0, torch.float32) > 1.5 > bounds.digits_left(5000.0, torch.float32, form="textbook")


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.name)
def test_a_budget_is_above_what_a_search_finds_and_not_absurdly_above(measure):
    genome = degenerate_pairs(20000, generator(9), SINGLE)
    if measure.grows:
        outcome = judge(decode(genome, SINGLE), SINGLE)
        genome = genome[outcome.kappa > 1000]
    top = genome[ratio(measure, judge(decode(genome, SINGLE), SINGLE)).argsort(descending=True)[:128]]
    outcome = judge(decode(hill_climb(measure, top, 60, generator(10), SINGLE), SINGLE), SINGLE)
    value, proven = measure.value(outcome), measure.proven(outcome)
    assert value.isfinite().all() and (value <= proven).all()
    if measure.grows and "over" not in measure.name:
        assert (value / proven).max() > 0.015


def test_a_mutation_stays_in_the_domain():
    genome = mutated(degenerate_pairs(1000, generator(11), SINGLE), generator(12), SINGLE)
    for sigma in decode(genome, SINGLE)[2::3]:
        assert (sigma >= torch.tensor(SIGMA_MIN)).all() and (sigma <= SIGMA_MAX).all()


def test_the_closed_form_keeps_the_floor_that_its_budget_allows():
    """Spheres at the floor in random frames: the one place where log_det meets its bound."""
    gaussians = list(pairs(20000, seed=17, domain=SINGLE))
    gaussians[2] = gaussians[5] = torch.full((20000, 3), SIGMA_MIN)
    _, log_det = gaussian_overlap(*gaussians)
    room = bounds.log_det_floor_budget(torch.float32, SIGMA_MIN, roundings=bounds.REFERENCE)
    limit = bounds.log_det_floor(SIGMA_MIN) - room
    assert log_det.isfinite().all() and (log_det.double() >= limit).all()


@pytest.mark.parametrize("far", [0.0, 10.0, 1e4], ids="{:g} nm".format)
def test_rounding_of_the_means_is_within_its_budget(far):
    """μ = R (m + u ⊙ σ) + t in float32 against float64, from the same float32 numbers; dist_sq by the reference."""
    q_rot, _, q_sigma, k_rot, _, k_sigma = pairs(seed=13, domain=SINGLE)
    parts = []
    reach = trans = torch.zeros(len(q_rot), dtype=torch.float64)
    for k, (rot, sigma) in enumerate(((q_rot, q_sigma), (k_rot, k_sigma))):
        m, u, t = torch.randn(3, len(rot), 3, generator=generator(14 + k)).unbind(0)
        u, t = u.clamp(-3, 3), t + far / math.sqrt(3)
        parts.append((rot, m, u, sigma, t))
        reach = reach + m.double().norm(dim=-1) + (u.double() * sigma.double()).norm(dim=-1)
        trans = trans + t.double().norm(dim=-1)

    def place(dtype):
        means = [
            rotate(rot.to(dtype), m.to(dtype) + u.to(dtype) * sigma.to(dtype)) + t.to(dtype)
            for rot, m, u, sigma, t in parts
        ]
        return overlap_reference(q_rot, means[0], q_sigma, k_rot, means[1], k_sigma)[0].sqrt()

    exact = place(torch.float64)
    error = (place(torch.float32) - exact).abs()
    budget = bounds.mean_budget(reach, SIGMA_MIN, torch.float32, trans=trans)
    assert error.isfinite().all() and (error <= budget + SLACK * exact).all()
    assert (budget <= bounds.mean_budget(reach + trans, SIGMA_MIN, torch.float32)).all()
    assert float((error / budget).max()) > 0.02


@pytest.mark.parametrize("centred", [False, True])
def test_a_far_translation_costs_no_more_than_its_budget(centred):
    distance = 1e3
    t = 5.0 * torch.randn(2, 4000, 3, generator=generator(15), dtype=torch.float64)
    offset = torch.randn(2, 4000, 3, generator=generator(16), dtype=torch.float64) * SIGMA_MIN
    shift = torch.tensor([600.0, -640.0, 480.0], dtype=torch.float64) * distance / 1e3
    placed = (t + shift).float()
    origin = placed[0, :1] if centred else torch.zeros(1, 3)
    means = offset.float() + (placed - origin)
    sigma = torch.full((3,), SIGMA_MIN, dtype=torch.float64)
    exact = overlap_reference(EYE, (t + offset)[0], sigma, EYE, (t + offset)[1], sigma)[0].sqrt()
    found = overlap_reference(EYE, means[0], sigma, EYE, means[1], sigma)[0].sqrt()
    far = float(placed.double().norm(dim=-1).max())
    budget = bounds.far_translation_budget(far, SIGMA_MIN, torch.float32, centred=centred)
    near = bounds.mean_budget(2 * float((t.norm(dim=-1) + offset.norm(dim=-1)).max()), SIGMA_MIN, torch.float32)
    error = (found - exact).abs().max()
    assert error.isfinite() and 0.05 * budget < error <= budget + near


def test_a_budget_of_tensors_is_the_budget_of_their_numbers():
    kappa = torch.tensor([1.0, 70.0, 5000.0], dtype=torch.float64)
    dist_sq = torch.tensor([0.0, 3.0, 1e5], dtype=torch.float64)
    log_det = torch.tensor([-19.0, 0.0, 30.0], dtype=torch.float64)
    for budget in (
        lambda k, d, x: bounds.dist_sq_budget(k, torch.float32),
        lambda k, d, x: bounds.log_det_budget(k, torch.float32, magnitude=abs(x)),
        lambda k, d, x: bounds.gaussian_score_budget(d, x, k, torch.float32, moved=0.01),
        lambda k, d, x: bounds.student_t_score_budget(d, x, k, torch.float32, dof=4.0, moved=0.01),
        lambda k, d, x: bounds.sqrt_dist_sq_bound(d, SIGMA_MIN),
        lambda k, d, x: bounds.gaussian_score_bound(d, SIGMA_MIN, SIGMA_MAX),
        lambda k, d, x: bounds.student_t_score_bound(d, SIGMA_MIN, SIGMA_MAX, dof=4.0),
        lambda k, d, x: bounds.torque_bound(d, k),
    ):
        together = budget(kappa, dist_sq, log_det)
        one_by_one = [budget(*row) for row in zip(kappa.tolist(), dist_sq.tolist(), log_det.tolist(), strict=True)]
        assert together.tolist() == pytest.approx(one_by_one, rel=1e-12)


def test_the_floor_of_sigma_as_given_is_lower_by_what_the_determinants_of_the_frames_leave_and_no_more():
    """Frames of float32 are read in float64: √3 units of 2⁻²⁴ off a rotation, and at worst all three axes shorter."""
    drift = bounds.ROUNDED_DRIFT * 2.0**29  # in u of float64
    shrunk = (1 - drift * bounds.unit_roundoff(torch.float64) / math.sqrt(3.0)) * EYE.double()
    covariance = 2 * SIGMA_MIN**2 * shrunk @ shrunk.mT
    fall = bounds.log_det_floor(SIGMA_MIN) - float(torch.linalg.cholesky(covariance).diagonal().log().sum() * 2)
    closed, as_given = (
        bounds.log_det_floor_budget(torch.float64, SIGMA_MIN, drift=drift, roundings=bounds.REFERENCE, as_given=given)
        for given in (False, True)
    )
    assert closed < fall <= as_given <= 1.01 * fall
