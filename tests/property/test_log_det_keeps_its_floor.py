"""log_det ≥ 3 ln(2 σ_min²) = −18.96 for whatever σ, rotation and distance: it never comes near −39.

The −39.37 of a collapsed model is 3 ln(2·10⁻⁶), two covariances with nothing left but their jitter. The floor is
docs/theory.md, 3.1, and its rounding 6.5: `iga.bounds.log_det_floor` less `log_det_floor_budget`.
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
    historical_presets,
    implementations,
    rounding,
    scenes,
)
from iga import bounds
from iga.presets import preset

CEILING = bounds.log_det_ceiling(bounds.smooth_ceiling(CONTRACT.sigma_min, CONTRACT.sigma_max))


def floor(dtype: torch.dtype, drift: float) -> float:
    budget = bounds.log_det_floor_budget(dtype, CONTRACT.sigma_min, drift=drift)
    return bounds.log_det_floor(CONTRACT.sigma_min) - budget


def law(scene, config, dtype=torch.float32, points=1):
    trace = scene.trace(config, dtype, points=points)
    kappa, drift = rounding(trace)
    assert_between(trace.log_det, floor(dtype, drift), CEILING + bounds.log_det_budget(kappa, dtype, drift=drift))


@each_dtype
@given(scene=scenes(), points=st.integers(1, 64))
def test_log_det_stays_between_its_floor_and_its_ceiling(dtype, scene, points):
    law(scene, BOUNDED, dtype, points)


@given(scene=scenes(), implementation=implementations, score=st.sampled_from(["student_t", "gaussian"]))
def test_the_lowest_log_det_that_an_implementation_sees_is_above_the_floor(scene, implementation, score):
    found = scene.statistics(preset("bounded", score=score), implementation, points=2)
    _, drift = rounding(scene.trace(BOUNDED))
    assert_between(found.log_det_min, floor(torch.float32, drift), CEILING + 1.0)


@historical_presets
def test_the_historical_presets_fall_through_the_floor(names):
    """Before σ had a floor, to what the jitter leaves; since then, where the textbook form loses its digits."""
    depth = -39.0 if "pre_fix" in names else -20.0
    breaking(lambda scene, config: assert_between(scene.trace(config).log_det, depth, torch.inf), names)
