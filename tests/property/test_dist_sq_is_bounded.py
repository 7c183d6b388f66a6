"""0 ≤ dist_sq ≤ |δ|²/(2 σ_min²) for whatever σ, rotation and distance, and √dist_sq bounded by the anchors' distance.

docs/theory.md, 3.2 with the rounding of 6.5 and 8.1: `iga.bounds.dist_sq_bound` and `sqrt_dist_sq_bound`, with their
budgets. δ is the difference of the means as the trace has them.
"""

import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.geometry import each_dtype
from helpers.laws import (
    BOUNDED,
    CONTRACT,
    assert_between,
    breaking,
    extents,
    historical_presets,
    implementations,
    rounding,
    scenes,
)
from iga import bounds
from iga.presets import preset
from iga.testing.layer import budgets


def limit(trace):
    """What dist_sq may be, pair by pair: the bound for these means, and the rounding of the closed form."""
    delta_sq = (trace.query.mean.double()[..., :, None, :] - trace.key.mean.double()[..., None, :, :]).square().sum(-1)
    kappa, drift = rounding(trace)
    rounded = bounds.dist_sq_bound_budget(kappa, trace.dist_sq.dtype, drift=drift)
    most = bounds.dist_sq_bound(delta_sq, CONTRACT.sigma_min) * (1 + rounded)
    return torch.where(delta_sq > 0, most, 0.0)  # no rounding is allowed there


def law(scene, config, dtype=torch.float32, points=1):
    trace = scene.trace(config, dtype, points=points)
    assert_between(trace.dist_sq, 0.0, limit(trace))


@each_dtype
@given(scene=scenes(), points=st.integers(1, 64))
def test_dist_sq_is_at_most_what_the_floor_makes_of_the_distance(dtype, scene, points):
    law(scene, BOUNDED, dtype, points)


@each_dtype
@given(scene=scenes(), points=st.integers(1, 64))
def test_its_root_is_bounded_by_the_distance_of_the_anchors_whatever_the_largest_sigma(dtype, scene, points):
    trace = scene.trace(BOUNDED, dtype, points=points)
    kappa, drift = rounding(trace)
    most = bounds.sqrt_dist_sq_bound(extents(trace), CONTRACT.sigma_min, BOUNDED.offset_max)
    most = most + budgets.displacement(trace, CONTRACT)
    most = most * (1 + bounds.dist_sq_budget(kappa, dtype, drift=drift))
    assert_between(trace.dist_sq.double().sqrt(), 0.0, most)


@given(scene=scenes(), implementation=implementations)
def test_the_largest_dist_sq_that_an_implementation_sees_is_bounded(scene, implementation):
    """Under a clamp above every log_det, the Gaussian score is −½ dist_sq − 20, and |geometry logit| its size."""
    config = preset("bounded", score="gaussian", log_det_min=40.0, logit_cap=None)
    trace = scene.trace(config)
    u, weight = bounds.unit_roundoff(torch.float32), float(trace.geo_weight)
    most = limit(trace).amax(dim=(0, 1, 3))[None] / 2 + 20.0
    found = scene.statistics(config, implementation).geo_absmax / weight
    # three roundings of the score, four of the weight and its product
    assert_between(found, 20.0 * (1 - 8 * u), most * (1 + 8 * u))


@historical_presets
def test_the_historical_presets_exceed_it(names):
    breaking(law, names)
