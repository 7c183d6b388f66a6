"""Laws of SO(3), on draws of axis, base angle and offset; the judge is NumPy in float64.

Budgets are first-order bounds in eps of the dtype: a quaternion's entry carries about 6 roundings of ½ eps, the matrix
doubles it, and a product of two matrices adds 3 terms of ½ eps each on either side.
"""

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.geometry import close, each_dtype, eps, is_rotation
from iga import rotation
from iga.testing.strategies import AxisAngle, axes, axis_angles, filler, seeds, translations


def canonical(draw: AxisAngle) -> tuple[np.ndarray, float]:
    """(unit axis, angle in [0, π]) of the drawn rotation."""
    axis = np.array(draw.axis) / np.linalg.norm(draw.axis)
    if draw.base == math.pi and draw.offset > 0:
        return -axis, math.pi - draw.offset
    return (axis, draw.angle) if draw.angle >= 0 else (-axis, -draw.angle)


@each_dtype
@given(draw=axis_angles())
def test_exp_is_the_rotation_about_the_vector(dtype, draw):
    # Rounding the vector turns by ≤ √3/2 eps θ, the square root and the half angle by 2 eps θ.
    assert close(rotation.exp(draw.rotvec.to(dtype)), draw.matrix, (8 + 3 * abs(draw.angle)) * eps(dtype))


@each_dtype
@given(draw=axis_angles())
def test_log_is_the_rotation_vector_near_the_identity_and_near_pi_too(dtype, draw):
    axis, angle = canonical(draw)
    found = rotation.log(draw.matrix.to(dtype))
    # 6 roundings of ½ eps in the quaternion, times ds/dq ≤ π; relative to the angle where that is small.
    limit = 12 * eps(dtype) * min(angle, 1.0)
    either_axis = math.pi - angle <= limit
    assert close(found, angle * axis, limit) or (either_axis and close(found, -angle * axis, limit))


@each_dtype
@given(draw=axis_angles())
def test_exp_inverts_log(dtype, draw):
    rot = draw.matrix.to(dtype)
    assert close(rotation.exp(rotation.log(rot)), rot.double(), (8 + 3 * math.pi + 12) * eps(dtype))


@each_dtype
@given(axis=axes(), exponent=st.integers(-12, 0), near_pi=st.booleans())
def test_log_inverts_exp_below_pi(dtype, axis, exponent, near_pi):
    angle = math.pi - 10.0**exponent if near_pi else 10.0**exponent
    rotvec = AxisAngle(axis, angle, 0.0).rotvec.to(dtype)
    found = rotation.log(rotation.exp(rotvec))
    limit = (12 + 8 + 3 * math.pi) * eps(dtype) * min(angle, 1.0)
    # Within rounding of π the sign of the axis is lost.
    opposite = -rotvec.double() * (2 * math.pi / angle - 1)
    assert close(found, rotvec.double(), limit) or (math.pi - angle <= limit and close(found, opposite, 2 * limit))


@each_dtype
@given(draw=axis_angles())
def test_quaternion_is_that_of_the_half_angle_with_w_not_negative(dtype, draw):
    axis, angle = canonical(draw)
    expected = np.concatenate([[math.cos(angle / 2)], math.sin(angle / 2) * axis])
    found = rotation.to_quaternion(draw.matrix.to(dtype))
    limit = 4 * eps(dtype)
    assert found[0] >= 0
    assert close(found, expected, limit) or (math.cos(angle / 2) <= limit and close(found, -expected, limit))


@each_dtype
@given(draw=axis_angles(), sign=st.sampled_from([1, -1]), exponent=st.integers(-30, 30))
def test_quaternion_round_trip_ignores_sign_and_length(dtype, draw, sign, exponent):
    rot = draw.matrix.to(dtype)
    quaternion = rotation.to_quaternion(rot)
    assert close(rotation.from_quaternion(quaternion), rot.double(), 16 * eps(dtype))
    scaled = rotation.from_quaternion(sign * 10.0**exponent * quaternion)
    # The product rounds each entry once more, the division by the largest entry once.
    assert close(scaled, rotation.from_quaternion(quaternion).double(), 8 * eps(dtype))


