"""Laws of frames, on draws of axis, angle and powers of ten; the judge is NumPy in float64.

Budgets: a component of R x is a sum of three products, wrong by 1.5 eps |x|; a drawn matrix is rounded to the dtype and
so orthogonal to 3 eps. Each law states how many of those meet, times the lengths that take part.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.geometry import close, each_dtype, eps
from iga.frame import Frame
from iga.testing.strategies import AxisAngle, axis_angles, translations

Vector = tuple[float, float, float]


def frame_of(turn: AxisAngle, shift: Vector, dtype: torch.dtype) -> Frame:
    return Frame(turn.matrix.to(dtype), torch.tensor(shift, dtype=dtype))


def matrix_of(frame: Frame) -> np.ndarray:
    """The homogeneous matrix in float64, made here."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = frame.rot.double().numpy(), frame.trans.double().numpy()
    return matrix


def length(*vectors: torch.Tensor) -> float:
    return sum(float(vector.double().norm()) for vector in vectors)


frames = st.tuples(axis_angles(), translations())


@each_dtype
@given(a=frames, b=frames, x=translations())
def test_composition_and_action_are_those_of_homogeneous_matrices(dtype, a, b, x):
    first, second, point = frame_of(*a, dtype), frame_of(*b, dtype), torch.tensor(x, dtype=dtype)
    exact = matrix_of(first) @ matrix_of(second)
    product = first.compose(second)
    scale = length(first.trans, second.trans, point)
    assert close(product.rot, exact[:3, :3], 2 * eps(dtype))
    assert close(product.trans, exact[:3, 3], 3 * eps(dtype) * scale)
    # Two actions in a row, and the product's rounded matrix on the point: 2 (1.5 √3 + ½) and 1.5 √3 roundings.
    expected = (exact @ np.append(point.double().numpy(), 1.0))[:3]
    assert close(first.apply(second.apply(point)), expected, 8 * eps(dtype) * scale)
    assert close(product.apply(point), expected, 8 * eps(dtype) * scale)


@each_dtype
@given(a=frames, b=frames, c=frames)
def test_composition_is_associative(dtype, a, b, c):
    x, y, z = (frame_of(*draw, dtype) for draw in (a, b, c))
    left, right = x.compose(y).compose(z), x.compose(y.compose(z))
    # Two products deep on each side: 4 · 1.5 √3 roundings.
    assert close(left.rot, right.rot.double(), 11 * eps(dtype))
    assert close(left.trans, right.trans.double(), 11 * eps(dtype) * length(x.trans, y.trans, z.trans))


@each_dtype
@given(a=frames, x=translations())
def test_inverse_undoes_the_motion_on_both_sides(dtype, a, x):
    frame, point = frame_of(*a, dtype), torch.tensor(x, dtype=dtype)
    scale = length(frame.trans, point)
    # 3 eps · √3 of non-orthogonality, two actions of (1.5 √3 + ½) eps.
    limit = 12 * eps(dtype)
    for product in (frame.compose(frame.invert()), frame.invert().compose(frame)):
        assert close(product.rot, np.eye(3), limit)
        assert close(product.trans, 0.0, limit * length(frame.trans))
    assert close(frame.invert_apply(frame.apply(point)), point.double(), limit * scale)
    assert close(frame.apply(frame.invert_apply(point)), point.double(), limit * scale)
    assert close(frame.invert().apply(point), frame.invert_apply(point).double(), limit * scale)


@each_dtype
@given(a=frames, x=translations(), exponent=st.integers(-8, 8))
def test_scaling_lengths_by_a_power_of_two_commutes_exactly_with_the_action(dtype, a, x, exponent):
    frame, point, c = frame_of(*a, dtype), torch.tensor(x, dtype=dtype), 2.0**exponent
    assert (frame.scaled(c).apply(c * point) == c * frame.apply(point)).all()
    assert (frame.scale_translation(c).trans == frame.trans * c).all()


@each_dtype
@pytest.mark.parametrize("unit", ["nm", "angstrom"])
@given(a=frames)
def test_frames_survive_4x4_and_7_in_both_units(dtype, unit, a):
    frame = frame_of(*a, dtype)
    per_nm = {"nm": 1.0, "angstrom": 10.0}[unit]
    matrix, vector = frame.to_4x4(unit=unit), frame.to_7(unit=unit)
    assert matrix.dtype == vector.dtype == dtype
    # One rounding on the way out, one on the way back.
    limit = eps(dtype) * length(frame.trans)
    assert close(matrix[:3, 3], frame.trans.double() * per_nm, limit * per_nm)
    assert (matrix[3] == torch.tensor([0.0, 0, 0, 1], dtype=dtype)).all()
    assert (matrix[:3, :3] == frame.rot).all()
    assert vector[0] >= 0
    assert (vector[4:] == matrix[:3, 3]).all()
    for back in (Frame.from_4x4(matrix, unit=unit), Frame.from_7(vector, unit=unit)):
        assert close(back.trans, frame.trans.double(), limit)
        assert close(back.rot, frame.rot.double(), 16 * eps(dtype))
    if unit == "nm":
        assert (frame.to_tensor_4x4() == matrix).all()
        assert (frame.to_tensor_7() == vector).all()
        assert (Frame.from_tensor_4x4(matrix).rot == frame.rot).all()
        assert (Frame.from_tensor_7(vector).trans == frame.trans).all()
