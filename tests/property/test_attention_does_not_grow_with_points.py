"""The magnitude law: of equal points, P times as many move neither the geometry logit nor the saturation of softmax.

Equal points are the coherent worst case, in which nothing averages out: G(P) = P^α G(1) with α = 0 for a mean, ½ for
P^(−1/2) and 1 for a sum (docs/theory.md, 3.4 and 7), up to the rounding of a sum of P terms (8.4) and of one score,
whose functions err by an ulp or two between calls.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.geometry import each_dtype
from helpers.laws import BOUNDED, assert_between, breaking, historical_presets, implementations, scenes
from iga import bounds
from iga.presets import PRESETS, preset

many = st.sampled_from([2, 3, 5, 8, 16, 64])
SCALINGS = {"sum": 1.0, "rsqrt": 0.5, "mean": 0.0}


def room(one, points):
    """By how much the mean of `points` scores equal to that of the trace `one` may differ from it, [h, n, n]."""
    half = one.log_det.double() / 2
    size = half.abs() + (one.score.double() + half).abs()
    dtype = one.score.dtype
    return ((bounds.point_sum_budget(points, dtype) + 16 * bounds.unit_roundoff(dtype)) * size)[:, 0]


def law(scene, config, dtype=torch.float32, points=64, growth=0.0):
    """G of `points` equal points is G of one, times points^growth."""
    one, more = (scene.trace(config, dtype, points=p, tied=True) for p in (1, points))
    assert one.geo_raw.isfinite().all()
    factor, off = points**growth, room(one, points)
    assert_between(more.geo_raw / factor, one.geo_raw.double() - off, one.geo_raw.double() + off)


@each_dtype
@pytest.mark.parametrize("scaling", SCALINGS)
@given(scene=scenes(), points=many)
def test_geometry_logits_of_equal_points_grow_with_the_exponent_of_the_scaling(dtype, scaling, scene, points):
    assert bounds.scaling_exponent(scaling) == SCALINGS[scaling]
    law(scene, preset("bounded", point_scaling=scaling), dtype, points, SCALINGS[scaling])


@each_dtype
@given(scene=scenes(), points=many)
def test_the_softmax_of_equal_points_does_not_saturate_with_their_number(dtype, scene, points):
    """A change Δ of every logit of a row changes a weight by a factor within e^(±2Δ)."""
    one, more = (scene.trace(BOUNDED, dtype, points=p, tied=True) for p in (1, points))
    n, u = one.weights.shape[-1], bounds.unit_roundoff(dtype)
    change = (one.geo_weight * room(one, points) + 8 * u * one.geo_scaled.abs()).amax(dim=-1, keepdim=True)
    assert_between(more.weights, 0.0, one.weights.double() * (2 * change + 2 * (n + 8) * u).exp() + n * 2.0**-126)


@given(scene=scenes(), implementation=implementations, points=st.sampled_from([2, 5, 16]))
def test_no_implementation_sees_a_larger_logit_or_weight_of_more_equal_points(scene, implementation, points):
    one, more = (scene.statistics(BOUNDED, implementation, points=p, tied=True) for p in (1, points))
    trace, u = scene.trace(BOUNDED, tied=True), bounds.unit_roundoff(torch.float32)
    change = (trace.geo_weight * room(trace, points) + 8 * u * trace.geo_scaled.abs()).amax(dim=-1)
    assert_between(more.geo_absmax, 0.0, one.geo_absmax + change)
    assert_between(more.weight_max, 0.0, one.weight_max * (2 * change + 64 * u).exp())


@historical_presets
def test_under_the_historical_presets_it_grows(names):
    scene = breaking(law, names)
    for name in names:
        law(scene, PRESETS[name], growth=1.0 if "pre_fix" in names else 0.5)
