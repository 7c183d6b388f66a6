"""Residues without a frame: masked, counted by reason and neutral, while their neighbours keep every bit."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.geometry import eps, is_rotation
from helpers.structures import (
    BACKBONE,
    MISSING,
    NAN,
    WRITERS,
    each_format,
    is_neutral,
    peptide,
    reader,
    rounded,
    same,
    values,
    without,
)
from iga.structure import Structure, read_structures

FLAT = "N, CA and C fix no frame"


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Structure]:
    """read(atoms, form="pdb", **options): the atoms through a file; float64 unless told."""
    return reader(tmp_path)


@each_format
@pytest.mark.parametrize("names", [("N",), ("CA",), ("C",), ("N", "C"), BACKBONE])
def test_residues_with_missing_atoms_are_masked_and_counted(read, form, names):
    plain = peptide("ALA", "LYS", "SER", "LEU", "ALA")
    structure = read(without(without(plain, 2, *names), 5, *names), form)
    assert structure.mask.tolist() == [True, False, True, True, False]
    assert structure.masked == {MISSING: 2}
    assert (structure.n_residues, structure.n_valid) == (5, 3)
    assert structure.residue_names == ("ALA", "LYS", "SER", "LEU", "ALA")
    assert is_neutral(structure, 1) and is_neutral(structure, 4)
    for a, b in zip(values(structure), values(read(plain, form)), strict=True):
        assert torch.equal(a[structure.mask], b[structure.mask])


@each_format
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", BACKBONE)
def test_coordinates_that_are_no_numbers_mask_the_residue(read, form, name, axis):
    plain = peptide("ALA", "LYS", "SER")
    broken = [
        replace(atom, xyz=tuple(math.nan if k == axis else x for k, x in enumerate(atom.xyz)))
        if (atom.number, atom.name) == (2, name)
        else atom
        for atom in plain
    ]
    structure = read(broken, form)
    assert structure.mask.tolist() == [True, False, True]
    assert structure.masked == {MISSING: 1}
    assert is_neutral(structure, 1)
    for a, b in zip(values(structure), values(read(plain, form)), strict=True):
        assert torch.equal(a[structure.mask], b[structure.mask])


@each_format
def test_side_chain_atoms_without_coordinates_are_left_out(read, form):
    plain = peptide("ALA", "LYS", "SER")
    lost = [replace(a, xyz=NAN) if (a.number, a.name) in ((2, "NZ"), (1, "CB")) else a for a in plain]
    assert same(read(lost, form), read(without(without(plain, 2, "NZ"), 1, "CB"), form))


@each_format
@pytest.mark.parametrize(
    "line",
    [
        ((-1.46, 0.0, 0.0), (0.0, 0.0, 0.0), (1.53, 0.0, 0.0)),  # stretched
        ((1.46, 0.0, 0.0), (0.0, 0.0, 0.0), (1.53, 0.0, 0.0)),  # folded back
        ((-1.0, -0.5, 0.25), (0.0, 0.0, 0.0), (1.0, 0.5, -0.25)),  # along no axis
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.53, 0.0, 0.0)),  # N on CA
        ((-1.46, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),  # C on CA
        ((1.46, 0.0, 0.0), (0.0, 0.0, 0.0), (1.46, 0.0, 0.0)),  # N on C
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),  # all in one place
    ],
)
@pytest.mark.parametrize("convention", ["alphafold", "openfold"])
def test_collinear_and_coincident_atoms_are_masked_with_the_reason(read, form, line, convention):
    plain = peptide("ALA", "LYS", "SER", "LEU")
    at = np.array([7.125, -3.5, 11.25])
    points = dict(zip(BACKBONE, (rounded(at + np.array(point)) for point in line), strict=True))
    flat = [replace(a, xyz=points[a.name]) if a.number == 3 and a.name in points else a for a in plain]
    structure = read(flat, form, convention=convention)
    assert structure.mask.tolist() == [True, True, False, True]
    assert structure.masked == {FLAT: 1}
    assert is_neutral(structure, 2)
    assert is_rotation(structure.gaussian.rot, 8 * eps(torch.float64))
    for a, b in zip(values(structure), values(read(plain, form, convention=convention)), strict=True):
        assert torch.equal(a[structure.mask], b[structure.mask])


@each_format
def test_every_reason_is_counted_by_itself_and_stands_in_the_record(tmp_path, form):
    atoms = without(peptide("ALA", "LYS", "SER", "LEU", "ALA"), 1, "N")
    atoms = [replace(a, xyz=NAN) if a.number == 5 and a.name == "CA" else a for a in atoms]
    atoms = [replace(a, xyz=(1.0, 1.0, 1.0)) if a.number == 3 else a for a in atoms]
    path = tmp_path / f"a.{form}"
    path.write_text(WRITERS[form](atoms))
    (structure,), (entry,) = read_structures([path])
    assert structure.mask.tolist() == [False, True, False, True, False]
    assert structure.masked == {MISSING: 2, FLAT: 1}
    assert all(x.isfinite().all() for x in values(structure))
    assert entry == {
        "path": str(path),
        "residues": 5,
        "masked": 3,
        "chain_breaks": 0,
        "status": "read",
        "reason": f"2 masked: {MISSING}; 1 masked: {FLAT}",
    }
