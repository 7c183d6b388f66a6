"""Exact theorems of `iga.bounds` about the overlap, scores, logits and weights: held, and tight where they say so.

They are examined in float64 with the reference as judge.
"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.bounds import OFFSET_MAX, SIGMA_MAX, SIGMA_MIN, SLACK, aligned, generator, model_pairs, pairs
from iga import bounds
from iga.overlap import gaussian_score, student_t_score
from iga.testing.judges.overlap import overlap_reference

# ---- log_det and dist_sq


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


@given(st.floats(0.0, 1.0), st.floats(0.01, 1.0), st.floats(1.0, 200.0))
def test_the_smooth_floor_stays_under_its_ceiling(share, sigma_min, sigma_max):
    sigma = share * sigma_max
    assert sigma_min <= math.hypot(sigma, sigma_min) <= bounds.smooth_ceiling(sigma_min, sigma_max) * (1 + 1e-15)


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


# ---- scores and logits


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


def test_a_raw_gaussian_score_does_not_fit_in_fp16_and_a_student_t_mean_does():
    assert not bounds.fits_in_fp16(bounds.gaussian_score_bound(20.0, SIGMA_MIN, SIGMA_MAX))
    score = bounds.student_t_score_bound(20.0, SIGMA_MIN, SIGMA_MAX, dof=4.0)
    assert score <= 48.0
    assert bounds.fits_in_fp16(bounds.geometry_logit_bound(score, 10**6, "mean"))
    assert torch.tensor(bounds.FP16_MAX).half().isfinite() and bounds.fits_in_fp16(-bounds.FP16_MAX)
    assert torch.tensor(65520.0).half().isinf() and not bounds.fits_in_fp16(65520.0)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=64), st.sampled_from(["sum", "rsqrt", "mean"]))
def test_the_sum_over_points_obeys_its_scaling_exponent(scores, scaling):
    points, largest = len(scores), max(map(abs, scores))
    factor = {"sum": 1.0, "rsqrt": points**-0.5, "mean": 1 / points}[scaling]
    bound = bounds.geometry_logit_bound(largest, points, scaling)
    assert abs(math.fsum(scores) * factor) <= bound * (1 + 1e-14)
    coherent = math.fsum([largest] * points) * factor
    assert coherent == pytest.approx(bound, rel=1e-14, abs=0.0)


def test_an_unknown_scaling_or_floor_or_form_is_named():
    with pytest.raises(ValueError, match="scaling.*'max'"):
        bounds.scaling_exponent("max")
    with pytest.raises(ValueError, match="floor.*'soft'"):
        bounds.floor_gradient(1.0, 0.03, "soft")
    with pytest.raises(ValueError, match="form.*'fast'"):
        bounds.digits_left(10.0, torch.float32, form="fast")


@given(st.floats(-1e30, 1e30), st.floats(1e-3, 1e4))
def test_a_capped_logit_stays_within_its_cap(value, cap):
    assert abs(cap * math.tanh(value / cap)) <= bounds.capped_logit_bound(cap)
    weighted = bounds.weighted_logit_bound(abs(value), 0.5, 2.0, cap)
    assert abs(cap * math.tanh(0.25 * value / cap)) <= weighted <= cap


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


@given(st.integers(2, 10_000), st.floats(0.01, 0.99))
def test_span_for_weight_is_the_inverse_of_the_weight_bound(keys, weight):
    assert bounds.max_weight_bound(keys, bounds.span_for_weight(keys, weight)) == pytest.approx(weight, rel=1e-12)


def test_one_of_91_keys_takes_nine_tenths_from_a_span_of_6_7():
    assert bounds.span_for_weight(91, 0.9) == pytest.approx(6.697, abs=1e-3)
