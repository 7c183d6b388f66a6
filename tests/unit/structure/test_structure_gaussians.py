"""The numbers that the reader computes: frames and Gaussians by their definitions, base thickness, defaults.

The judge is NumPy on the numbers that were written.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.geometry import close, eps
from helpers.structures import (
    HEIGHT,
    Atom,
    each_format,
    expected_row,
    of,
    pdb_text,
    peptide,
    reader,
    values,
)
from iga.structure import Structure, read_structure


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Structure]:
    """read(atoms, form="pdb", **options): the atoms through a file; float64 unless told."""
    return reader(tmp_path)


@each_format
@pytest.mark.parametrize("gaussians", ["sidechain", "backbone"])
@pytest.mark.parametrize("convention", ["alphafold", "openfold"])
@pytest.mark.parametrize("thickness", [0.4, 0.05, 3.0])
def test_frames_and_gaussians_follow_their_definitions(read, form, gaussians, convention, thickness):
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
def test_glycine_is_an_isotropic_gaussian_at_ca(read, thickness):
    structure = read(peptide("ALA", "GLY", "ALA"), base_thickness=thickness)
    assert structure.mask.all()
    assert (structure.gaussian.local_mean[1] == 0).all()
    expected = math.log(thickness / 10)
    assert close(structure.gaussian.log_scale[1], expected, 2 * eps(torch.float64) * abs(expected))


def test_base_thickness_adds_to_sigma_along_each_axis(read):
    atoms = peptide("LYS", "LEU", "GLY", "SER")
    thin, thick = (read(atoms, base_thickness=thickness).gaussian.sigma for thickness in (0.1, 1.0))
    # exp(log x) is x to 2 eps and the rounding of log x, |log x| < 5; sigma < 0.5 nm.
    assert close(thick - thin, 0.09, 2 * (2 + 5) * eps(torch.float64) * 0.5)


def test_the_default_is_float32_side_chains_and_four_tenths_of_an_angstrom(tmp_path):
    path = tmp_path / "a.pdb"
    path.write_text(pdb_text(peptide("LYS", "GLY", "ALA")))
    short = read_structure(path)
    exact = read_structure(path, gaussians="sidechain", base_thickness=0.4, convention="alphafold", dtype=torch.float64)
    for a, b in zip(values(short), values(exact), strict=True):
        assert a.dtype == torch.float32 and b.dtype == torch.float64
        assert torch.equal(a, b.float())
    assert short.path == str(path)
