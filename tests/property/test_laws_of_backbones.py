"""Laws of frames made from atoms and of the unit that coordinates are in; the judge knows the draws."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.geometry import close, each_dtype, eps, is_rotation
from helpers.units import ANGSTROM, OTHER, chain, proven, refused
from iga._backbone import check_trans_unit, check_unit
from iga.frame import Frame
from iga.testing.strategies import (
    CA_C,
    N_CA,
    TAU,
    AxisAngle,
    Backbone,
    axis_angles,
    coincident_backbones,
    filler,
    near_collinear_backbones,
    seeds,
    translations,
)


@each_dtype
@given(turn=axis_angles(), origin=translations(high=0))
def test_backbone_frames_follow_both_conventions(dtype, turn, origin):
    residue = Backbone("ideal", (N_CA, CA_C), AxisAngle((0, 0, 1), TAU, 0.0), turn, origin)
    atoms = tuple(atom.to(dtype) for atom in residue.atoms)
    # C on +x and N at y > 0 is AlphaFold's; OpenFold's is turned about z by τ − π.
    turned = turn.matrix.numpy() @ AxisAngle((0, 0, 1), TAU - math.pi, 0.0).matrix.numpy()
    # Rounding the atoms turns an edge by √3 eps m / length, and e2 by as much again; the shortest height is 0.136 nm.
    m = max(float(atom.abs().max()) for atom in atoms)
    limit = eps(dtype) * (8 + 2 * math.sqrt(3) * m / 0.136)
    for convention, expected in (("alphafold", turn.matrix.numpy()), ("openfold", turned)):
        frame = Frame.from_backbone(*atoms, convention=convention)
        assert frame.dtype == dtype
        assert (frame.trans == atoms[1]).all()
        assert close(frame.rot, expected, limit), convention
    by_points = Frame.from_3_points(*atoms)
    assert (by_points.rot == Frame.from_backbone(*atoms, convention="openfold").rot).all()
    assert (by_points.trans == atoms[1]).all()


@each_dtype
@given(turn=axis_angles(), origin=translations(high=0))
def test_angstrom_atoms_give_the_same_frames_in_nm(dtype, turn, origin):
    residue = Backbone("ideal", (N_CA, CA_C), AxisAngle((0, 0, 1), TAU, 0.0), turn, origin)
    nm = tuple(atom.to(dtype) for atom in residue.atoms)
    angstrom = tuple((10 * atom).to(dtype) for atom in residue.atoms)
    m = max(float(atom.abs().max()) for atom in nm)
    a, b = Frame.from_backbone(*nm), Frame.from_backbone(*angstrom, unit="angstrom")
    assert close(b.trans, a.trans.double(), 2 * eps(dtype) * m)
    assert close(b.rot, a.rot.double(), 2 * eps(dtype) * (8 + 2 * math.sqrt(3) * m / 0.136))


@each_dtype
@pytest.mark.parametrize("convention", ["alphafold", "openfold"])
@given(residue=near_collinear_backbones())
def test_near_collinear_atoms_give_a_rotation_or_are_reported(dtype, convention, residue):
    atoms = tuple(atom.to(dtype) for atom in residue.atoms)
    frame, valid = Frame.from_backbone(*atoms, convention=convention, return_valid=True)
    assert is_rotation(frame.rot, 8 * eps(dtype))
    # In the band between, rounding of the atoms decides.
    sine, threshold = abs(math.sin(residue.angle.offset)), math.sqrt(eps(dtype))
    assert valid or sine < 2 * threshold
    assert not (valid and sine < threshold / 2)
    assert valid or (frame.rot == torch.eye(3)).all()


@each_dtype
@pytest.mark.parametrize("convention", ["alphafold", "openfold"])
@given(residue=coincident_backbones())
def test_coincident_atoms_are_reported_and_refused(dtype, convention, residue):
    atoms = tuple(atom.to(dtype) for atom in residue.atoms)
    frame, valid = Frame.from_backbone(*atoms, convention=convention, return_valid=True)
    assert not valid
    assert (frame.rot == torch.eye(3)).all()
    assert (frame.trans == atoms[1]).all()
    with pytest.raises(ValueError, match="three finite points that neither coincide nor lie on a line"):
        Frame.from_backbone(*atoms, convention=convention)


@each_dtype
@given(seed=seeds(), scale=st.integers(-3, 3), batch=st.sampled_from([(), (1,), (7,), (2, 5)]))
def test_from_backbone_takes_arbitrary_points(dtype, seed, scale, batch):
    n, ca, c = (10.0**scale * filler(seed, 3, *batch, 3)).to(dtype).unbind(0)
    frame, valid = Frame.from_backbone(n, ca, c, return_valid=True)
    assert frame.shape == valid.shape == batch
    assert valid.dtype == torch.bool
    assert is_rotation(frame.rot, 8 * eps(dtype))
    # C lies on +x and N in the upper half of the xy-plane, to the rounding of points that spread over 4 × scale.
    limit = 32 * eps(dtype) * float(10.0**scale * filler(seed, 3, *batch, 3).abs().max())
    local_c, local_n = frame.invert_apply(c)[valid], frame.invert_apply(n)[valid]
    assert close(local_c[..., 1:], 0.0, limit)
    assert close(local_n[..., 2], 0.0, limit)
    assert (local_c[..., 0] > 0).all() and (local_n[..., 1] > -limit).all()


@pytest.mark.parametrize("convention", ["alphafold", "openfold"])
@given(seed=seeds())
def test_gradient_of_the_frames_is_their_derivative(convention, seed):
    """Against central differences in float64, on an ideal residue shaken by 0.01 nm."""
    turn = AxisAngle((1, 2, 3), 1.0, 0.0)
    residue = Backbone("ideal", (N_CA, CA_C), AxisAngle((0, 0, 1), TAU, 0.0), turn, (1.0, 0.0, 0.0))
    atoms = [(atom + 0.01 * filler(seed + k, 3)).requires_grad_(True) for k, atom in enumerate(residue.atoms)]

    def frame(n: torch.Tensor, ca: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return Frame.from_backbone(n, ca, c, convention=convention).to_4x4()

    # A step h leaves h² times third derivatives of about (1/0.1 nm)³, and rounding over h: 10⁻⁷ each.
    assert torch.autograd.gradcheck(frame, atoms, eps=1e-6, atol=1e-6, rtol=1e-6, fast_mode=True)


@st.composite
def chains(draw) -> tuple[list[str], list[str], list[bool]]:
    length = draw(st.integers(1, 16))
    # mostly proteins, or the rule would hardly ever say yes
    kind = st.sampled_from([*["protein"] * 6, "long", "short", "none"])
    steps = draw(st.lists(kind, min_size=length - 1, max_size=length - 1))
    residue = st.sampled_from([*["protein"] * 5, "long", "none"])
    residues = draw(st.lists(residue, min_size=length, max_size=length))
    lost = draw(st.lists(st.sampled_from([*[False] * 9, True]), min_size=length, max_size=length))
    return steps, residues, lost


@pytest.mark.parametrize("unit", ["nm", "angstrom"])
@given(drawn=chains())
def test_the_unit_is_refused_where_the_counts_prove_the_other_and_nowhere_else(unit, drawn):
    atoms = tuple(ANGSTROM[unit] * atom for atom in chain(*drawn))
    assert refused(check_unit, *atoms, unit) == proven(*drawn, bonds=True)
    assert refused(check_trans_unit, atoms[1], unit) == proven(*drawn, bonds=False)
    assert not refused(check_unit, *atoms, OTHER[unit])
