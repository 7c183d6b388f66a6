"""Theorems of `iga.bounds` on drawn numbers: bounds and budgets hold, and are reached where they say so."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from helpers.bounds import SIGMA_MAX, SIGMA_MIN, generator
from iga import bounds


@given(
    st.floats(0.0, 1e3),
    st.floats(0.1, 100.0),
    st.floats(0.0, 5.0),
    st.floats(0.0, 1.0),
    st.floats(-30.0, 30.0) | st.none(),
)
def test_the_worst_shortest_axis_is_at_an_end(extent, dof, offset_max, between, log_det_min):
    """What 3.3 proves by convexity: no variance λ between 2 σ_min² and 2 σ_max² is worse than both ends."""
    low, high = 2 * SIGMA_MIN**2, 2 * SIGMA_MAX**2
    variance = low * (high / low) ** between
    dist_sq = (extent / math.sqrt(variance) + math.sqrt(6) * offset_max) ** 2
    log_det = max(math.log(variance) + 2 * math.log(high), -math.inf if log_det_min is None else log_det_min)
    arguments = (extent, SIGMA_MIN, SIGMA_MAX, offset_max, log_det_min)
    deepest = bounds.student_t_score_range(*arguments, dof=dof)[0]
    assert -0.5 * (dof + 3) * math.log1p(dist_sq / dof) - 0.5 * log_det >= deepest - 1e-9 * abs(deepest)
    deepest = bounds.gaussian_score_range(*arguments)[0]
    assert -0.5 * dist_sq - 0.5 * log_det >= deepest - 1e-9 * abs(deepest)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=64), st.sampled_from(["sum", "rsqrt", "mean"]))
def test_the_sum_over_points_obeys_its_scaling_exponent(scores, scaling):
    points, largest = len(scores), max(map(abs, scores))
    factor = {"sum": 1.0, "rsqrt": points**-0.5, "mean": 1 / points}[scaling]
    bound = bounds.geometry_logit_bound(largest, points, scaling)
    assert abs(math.fsum(scores) * factor) <= bound * (1 + 1e-14)
    coherent = math.fsum([largest] * points) * factor
    assert coherent == pytest.approx(bound, rel=1e-14, abs=0.0)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=300))
def test_no_weight_exceeds_what_the_span_allows(logits):
    row = torch.tensor(logits, dtype=torch.float64)
    bound = bounds.max_weight_bound(len(logits), max(logits) - min(logits))
    assert float(row.softmax(0).max()) <= bound * (1 + 1e-12)


@given(st.integers(2, 10_000), st.floats(0.0, 100.0))
def test_the_weight_bound_is_reached_by_one_key_against_equal_others(keys, span):
    row = torch.zeros(keys, dtype=torch.float64)
    row[0] = span
    assert float(row.softmax(0)[0]) == pytest.approx(bounds.max_weight_bound(keys, span), rel=1e-12)


conditions = st.floats(1.0, 5e3)


@given(st.floats(0, 0.1), st.floats(0, 0.025), st.floats(0, 1e-3))
def test_two_e_squared_covers_the_second_order(n, a, o):
    """(1 ± (n + n²))(1 ± o)/(1 ∓ (a + a²)) lies within 1 ± (e + 2e²) for e = n + a + o ≤ 1/8."""
    n = max(n, 3 * a)
    e = n + a + o
    assume(e <= 0.125)
    room = (e + 2 * e * e) * (1 + 1e-12)
    up = (1 + n + n * n) * (1 + o) / (1 - a - a * a)
    down = (1 - n - n * n) * (1 - o) / (1 + a + a * a)
    assert up - 1 <= room + 1e-15 and 1 - down <= room + 1e-15
    assert -math.log1p(-(a + a * a)) <= a + 2 * a * a + 1e-15


@given(st.integers(1, 64), st.sampled_from([1.0, 1e3]))
def test_the_sum_over_points_is_within_its_budget(points, size):
    scores = size * torch.randn(points, 200, generator=generator(points))
    for factor in (1.0, points**-0.5, 1.0 / points):
        exact = scores.double().sum(0) * factor
        found = (scores.sum(0) * factor).double()
        budget = bounds.point_sum_budget(points, torch.float32) * scores.double().abs().sum(0) * factor
        assert found.isfinite().all() and ((found - exact).abs() <= budget).all()


@given(st.floats(0.0, 1e6), st.floats(0.0, 1.0), conditions)
def test_a_moved_dist_sq_budget_covers_both_moves(dist_sq, moved, kappa):
    relative = bounds.dist_sq_budget(kappa, torch.float32)
    budget = bounds.moved_dist_sq_budget(dist_sq, kappa, torch.float32, moved=moved)
    for step in (-moved, moved):
        for sign in (-1, 1):
            computed = max(math.sqrt(dist_sq) + step, 0.0) ** 2 * (1 + sign * relative)
            assert abs(computed - dist_sq) <= budget * (1 + 1e-9) + 1e-12


@given(st.floats(0.0, 1e6), st.floats(-19.0, 32.0), conditions, st.floats(0.5, 50.0))
def test_score_budgets_cover_the_ends_of_the_budgets_they_are_made_of(dist_sq, log_det, kappa, dof):
    by_dist_sq = bounds.dist_sq_budget(kappa, torch.float32) * dist_sq
    by_log_det = bounds.log_det_budget(kappa, torch.float32, magnitude=abs(log_det))

    def student(d, x):
        return -0.5 * (dof + 3) * math.log1p(d / dof) - 0.5 * x

    gauss = bounds.gaussian_score_budget(dist_sq, log_det, kappa, torch.float32)
    t_budget = bounds.student_t_score_budget(dist_sq, log_det, kappa, torch.float32, dof=dof)
    for a in (-1, 1):
        for b in (-1, 1):
            d, x = dist_sq + a * by_dist_sq, log_det + b * by_log_det
            assert abs(0.5 * (d - dist_sq) + 0.5 * (x - log_det)) <= gauss * (1 + 1e-9)
            assert abs(student(d, x) - student(dist_sq, log_det)) <= t_budget * (1 + 1e-9)