@each_dtype
@given(start=axis_angles(), turn=axis_angles())
def test_geodesic_distance_is_the_angle_between(dtype, start, turn):
    a = start.matrix
    b = torch.from_numpy(a.numpy() @ turn.matrix.numpy())
    _, angle = canonical(turn)
    # Rounding a and b costs 3/√8 · 2 eps in s, their product 4 eps in w; float64 matrices made here err by 4 eps64.
    limit = 12 * eps(dtype) + 16 * eps(torch.float64)
    forth, back = (rotation.geodesic_distance(x.to(dtype), y.to(dtype)) for x, y in ((a, b), (b, a)))
    assert close(forth, angle, limit)
    assert close(back, forth.double(), 2 * limit)


@each_dtype
@given(turn=axis_angles(bases=(0.0,)))
def test_geodesic_distance_from_the_identity_keeps_its_digits(dtype, turn):
    found = rotation.geodesic_distance(torch.eye(3, dtype=dtype), turn.matrix.to(dtype))
    assert close(found, abs(turn.angle), 8 * eps(dtype) * abs(turn.angle))


@each_dtype
@given(draw=axis_angles())
def test_geodesic_distance_of_a_rotation_to_itself_is_exactly_zero(dtype, draw):
    rot = draw.matrix.to(dtype)
    assert rotation.geodesic_distance(rot, rot.clone()) == 0


@each_dtype
@given(a=axis_angles(), b=axis_angles(), x=translations())
def test_products_and_actions_are_those_of_matrices(dtype, a, b, x):
    rot_a, rot_b = a.matrix.to(dtype), b.matrix.to(dtype)
    vector = torch.tensor(x, dtype=dtype)
    exact_a, exact_b, exact_x = (v.double().numpy() for v in (rot_a, rot_b, vector))
    length = float(np.linalg.norm(exact_x))
    # A sum of three products: 3 roundings of ½ eps on terms whose absolute values sum to at most |row| |column|.
    limit = 2 * eps(dtype)
    assert close(rotation.multiply(rot_a, rot_b), exact_a @ exact_b, limit)
    assert close(rotation.rotate(rot_a, vector), exact_a @ exact_x, limit * length)
    assert close(rotation.rotate_inverse(rot_a, vector), exact_a.T @ exact_x, limit * length)
    assert (rotation.transpose(rot_a) == rot_a.T).all()
    undone = rotation.rotate_inverse(rot_a, rotation.rotate(rot_a, vector))
    # The rounded matrix is orthogonal to 3 · ½ eps · 2.
    assert close(undone, exact_x, (2 * 2 + 3) * eps(dtype) * length)


@given(seed=seeds())
def test_leading_dimensions_broadcast(seed):
    rot = rotation.exp(filler(seed, 4, 1, 3))
    x = filler(seed + 1, 5, 3)
    expected = np.einsum("aij,bj->abi", rot[:, 0].numpy(), x.numpy())
    assert close(rotation.rotate(rot, x), expected, 2 * eps(torch.float64) * float(x.norm(dim=-1).max()))
    assert rotation.multiply(rot, rot[0]).shape == (4, 1, 3, 3)
    assert rotation.geodesic_distance(rot, rot[:, 0]).shape == (4, 4)


@each_dtype
@given(draw=axis_angles(), angle=axis_angles(bases=(0.0, math.pi)), exponent=st.integers(-30, 30))
def test_gram_schmidt_gives_a_rotation_however_small_the_angle(dtype, draw, angle, exponent):
    turn = draw.matrix
    x = turn[:, 0].to(dtype)
    y = ((turn * math.cos(angle.angle))[:, 0] + turn[:, 1] * math.sin(angle.angle)).to(dtype)
    rot, valid = rotation.gram_schmidt(x * 10.0**exponent, y)
    exact = rot.double()
    # Entries of RᵀR are sums of three products of numbers known to a few ½ eps.
    assert is_rotation(rot, 8 * eps(dtype))
    sine = abs(math.sin(angle.offset))
    threshold = math.sqrt(eps(dtype))
    if sine > 2 * threshold:
        assert valid
        assert close(rot[:, 0], x.double() / x.double().norm(), 4 * eps(dtype))
        # y ⟂ e3 and on e2's side; rounding of x and y turns e3 by eps over the sine.
        assert abs((exact[:, 2] * y.double()).sum()) <= 8 * eps(dtype)
        assert (exact[:, 1] * y.double()).sum() > 0
    elif sine < threshold / 2:
        assert not valid
        assert (rot == torch.eye(3)).all()
