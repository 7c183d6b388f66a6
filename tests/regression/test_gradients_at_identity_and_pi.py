"""Gradients at the identity and at rotations by π.

Origin: rotation types in public code have NaN gradients there (a quaternion from the trace's root, 0/0 in the sinc, a
norm at 0, arccos at ±1). The judge is the Lie algebra: along R exp(ε ê_k) every derivative is known in closed form.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given

from helpers.geometry import close, each_dtype, eps
from iga import rotation
from iga.frame import Frame
from iga.testing.strategies import AxisAngle, axis_angles

AXES = [(0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 0), (0, 1, -1), (1, 0, 1), (1, 1, 1), (1, -2, 3), (-4, 1, 2)]
each_axis = pytest.mark.parametrize("axis", AXES, ids=str)

# d/dε (I + ε ê_k) for the three axes: the generators.
GENERATORS = torch.zeros(3, 3, 3, dtype=torch.float64)
for k, (i, j) in enumerate([(2, 1), (0, 2), (1, 0)]):
    GENERATORS[k, i, j], GENERATORS[k, j, i] = 1.0, -1.0


def half_turn(axis: tuple[int, int, int], dtype: torch.dtype) -> torch.Tensor:
    """2 aaᵀ − I: a rotation by π; exact in floating point for the coordinate axes."""
    a = torch.tensor(axis, dtype=torch.float64)
    return (2 * torch.outer(a, a) / (a * a).sum() - torch.eye(3, dtype=torch.float64)).to(dtype)


def along_tangent(function, rot: torch.Tensor) -> torch.Tensor:
    """[..., 3]: the derivatives of each output along R exp(ε ê_k), from autograd's gradient in R."""
    jacobian = torch.autograd.functional.jacobian(function, rot)
    assert jacobian.isfinite().all(), jacobian
    tangents = torch.einsum("ij,kjl->kil", rot.double(), GENERATORS)
    return torch.einsum("...il,kil->...k", jacobian.double(), tangents)


@each_dtype
def test_derivative_of_exp_at_zero_is_the_generator(dtype):
    jacobian = torch.autograd.functional.jacobian(rotation.exp, torch.zeros(3, dtype=dtype))
    assert close(jacobian, GENERATORS.permute(1, 2, 0), 2 * eps(dtype))


@each_dtype
def test_derivative_of_log_at_the_identity_is_one(dtype):
    assert close(along_tangent(rotation.log, torch.eye(3, dtype=dtype)), np.eye(3), 8 * eps(dtype))


@each_dtype
def test_derivative_of_the_quaternion_at_the_identity_is_half_a_turn(dtype):
    expected = np.vstack([np.zeros(3), 0.5 * np.eye(3)])
    assert close(along_tangent(rotation.to_quaternion, torch.eye(3, dtype=dtype)), expected, 8 * eps(dtype))


@each_dtype
@each_axis
def test_derivative_of_log_at_pi_is_that_of_one_side(dtype, axis):
    """The inverse right Jacobian at θ = π is aaᵀ + ½ π â, as (θ/2) cot(θ/2) = 0; a is the axis that log takes."""
    rot = half_turn(axis, dtype)
    vector = rotation.log(rot)
    a = np.array(axis) / np.linalg.norm(axis)
    sign = 1.0 if float((vector.double().numpy() * a).sum()) > 0 else -1.0
    assert close(vector, sign * math.pi * a, 16 * eps(dtype))
    cross = np.einsum("kij,k->ij", GENERATORS.numpy(), sign * a)
    expected = np.outer(a, a) + 0.5 * math.pi * cross
    # Entries of dlog are up to π; the matrix is rounded to eps and the quaternion's row to 4.
    assert close(along_tangent(rotation.log, rot), expected, 32 * eps(dtype))


