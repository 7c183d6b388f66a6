"""Laws of what the reader computes: frames follow a moved file, and nearly straight residues are masked or turned."""

import math
from dataclasses import replace

import numpy as np
import torch
from hypothesis import given

from helpers.geometry import close, each_dtype, eps, is_rotation
from helpers.structures import BACKBONE, HEIGHT, SIDE_CHAINS, of, pdb_text, peptide, rounded, values
from iga.structure import read_structure
from iga.testing.strategies import axis_angles, seeds, translations


@given(turn=axis_angles(), origin=translations(high=1), seed=seeds())
def test_frames_follow_a_moved_file_and_gaussians_stay_in_their_frames(tmp_path_factory, turn, origin, seed):
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


FLAT = "N, CA and C fix no frame"
WALL = peptide("ALA", "LYS", "SER")


@each_dtype
@given(turn=axis_angles(), angle=axis_angles(bases=(0.0, math.pi)))
def test_nearly_collinear_atoms_give_a_rotation_or_are_masked(tmp_path_factory, dtype, turn, angle):
    """At three decimals of an ångström, where a nearly straight residue is straight or bent by 10⁻³."""
    n, c = angle.matrix.numpy() @ np.array([1.46, 0.0, 0.0]), np.array([1.53, 0.0, 0.0])
    points = dict(zip(BACKBONE, (turn.matrix.numpy() @ x + 20.0 for x in (n, np.zeros(3), c)), strict=True))
    middle = [replace(atom, xyz=rounded(points[atom.name])) for atom in of(WALL, 2, *BACKBONE)]
    atoms = [*of(WALL, 1), *middle, *of(WALL, 3)]
    path = tmp_path_factory.mktemp("near") / "near.pdb"
    path.write_text(pdb_text(atoms))
    structure = read_structure(path, dtype=dtype)
    assert is_rotation(structure.gaussian.rot, 8 * eps(dtype))
    assert all(x.isfinite().all() for x in values(structure))
    assert structure.mask[0] and structure.mask[2]
    assert structure.masked == ({} if structure.mask[1] else {FLAT: 1})
    # What the written digits say, exactly, in units of 0.001 Å.
    n, ca, c = (np.round(1000 * np.array(of(atoms, 2, name)[0].xyz)).astype(np.int64) for name in BACKBONE)
    assert bool(structure.mask[1]) == bool(np.cross(n - ca, c - ca).any())
