"""Atoms that fix no frame.

Origin: from_3_points of public code returns, for collinear atoms, a "rotation" of determinant 0, and NaN for coincident
ones; both then train. Here such residues are refused by index, or reported by a mask with the identity in their place.
"""

import math

import pytest
import torch
from hypothesis import given

from helpers.geometry import chain, close, each_dtype, eps, is_rotation
from iga.frame import Frame
from iga.testing.strategies import coincident_backbones, near_collinear_backbones

each_convention = pytest.mark.parametrize("convention", ["alphafold", "openfold"])
NAN, INF = math.nan, math.inf

# (N, CA, C) in nm.
DEGENERATE = {
    "N = CA": ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.153, 0.0, 0.0]),
    "C = CA": ([0.146, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    "N = C": ([0.0, 0.15, 0.0], [0.0, 0.0, 0.0], [0.0, 0.15, 0.0]),
    "all one point": ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
    "all at the origin": ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    "on a line": ([-0.1, -0.1, -0.1], [0.0, 0.0, 0.0], [0.1, 0.1, 0.1]),
    "on a line, folded back": ([0.1, 0.2, 0.3], [0.0, 0.0, 0.0], [0.2, 0.4, 0.6]),
    "on a line, not representable": ([0.1, 0.3, 0.7], [0.2, 0.6, 1.4], [0.3, 0.9, 2.1]),
    "N is NaN": ([NAN, 0.0, 0.0], [0.0, 0.0, 0.0], [0.153, 0.0, 0.0]),
    "CA is NaN": ([0.0, 0.1, 0.0], [0.0, NAN, 0.0], [0.153, 0.0, 0.0]),
    "C is infinite": ([0.0, 0.1, 0.0], [0.0, 0.0, 0.0], [INF, 0.0, 0.0]),
    "smaller than the rounding of its place": ([1e9, 0.0, 0.0], [1e9, 1e-9, 0.0], [1e9, 0.0, 1e-9]),
    "so small that gradients would overflow": ([1e-305, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1e-305, 0.0]),
}
each_case = pytest.mark.parametrize("atoms", DEGENERATE.values(), ids=DEGENERATE.keys())
Atoms = tuple[list[float], list[float], list[float]]


def tensors(atoms: Atoms, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    n, ca, c = (torch.tensor(atom, dtype=torch.float64).to(dtype) for atom in atoms)
    return n, ca, c


@each_dtype
@each_convention
@each_case
def test_it_is_reported_as_the_identity_and_otherwise_refused(dtype, convention, atoms):
    n, ca, c = tensors(atoms, dtype)
    frame, valid = Frame.from_backbone(n, ca, c, convention=convention, return_valid=True)
    assert not valid
    assert (frame.rot == torch.eye(3)).all()
    assert (frame.trans == (ca if ca.isfinite().all() else torch.zeros(3))).all()
    with pytest.raises(ValueError, match="got 1 of 1 that do; pass return_valid=True"):
        Frame.from_backbone(n, ca, c, convention=convention)
    with pytest.raises(ValueError, match="three finite points that neither coincide nor lie on a line"):
        Frame.from_3_points(n, ca, c)


@each_dtype
@each_convention
@each_case
def test_its_gradients_are_zero_and_those_of_its_neighbours_finite(dtype, convention, atoms):
    good = chain(3)
    stacked = [torch.stack([*g.to(dtype), a]) for g, a in zip(good, tensors(atoms, dtype), strict=True)]
    leaves = [x.requires_grad_(True) for x in stacked]
    frame, valid = Frame.from_backbone(*leaves, convention=convention, return_valid=True)
    assert valid.tolist() == [True, True, True, False]
    weights = torch.arange(1.0, 10.0, dtype=dtype).reshape(3, 3)
    for gradient in torch.autograd.grad((frame.rot * weights).sum(), leaves):
        assert gradient.isfinite().all()
        assert (gradient[-1] == 0).all()
        assert (gradient[:-1] != 0).any()


@each_dtype
@each_convention
@given(residue=near_collinear_backbones() | coincident_backbones())
def test_gradients_are_finite_however_near_to_degenerate(dtype, convention, residue):
    leaves = [atom.to(dtype).requires_grad_(True) for atom in residue.atoms]
    frame, _ = Frame.from_backbone(*leaves, convention=convention, return_valid=True)
    weights = torch.arange(1.0, 10.0, dtype=dtype).reshape(3, 3)
    for gradient in torch.autograd.grad((frame.rot * weights).sum(), leaves):
        assert gradient.isfinite().all()


@each_dtype
@each_convention
def test_a_real_angle_is_far_from_the_threshold(dtype, convention):
    """Real chains pass at any place a structure can be: a bond is 0.15 nm, and at 10⁴ nm float32 still resolves it."""
    for far in (0.0, 1e3, 1e4):
        n, ca, c = (atom.to(dtype) + far for atom in chain(30))
        frame, valid = Frame.from_backbone(n, ca, c, convention=convention, return_valid=True)
        assert valid.all()
        assert is_rotation(frame.rot, 8 * eps(dtype))


@each_dtype
def test_a_chain_gives_its_frames_whatever_stands_beside_it(dtype):
    n, ca, c = (atom.to(dtype) for atom in chain(6))
    alone = Frame.from_backbone(n, ca, c)
    for atoms in DEGENERATE.values():
        beside = [torch.stack([*x, a]) for x, a in zip((n, ca, c), tensors(atoms, dtype), strict=True)]
        frame, valid = Frame.from_backbone(*beside, return_valid=True)
        assert valid[:6].all() and not valid[6]
        assert (frame.rot[:6] == alone.rot).all()
        assert close(frame.trans[:6], alone.trans, 0.0)