@each_dtype
@each_axis
def test_derivative_of_the_quaternion_at_pi_is_half_the_product(dtype, axis):
    """dq = ½ q ⊗ (0, ê_k): with q = (w, v), ½ (−v_k, w ê_k + v × ê_k)."""
    rot = half_turn(axis, dtype)
    q = rotation.to_quaternion(rot).double().numpy()
    expected = np.vstack([-q[1:], q[0] * np.eye(3) + np.einsum("kij,k->ij", GENERATORS.numpy(), q[1:])]) / 2
    assert close(along_tangent(rotation.to_quaternion, rot), expected, 16 * eps(dtype))


@each_dtype
@each_axis
def test_gradient_of_the_geodesic_distance_is_zero_at_its_two_kinks(dtype, axis):
    eye = torch.eye(3, dtype=dtype)
    same = AxisAngle(axis, 1.0, 0.0).matrix.to(dtype)
    for a, b in ((eye, eye), (same, same)):
        for gradient in torch.autograd.functional.jacobian(rotation.geodesic_distance, (a, b.clone())):
            assert (gradient == 0).all()
    opposite = along_tangent(lambda a: rotation.geodesic_distance(a, eye), half_turn(axis, dtype))
    if np.count_nonzero(axis) == 1:  # exactly π in floating point
        assert close(opposite, 0.0, 4 * eps(dtype))
    else:  # within rounding of π: the derivative of one side, of length 1, or less
        assert close(opposite.norm(), 0.5, 0.5 + 16 * eps(dtype))


@each_dtype
@given(turn=axis_angles())
def test_gradient_of_the_geodesic_distance_has_length_one_elsewhere(dtype, turn):
    rot = turn.matrix.to(dtype)
    eye = torch.eye(3, dtype=dtype)
    gradient = along_tangent(lambda a: rotation.geodesic_distance(a, eye), rot)
    distance = abs(turn.angle) if turn.base != math.pi else math.pi - abs(turn.offset)
    # Rounding the matrix by eps turns the gradient by eps over the distance to the kink.
    to_kink = min(distance, math.pi - distance)
    if to_kink > 64 * eps(dtype):
        axis = np.array(turn.axis) / np.linalg.norm(turn.axis)
        away = 1.0 if (turn.angle > 0) and not (turn.base == math.pi and turn.offset > 0) else -1.0
        assert close(gradient, away * axis, 16 * eps(dtype) / min(to_kink, 1.0))


@each_dtype
@given(turn=axis_angles())
def test_every_gradient_is_finite_at_and_around_the_identity_and_pi(dtype, turn):
    rot = turn.matrix.to(dtype)
    other = AxisAngle((1, 2, 3), 0.5, 0.0).matrix.to(dtype)
    rotvec = turn.rotvec.to(dtype)
    for function, value in (
        (rotation.exp, rotvec),
        (lambda v: rotation.log(rotation.exp(v)), rotvec),
        (rotation.log, rot),
        (rotation.to_quaternion, rot),
        (lambda r: rotation.from_quaternion(rotation.to_quaternion(r)), rot),
        (lambda r: rotation.geodesic_distance(r, other), rot),
        (lambda r: rotation.geodesic_distance(r, rot), rot),
        (lambda r: rotation.geodesic_distance(r, torch.eye(3, dtype=dtype)), rot),
        (lambda r: Frame(r, rotvec).invert().to_7(), rot),
    ):
        jacobian = torch.autograd.functional.jacobian(function, value)
        assert jacobian.isfinite().all()
        assert jacobian.dtype == dtype


@each_dtype
@each_axis
def test_a_step_through_the_identity_and_through_pi_can_be_trained(dtype, axis):
    """Gradient descent on ½ θ² from exp(0) and from half a turn: finite, and it moves towards the target."""
    target = AxisAngle(axis, 1.0, 0.0).matrix.to(dtype)
    half = AxisAngle((3, -1, 2), math.pi, 0.0).rotvec.to(dtype)
    for start in (torch.zeros(3, dtype=dtype), half):
        vector = start.clone().requires_grad_(True)
        loss = rotation.geodesic_distance(rotation.exp(vector), target).square() / 2
        (gradient,) = torch.autograd.grad(loss, vector)
        assert gradient.isfinite().all()
        closer = rotation.geodesic_distance(rotation.exp(start - 1e-2 * gradient), target).square() / 2
        assert closer < loss
