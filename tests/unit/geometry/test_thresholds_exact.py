"""Where three points stop fixing a frame, to the bit: each threshold is tried at its number and just beyond it.

The triangles have edges along the axes and lengths that are powers of two, so that nothing is rounded on the way.
"""

import math

import pytest
import torch

from helpers.geometry import each_dtype, eps
from iga import rotation
from iga._layers import centre
from iga.frame import Frame
from iga.gaussian import floored_sigma


def vector(*x: float, dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(x, dtype=dtype)


@each_dtype
@pytest.mark.parametrize("exponent", [-40, -10, 0, 1, 7, 40])
@pytest.mark.parametrize("edge", [2.0**-8, 0.5])
@pytest.mark.parametrize("swapped", [False, True], ids=["long x", "long y"])
def test_a_triangle_is_resolved_from_a_height_of_eight_roundings_of_its_largest_coordinate(
    dtype: torch.dtype, exponent: int, edge: float, swapped: bool
) -> None:
    """Corners (m − l, 0, 0), (m, 0, 0) and (m − l, h, 0), h ≤ l: the smallest height is h."""
    m = 2.0**exponent
    length, bar = m * edge, 8 * eps(dtype) * m
    origin, far = vector(m - length, 0, 0, dtype=dtype), vector(m, 0, 0, dtype=dtype)
    for height, resolved in ((bar, False), (bar * (1 + 2**-10), True), (bar * 1.5, True), (bar * 0.5, False)):
        near = vector(m - length, height, 0, dtype=dtype)
        corners = (near, origin, far) if swapped else (far, origin, near)
        # from_backbone's N, CA, C: e1 along C − CA
        frame, valid = Frame.from_backbone(*reversed(corners), return_valid=True)
        assert bool(valid) == resolved, height / bar
        assert resolved or torch.equal(frame.rot, torch.eye(3, dtype=dtype))


@each_dtype
def test_points_all_at_the_origin_are_not_resolved(dtype: torch.dtype) -> None:
    zeros = torch.zeros(2, 3, dtype=dtype)
    frame, valid = Frame.from_backbone(zeros, zeros, zeros, return_valid=True)
    assert valid.tolist() == [False, False] and (frame.rot == torch.eye(3)).all() and (frame.trans == 0).all()


def test_vectors_span_a_plane_from_a_sine_of_the_root_of_eps() -> None:
    """In float64 √eps is 2⁻²⁶, and the sine of (1, 0, 0) and (1, 2⁻²⁶, 0) is that to the bit."""
    x = vector(1, 0, 0, dtype=torch.float64)
    for sine, spans in ((2.0**-26, True), (2.0**-26 * (1 - 2**-20), False)):
        rot, valid = rotation.gram_schmidt(x, vector(1, sine, 0, dtype=torch.float64))
        assert bool(valid) == spans and torch.equal(rot, torch.eye(3, dtype=torch.float64))


@each_dtype
def test_a_vector_is_zero_below_tiny_over_eps_and_usable_from_there_on(dtype: torch.dtype) -> None:
    info = torch.finfo(dtype)
    least = info.tiny / info.eps
    y = vector(0, 1, 0, dtype=dtype)
    for size, usable in ((least, True), (least / 2, False), (info.max, True), (math.inf, False)):
        for sign in (1.0, -1.0):
            x = vector(sign * size, 0, 0, dtype=dtype)
            assert bool(rotation.gram_schmidt(x, y)[1]) == usable
            assert bool(rotation.gram_schmidt(y, x)[1]) == usable


@each_dtype
def test_collinear_vectors_are_found_beside_good_ones(dtype: torch.dtype) -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [0.0, 0.0, 5.0], [2.0, 0.0, 0.0]], dtype=dtype)
    y = torch.tensor([[3.0, 1.0, 0.0], [-2.0, -4.0, -6.0], [0.0, 1.0, 1.0], [4.0, 0.0, 0.0]], dtype=dtype)
    rot, valid = rotation.gram_schmidt(x, y)
    assert valid.tolist() == [True, False, True, False]
    assert (rot[~valid] == torch.eye(3, dtype=dtype)).all()
    # the same as three points: origin at 0
    _, by_points = Frame.from_backbone(y, torch.zeros_like(x), x, return_valid=True)
    assert by_points.tolist() == valid.tolist()


def test_each_sample_has_its_own_origin_and_one_valid_residue_is_its_own() -> None:
    trans = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]).expand(3, 3, 3)
    mask = torch.tensor([[True, True, False], [False, True, False], [True, True, True]])
    found = centre(Frame(torch.eye(3).expand(3, 3, 3, 3), trans), mask).trans
    one = torch.ones(3)
    assert torch.equal(found[0], torch.stack([-1.5 * one, 1.5 * one, 0 * one]))
    assert torch.equal(found[1], torch.zeros(3, 3))
    assert torch.equal(found[2], torch.stack([-3 * one, 0 * one, 3 * one]))


@each_dtype
def test_a_ceiling_is_not_passed_by_a_bit_whatever_decimal_it_is(dtype: torch.dtype) -> None:
    """As a real number, which most decimals are not in any dtype; and reached to the rounding of exp and log."""
    for k in range(1, 400):
        ceiling = 0.037 * k
        sigma = floored_sigma(torch.full((3,), 20.0, dtype=dtype), sigma_min=0.03, sigma_max=ceiling, floor="hard")
        found = sigma.double()
        # ln σ_max is rounded at a size of up to 4, exp errs by an ulp
        assert (found <= ceiling).all() and (found >= ceiling * (1 - 6 * eps(dtype))).all()
