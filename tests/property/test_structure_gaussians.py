"""Laws of what the reader computes: frames and Gaussians by their definitions, base thickness, a moved file.

The judge is NumPy on the numbers that were written.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given

from helpers.geometry import close, eps
from helpers.structures import (
    HEIGHT,
    SIDE_CHAINS,
    Atom,
    Point,
    each_format,
    expected_row,
    of,
    pdb_text,
    peptide,
    reader,
    rounded,
    values,
)
from iga.structure import Structure, read_structure
from iga.testing.strategies import AxisAngle, axis_angles, seeds, translations


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Structure]:
    """read(atoms, form="pdb", **options): the atoms through a file; float64 unless told."""
    return reader(tmp_path)


@each_format
@pytest.mark.parametrize("gaussians", ["sidechain", "backbone"])
@pytest.mark.parametrize("convention", ["alphafold", "openfold"])
@pytest.mark.parametrize("thickness", [0.4, 0.05, 3.0])
def test_frames_and_gaussians_follow_their_definitions(
    read: Callable[..., Structure], form: str, gaussians: str, convention: str, thickness: float
) -> None:
    names = ("LYS", "GLY", "ALA", "SER", "LEU", "PRO")
    # A terminal oxygen belongs neither to the side chain nor to the backbone's four.
    atoms = [*peptide(*names, shift=(30.0, -50.0, 7.0)), Atom("OXT", (40.0, -40.0, 0.0), "PRO", 6)]
    structure = read(atoms, form, gaussians=gaussians, convention=convention, base_thickness=thickness)
    assert structure.residue_names == names and structure.numbers == tuple("123456")
    assert structure.mask.all() and structure.masked == {}
    assert structure.n_residues == structure.n_valid == 6
    rows = zip(*(expected_row(of(atoms, k), gaussians, thickness, convention) for k in range(1, 7)), strict=True)
    rot, trans, local_mean, log_scale = (torch.from_numpy(np.stack(column)) for column in rows)
    # A coordinate of size m is known to 4 eps m (read, divided, in both readers); see test_backbone for the turn. The
    # standard deviation moves by no more than the points, and a logarithm by that over sigma.
    m, reach = float(trans.abs().max()) + 0.5, 0.5
    point = 2 * math.sqrt(3) * 4 * eps(torch.float64) * m
    turn = 8 * eps(torch.float64) + 2 * point / HEIGHT
    local = point + reach * (turn + 8 * eps(torch.float64))
    gaussian = structure.gaussian
    assert gaussian.dtype == torch.float64
    assert close(gaussian.rot, rot, turn)
    assert close(gaussian.trans, trans, 4 * eps(torch.float64) * m)
    assert close(gaussian.local_mean, local_mean, local)
    assert close(gaussian.log_scale, log_scale, local / (thickness / 10) + 8 * eps(torch.float64))


@pytest.mark.parametrize("thickness", [0.4, 1.5])
def test_glycine_is_an_isotropic_gaussian_at_ca(read: Callable[..., Structure], thickness: float) -> None:
    structure = read(peptide("ALA", "GLY", "ALA"), base_thickness=thickness)
    assert structure.mask.all()
    assert (structure.gaussian.local_mean[1] == 0).all()
    expected = math.log(thickness / 10)
    assert close(structure.gaussian.log_scale[1], expected, 2 * eps(torch.float64) * abs(expected))


def test_base_thickness_adds_to_sigma_along_each_axis(read: Callable[..., Structure]) -> None:
    atoms = peptide("LYS", "LEU", "GLY", "SER")
    thin, thick = (read(atoms, base_thickness=thickness).gaussian.sigma for thickness in (0.1, 1.0))
    # exp(log x) is x to 2 eps and the rounding of log x, |log x| < 5; sigma < 0.5 nm.
    assert close(thick - thin, 0.09, 2 * (2 + 5) * eps(torch.float64) * 0.5)


def test_the_default_is_float32_side_chains_and_four_tenths_of_an_angstrom(tmp_path: Path) -> None:
    path = tmp_path / "a.pdb"
    path.write_text(pdb_text(peptide("LYS", "GLY", "ALA")))
    short = read_structure(path)
    exact = read_structure(path, gaussians="sidechain", base_thickness=0.4, convention="alphafold", dtype=torch.float64)
    for a, b in zip(values(short), values(exact), strict=True):
        assert a.dtype == torch.float32 and b.dtype == torch.float64
        assert torch.equal(a, b.float())
    assert short.path == str(path)


@given(turn=axis_angles(), origin=translations(high=1), seed=seeds())
def test_frames_follow_a_moved_file_and_gaussians_stay_in_their_frames(
    tmp_path_factory: pytest.TempPathFactory, turn: AxisAngle, origin: Point, seed: int
) -> None:
    matrix, shift = turn.matrix.numpy(), np.array(origin)
    still = peptide("LYS", "GLY", "SER", "LEU", "ALA", seed=seed)
    moving = [replace(a, xyz=rounded(matrix @ np.array(a.xyz) + 10 * shift)) for a in still]
    folder = tmp_path_factory.mktemp("moved")
    structures = []
    for name, atoms in (("still", still), ("moving", moving)):
        path = folder / f"{name}.pdb"
        path.write_text(pdb_text(atoms))
        structures.append(read_structure(path, dtype=torch.float64))
    a, b = (structure.gaussian for structure in structures)
    # Three decimals of an ångström move an atom by at most d, an edge by 2 d. That turns e1 by 2 d / 0.152, and the
    # plane by 1.4 times 2 d over the height; together less than 4 d / HEIGHT. Float64 rounding is 10^8 times smaller.
    d = math.sqrt(3) * 5e-5 * (1 + 1e-6)
    angle = 4 * d / HEIGHT
    assert close(b.rot, np.einsum("ij,njk->nik", matrix, a.rot.numpy()), angle)
    assert close(b.trans, a.trans.numpy() @ matrix.T + shift, 5e-5 * (1 + 1e-6))
    # A side-chain atom moves by 2 d against CA, and with the axes by its distance, under 0.31 nm.
    point = 2 * d + angle * 0.31
    lone = torch.tensor([len(SIDE_CHAINS[name]) == 0 for name in structures[0].residue_names])
    assert close(b.local_mean, a.local_mean, point)
    assert close(b.log_scale, a.log_scale, -torch.log1p(-point / a.sigma))
    assert (b.local_mean[lone] == 0).all() and torch.equal(b.log_scale[lone], a.log_scale[lone])
