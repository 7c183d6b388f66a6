"""Certified enclosures of the overlap: they contain fifty digits of every drawn pair, and round outwards."""

import math

from hypothesis import given
from hypothesis import strategies as st

from iga.testing.judges.overlap import overlap_digits
from iga.testing.judges.rigorous import enclosure, outward
from iga.testing.strategies import gaussian_pairs


def assert_contains(ball, value, slack=0.0):
    """A value rounded to float64, known to within `slack`."""
    lower, upper = outward(ball)
    assert math.isfinite(value)
    assert lower - slack <= value <= upper + slack, f"{value!r} is not in [{lower!r}, {upper!r}] ± {slack:.3g}"


@given(gaussian_pairs())
def test_the_enclosure_contains_fifty_digits_on_drawn_pairs(drawn):
    dist_sq, log_det = overlap_digits(*drawn.tensors)
    found = enclosure(drawn.tensors)
    assert_contains(found.dist_sq, float(dist_sq))
    assert_contains(found.log_det, float(log_det))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_outward_returns_every_float64(x):
    from flint import arb

    assert outward(arb(x)) == (x, x)
