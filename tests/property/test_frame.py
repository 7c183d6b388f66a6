"""Laws of frames, judged in NumPy float64; draws are axis, angle and powers of ten.

Budgets: a component of R x is a sum of three products, wrong by 1.5 eps |x|; a drawn matrix is rounded to the dtype and
so orthogonal to 3 eps. Each law states how many of those meet, times the lengths that take part.
"""

import math

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.geometry import close, each_dtype, eps
from iga.frame import Frame, rigid_to_frame
from iga.gaussian import GaussianRigid
from iga.testing.strategies import AxisAngle, axis_angles, filler, translations

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
def test_composition_and_action_are_those_of_homogeneous_matrices(
    dtype: torch.dtype, a: tuple[AxisAngle, Vector], b: tuple[AxisAngle, Vector], x: Vector
) -> None:
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
def test_composition_is_associative(
    dtype: torch.dtype, a: tuple[AxisAngle, Vector], b: tuple[AxisAngle, Vector], c: tuple[AxisAngle, Vector]
) -> None:
    x, y, z = (frame_of(*draw, dtype) for draw in (a, b, c))
    left, right = x.compose(y).compose(z), x.compose(y.compose(z))
    # Two products deep on each side: 4 · 1.5 √3 roundings.
    assert close(left.rot, right.rot.double(), 11 * eps(dtype))
    assert close(left.trans, right.trans.double(), 11 * eps(dtype) * length(x.trans, y.trans, z.trans))


@each_dtype
@given(a=frames, x=translations())
def test_inverse_undoes_the_motion_on_both_sides(dtype: torch.dtype, a: tuple[AxisAngle, Vector], x: Vector) -> None:
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
def test_scaling_lengths_by_a_power_of_two_commutes_exactly_with_the_action(
    dtype: torch.dtype, a: tuple[AxisAngle, Vector], x: Vector, exponent: int
) -> None:
    frame, point, c = frame_of(*a, dtype), torch.tensor(x, dtype=dtype), 2.0**exponent
    assert (frame.scaled(c).apply(c * point) == c * frame.apply(point)).all()
    assert (frame.scale_translation(c).trans == frame.trans * c).all()


@pytest.mark.parametrize("c", [0.0, -1.0, math.nan, math.inf])
def test_lengths_scale_by_a_positive_number_only(c: float) -> None:
    with pytest.raises(ValueError, match="c must be a finite number > 0"):
        Frame.identity(2).scaled(c)


@each_dtype
@pytest.mark.parametrize("unit", ["nm", "angstrom"])
@given(a=frames)
def test_frames_survive_4x4_and_7_in_both_units(dtype: torch.dtype, unit: str, a: tuple[AxisAngle, Vector]) -> None:
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


def test_from_7_normalises_the_quaternion() -> None:
    vector = torch.tensor([0.0, 0.0, 0.0, -7.0, 1.0, 2.0, 3.0])
    assert (Frame.from_7(vector).rot == torch.diag(torch.tensor([-1.0, -1.0, 1.0]))).all()
    with pytest.raises(ValueError, match="quaternion must be finite and not zero"):
        Frame.from_7(torch.zeros(7))


def test_a_matrix_for_row_vectors_is_refused_with_the_remedy() -> None:
    matrix = Frame.random(3, generator=torch.Generator().manual_seed(0)).to_4x4()
    with pytest.raises(ValueError, match=r"last row \(0, 0, 0, 1\).*transposed first"):
        Frame.from_4x4(matrix.mT)


def test_unknown_convention_and_unit_are_refused() -> None:
    atoms = filler(0, 3, 4, 3).unbind(0)
    with pytest.raises(ValueError, match="convention must be .*, got 'af2'"):
        Frame.from_backbone(*atoms, convention="af2")
    with pytest.raises(ValueError, match='unit must be "nm" or "angstrom", got \'pm\''):
        Frame.from_backbone(*atoms, unit="pm")
    with pytest.raises(ValueError, match='unit must be "nm" or "angstrom"'):
        Frame.identity(2).to_7(unit="A")


@each_dtype
def test_identity_and_random_have_the_shape_dtype_and_extent_asked_for(dtype: torch.dtype) -> None:
    identity = Frame.identity(2, 3, dtype=dtype)
    assert identity.shape == (2, 3) and identity.dtype == dtype and identity.device.type == "cpu"
    x = filler(0, 2, 3, 3).to(dtype)
    assert (identity.apply(x) == x).all()
    generator = torch.Generator().manual_seed(1)
    frame = Frame.random(500, generator=generator, extent_nm=8.0, dtype=dtype)
    assert frame.shape == (500,) and frame.dtype == dtype
    assert (frame.trans.abs() <= 4.0).all()
    # All of 1500 coordinates in the inner nine tenths: 0.9^1500.
    assert (frame.trans.abs() > 3.6).any()


