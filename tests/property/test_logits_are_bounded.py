"""Geometry logits within the bound of a single score, whatever P, and within the cap, whatever the weight has learned.

docs/theory.md, 3.3 and 3.4 with the rounding of section 8. The bound is the contract's: σ between its floor and its
ceiling, at the distance of the two anchors; a mean over points cannot exceed it.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.geometry import each_dtype
from helpers.laws import CONTRACT, assert_between, breaking, extents, historical_presets, implementations, scenes
from iga import bounds
from iga.presets import preset
from iga.testing.layer import budgets

SIGMA_MAX = bounds.smooth_ceiling(CONTRACT.sigma_min, CONTRACT.sigma_max)
SCORES = ["student_t", "gaussian"]


def score_range(trace, config):
    """(low, high) of one score, pair by pair [n, n]."""
    given = (extents(trace), CONTRACT.sigma_min, SIGMA_MAX, config.offset_max, config.log_det_min)
    if config.score == "student_t":
        return bounds.student_t_score_range(*given, dof=config.dof)
    return bounds.gaussian_score_range(*given)


def law(scene, config, dtype=torch.float32, points=1):
    trace = scene.trace(config, dtype, points=points)
    low, high = score_range(trace, config)
    room = budgets.geometry_logit(trace, config, CONTRACT, budgets.displacement(trace, CONTRACT))
    assert_between(trace.geo_raw, low - room, high + room)


@each_dtype
@pytest.mark.parametrize("score", SCORES)
@given(scene=scenes(), points=st.integers(1, 64))
def test_a_mean_over_points_lies_in_the_range_of_one_score(dtype, score, scene, points):
    law(scene, preset("bounded", score=score), dtype, points)


@each_dtype
@given(scene=scenes(), points=st.integers(1, 64), cap=st.sampled_from([0.5, 10.0, 50.0]))
def test_a_capped_logit_stays_within_its_cap(dtype, scene, points, cap):
    trace = scene.trace(preset("bounded", logit_cap=cap), dtype, points=points)
    most = budgets.cap(trace, cap)
    assert_between(trace.geo_scaled, -most, most)
    assert_between(trace.weights.sum(dim=-1), 1 - 8 * trace.weights.shape[-1] * bounds.unit_roundoff(dtype), 1 + 1e-5)


@given(scene=scenes(), implementation=implementations, score=st.sampled_from(SCORES), cap=st.sampled_from([None, 50.0]))
def test_the_largest_logit_that_an_implementation_sees_is_bounded(scene, implementation, score, cap):
    config = preset("bounded", score=score, logit_cap=cap)
    trace = scene.trace(config, points=3)
    low, high = score_range(trace, config)
    room = budgets.geometry_logit(trace, config, CONTRACT, budgets.displacement(trace, CONTRACT))
    most = torch.maximum(-(low - room), high + room).amax(dim=-1) * trace.geo_weight[..., 0]
    most = most if cap is None else most.clamp(max=cap)
    found = scene.statistics(config, implementation, points=3).geo_absmax
    # the weight, its product, and the cap's quotient, tanh and product
    assert_between(found, 0.0, most * (1 + 8 * bounds.unit_roundoff(torch.float32)))


@historical_presets
def test_the_historical_presets_exceed_the_bound(names):
    breaking(law, names)
