"""Laws of the scores, within their budgets, and of the textbook form where κ² is small.

Tolerances are the budgets of `iga.bounds`, derived in docs/theory.md, section 6 and 9; the judges share no code with
`iga.overlap`.
"""

import math

import pytest
import torch
from mpmath import mp

from helpers.overlap import DOMAINS, assert_within, batch
from iga import bounds
from iga.overlap import gaussian_overlap, gaussian_overlap_textbook, gaussian_score, student_t_score
from iga.search.pairs import Domain
from iga.testing.judges.overlap import condition, overlap_digits, overlap_reference


@DOMAINS
@pytest.mark.parametrize("log_det_min", [None, -10.0])
def test_scores_are_within_their_budgets(domain, log_det_min):
    pairs = batch(domain, count=300, seed=20)
    true_dist_sq, true_log_det = overlap_digits(*pairs)
    dist_sq, log_det = gaussian_overlap(*pairs)
    kappa = condition(pairs[2], pairs[5])
    held = true_log_det if log_det_min is None else true_log_det.clamp(min=log_det_min)
    with mp.workdps(40):
        gauss = [float(-(mp.mpf(d) + mp.mpf(x)) / 2) for d, x in zip(true_dist_sq.tolist(), held.tolist(), strict=True)]
        student = [
            float(-(mp.mpf(4) + 3) / 2 * mp.log1p(mp.mpf(d) / 4) - mp.mpf(x) / 2)
            for d, x in zip(true_dist_sq.tolist(), held.tolist(), strict=True)
        ]
    budget = bounds.gaussian_score_budget(true_dist_sq, true_log_det, kappa, domain.dtype)
    expected = torch.tensor(gauss, dtype=torch.float64)
    assert_within(gaussian_score(dist_sq, log_det, log_det_min=log_det_min), expected, budget)
    budget = bounds.student_t_score_budget(true_dist_sq, true_log_det, kappa, domain.dtype, dof=4.0)
    expected = torch.tensor(student, dtype=torch.float64)
    assert_within(student_t_score(dist_sq, log_det, dof=4.0, log_det_min=log_det_min), expected, budget)


def test_the_student_score_becomes_the_gaussian_one_for_many_degrees_of_freedom():
    dist_sq = torch.linspace(0, 50, 101, dtype=torch.float64)
    log_det = torch.linspace(-19, 32, 101, dtype=torch.float64)
    nu = 1e9
    # ½(ν+3) ln(1+d/ν) = ½d + (3d/2 − d²/4)/ν + O(ν⁻²)
    slack = (1.5 * dist_sq + 0.25 * dist_sq.square()) / nu + 1e-6 * dist_sq / nu + 1e-13
    assert_within(student_t_score(dist_sq, log_det, dof=nu), gaussian_score(dist_sq, log_det), slack)


def test_the_textbook_form_agrees_where_kappa_squared_is_small():
    pairs = batch(Domain(sigma_max=0.3, dtype=torch.float64), seed=21)
    dist_sq, log_det = overlap_reference(*pairs)
    found = gaussian_overlap_textbook(*pairs, pivot_min=1e-12)
    # building Σ: 4 roundings an entry, entries ≤ 2σ_max², three steps of elimination: 60 κ² u is ample and derived
    slack = 60 * condition(pairs[2], pairs[5]).square() * bounds.unit_roundoff(torch.float64)
    assert_within(found[0], dist_sq, slack * dist_sq)
    assert_within(found[1], log_det, slack + 1e-14)


def test_a_jitter_widens_each_of_the_two_covariances():
    eye, sigma = torch.eye(3, dtype=torch.float64), torch.full((3,), 0.1, dtype=torch.float64)
    delta = torch.tensor([0.3, 0.0, 0.0], dtype=torch.float64)
    found = gaussian_overlap_textbook(eye, delta, sigma, eye, torch.zeros_like(delta), sigma, jitter=0.005)
    assert float(found[0]) == pytest.approx(0.09 / 0.03, rel=1e-14)
    assert float(found[1]) == pytest.approx(3 * math.log(0.03), rel=1e-14)