@pytest.mark.parametrize(
    "index",
    [0, slice(1, None), (slice(None), 2), (..., None), None, [1, 0], (..., 0), torch.tensor([[True, False, True]] * 2)],
    ids=str,
)
def test_an_index_addresses_the_leading_dimensions(index: object) -> None:
    frame = Frame.random(2, 3, generator=torch.Generator().manual_seed(0))
    numbers = torch.arange(6).reshape(2, 3)
    expected = numbers[index]  # type: ignore[index]
    picked = frame[index]
    assert picked.shape == expected.shape
    assert (picked.rot == frame.rot.reshape(6, 3, 3)[expected]).all()
    assert (picked.trans == frame.trans.reshape(6, 3)[expected]).all()


def test_too_many_indices_are_an_index_error() -> None:
    with pytest.raises(IndexError):
        Frame.identity(2, 3)[0, 0, 0]


class OpenFoldLike:
    """A rigid object that knows OpenFold's verbs and nothing else."""

    def __init__(self, rot: torch.Tensor, trans: torch.Tensor) -> None:
        self._rot, self._trans = rot, trans

    def get_rots(self) -> "OpenFoldLike":
        return self

    def get_rot_mats(self) -> torch.Tensor:
        return self._rot

    def get_trans(self) -> torch.Tensor:
        return self._trans


@each_dtype
def test_rigid_to_frame_reads_frames_gaussians_and_openfold_objects(dtype: torch.dtype) -> None:
    frame = Frame.random(4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    assert rigid_to_frame(frame) is frame
    zeros = torch.zeros(4, 3, dtype=dtype)
    assert rigid_to_frame(GaussianRigid(frame, zeros, zeros)) is frame
    read = rigid_to_frame(OpenFoldLike(frame.rot, frame.trans))
    assert read.rot is frame.rot and read.trans is frame.trans
    # and Frame speaks the same verbs
    back = rigid_to_frame(OpenFoldLike(frame.get_rots().get_rot_mats(), frame.get_trans()))
    assert back.rot is frame.rot and back.trans is frame.trans
    assert (frame.get_rots().get_quats() == frame.to_tensor_7()[..., :4]).all()


def test_rigid_to_frame_refuses_anything_else_with_the_remedy() -> None:
    with pytest.raises(TypeError, match=r"got Tensor; build one with Frame\(rot, trans\)"):
        rigid_to_frame(torch.eye(4))


def test_frames_that_do_not_fit_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    eye = torch.eye(3).expand(4, 3, 3)
    with pytest.raises(ValueError, match=r"same leading dimensions, got \[4, 3, 3\] and \[5, 3\]"):
        Frame(eye, torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"rot must be \[\.\.\., 3, 3\], got \[4, 4\]"):
        Frame(torch.eye(4), torch.zeros(3))
    with pytest.raises(ValueError, match=r"trans must have the dtype.*torch.float32.*got torch.float64"):
        Frame(eye, torch.zeros(4, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"must have one shape .*got \[4, 3\], \[4, 3\] and \[1, 3\]"):
        Frame.from_backbone(torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(1, 3))


def test_conversion_keeps_values_and_refuses_half_precision() -> None:
    frame = Frame.random(4, generator=torch.Generator().manual_seed(0))
    double = frame.to(torch.float64)
    assert double.dtype == torch.float64 and (double.rot == frame.rot).all() and (double.trans == frame.trans).all()
    assert (frame.to("cpu").rot == frame.rot).all()
    for half in (torch.float16, torch.bfloat16):
        with pytest.raises(ValueError, match=r"must be float32 or float64.*\.float\(\)"):
            frame.to(half)


@each_dtype
def test_autocast_does_not_reach_frames(dtype: torch.dtype) -> None:
    frame = Frame.random(6, generator=torch.Generator().manual_seed(0), dtype=dtype)
    n, ca, c = filler(3, 3, 6, 3).to(dtype).unbind(0)

    def results() -> list[torch.Tensor]:
        made = Frame.from_backbone(n, ca, c)
        return [made.rot, frame.compose(made).trans, frame.apply(ca), frame.invert_apply(ca), frame.to_7()]

    plain = results()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = results()
    assert all(a.dtype == b.dtype == dtype and (a == b).all() for a, b in zip(plain, cast, strict=True))


def test_frames_compare_by_identity_because_tensors_do_not_compare_to_one_truth() -> None:
    frame = Frame.identity(2)
    other = Frame(frame.rot, frame.trans)
    assert frame == frame and frame != other and len({frame, other}) == 2
