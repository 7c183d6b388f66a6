"""Gaussians as ellipsoids in files: readers find the covariances that were meant, and each residue by its name."""

import math
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch

from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.structure import Structure, read_structure
from iga.structure.ellipsoids import GAUSSIAN, anisotropic, check_pdb, write_ellipsoids
from iga.structure.synthetic import synthetic_structures
from iga.structure.write import PdbLimit

CODES = "awkward/insertion_codes_1a4w.pdb.gz"  # several chains, residues 60A to 60I, masked ones


def covariances(structure: Structure) -> np.ndarray:
    """R diag(s²) Rᵀ of each valid residue in Å², by NumPy from the formula."""
    r = structure.gaussian
    rot, sigma = r.rot.double().numpy(), 10.0 * np.exp(r.log_scale.double().numpy())
    return np.einsum("nij,nj,nkj->nik", rot, sigma**2, rot)[structure.mask.numpy()]


def read_back(path: Path) -> tuple[list[tuple[str, str, str]], np.ndarray, np.ndarray]:
    """(chain, number, name) of each residue, and place and U of its Gaussian, Å and Å², as gemmi reads them."""
    found = [
        ((chain.name, str(residue.seqid), residue.name), atom.pos.tolist(), atom.aniso)
        for chain in gemmi.read_structure(str(path))[0]
        for residue in chain
        for atom in residue
        if atom.name == GAUSSIAN
    ]
    u = [[[a.u11, a.u12, a.u13], [a.u12, a.u22, a.u23], [a.u13, a.u23, a.u33]] for _, _, a in found]
    return [who for who, _, _ in found], np.array([place for _, place, _ in found]), np.array(u)


@pytest.fixture(scope="module", params=["1crn.pdb", CODES])
def structure(request: pytest.FixtureRequest, structures_dir: Path) -> Structure:
    return read_structure(structures_dir / request.param)


# PDB rounds U to 10⁻⁴ Å² and places to 10⁻³ Å; gemmi's mmCIF has five decimals of U and six digits of a place. Beside
# these, U goes through float32, and the covariances were made of float32 rotations.
@pytest.mark.parametrize(("ending", "of_u", "of_place"), [(".pdb", 0.5e-4, 0.5e-3), (".cif", 0.5e-5, 0.5e-3)])
def test_gemmi_reads_back_the_ellipsoid_of_every_residue_with_its_insertion_code(
    ending: str, of_u: float, of_place: float, structure: Structure, tmp_path: Path
) -> None:
    write_ellipsoids(path := tmp_path / f"a{ending}", structure)
    who, places, u = read_back(path)
    rows = structure.mask.nonzero().flatten().tolist()
    assert who == [(structure.chains[i], structure.numbers[i], structure.residue_names[i]) for i in rows]
    expected, single = covariances(structure), np.finfo(np.float32).eps
    assert np.abs(u - expected).max() <= of_u + 8 * single * np.abs(expected).max()
    means = 10.0 * structure.gaussian.mean.double().numpy()[structure.mask.numpy()]
    assert np.abs(places - means).max() <= of_place + 8 * single * np.abs(means).max()
    # the ellipsoid itself: its semi-axes are the residue's σ in Å
    sigma = np.sort(10.0 * structure.gaussian.sigma.double().numpy()[structure.mask.numpy()], axis=-1)
    axes = np.sqrt(np.linalg.eigvalsh(u))
    # an eigenvalue moves by no more than the norm of the change (Weyl), a root by that over twice itself
    room = (3 * of_u + 24 * single * sigma.max() ** 2) / sigma
    assert (np.abs(axes - sigma) <= room).all()


def test_biopython_reads_the_same_numbers_from_the_columns_of_anisou(structure: Structure, tmp_path: Path) -> None:
    from Bio.PDB.PDBParser import PDBParser

    write_ellipsoids(path := tmp_path / "a.pdb", structure)
    atoms = [a for a in PDBParser(QUIET=True).get_structure("a", path).get_atoms() if a.get_name() == GAUSSIAN]
    six = np.array([atom.get_anisou() for atom in atoms])
    u = covariances(structure)
    order = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    expected = np.stack([u[:, i, j] for i, j in order], axis=-1)
    assert np.abs(six - expected).max() <= 0.5e-4 + 8 * np.finfo(np.float32).eps * np.abs(u).max()
    b = 8 * math.pi**2 / 3 * np.trace(u, axis1=1, axis2=2)
    found = np.array([atom.get_bfactor() for atom in atoms])
    assert np.abs(found - np.minimum(b, 999.99)).max() <= 0.5e-2 + 1e-5 * b.max()


def test_a_line_of_anisou_is_ten_thousand_times_u_in_square_angstrom(tmp_path: Path) -> None:
    """One residue by hand: σ of 0.03, 0.1 and 0.2 nm along the axes of a frame that is the world's."""
    one = synthetic_structures(1, seed=1, lengths=(16, 17))[0]
    sigma = torch.tensor([[0.03, 0.1, 0.2]])
    gaussian = GaussianRigid(Frame(torch.eye(3)[None], torch.zeros(1, 3)), torch.zeros(1, 3), sigma.log())
    alone = replace(
        one, gaussian=gaussian, mask=torch.tensor([True]), chains=("A",), numbers=("60B",), residue_names=("ALA",)
    )
    write_ellipsoids(path := tmp_path / "a.pdb", alone)
    (line,) = (line for line in path.read_text(encoding="ascii").splitlines() if line.startswith("ANISOU"))
    assert line[12:16].strip() == "GAU" and line[21:27] == "A  60B"
    assert [int(line[28 + 7 * i : 35 + 7 * i]) for i in range(6)] == [900, 10000, 40000, 0, 0, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"chains": "AB"}, "the chain AB has more than one letter"),
        ({"numbers": "10000"}, "10000 has more than four columns"),
        ({"sigma": 3.2}, "ANISOU holds 1000"),
        ({"shift": 100.0}, "columns of PDB"),
    ],
)
def test_what_the_columns_of_pdb_do_not_hold_is_refused_and_mmcif_holds_it(
    change: dict, words: str, tmp_path: Path
) -> None:
    one = synthetic_structures(1, seed=1, lengths=(16, 17))[0]
    n, r = one.n_residues, one.gaussian
    fields = {name: tuple([text] * n) for name, text in change.items() if isinstance(text, str)}
    if "numbers" in fields:
        fields["numbers"] = tuple(str(int(change["numbers"]) + i) for i in range(n))
    if "sigma" in change:
        r = replace(r, log_scale=torch.full_like(r.log_scale, math.log(change["sigma"])))
    if "shift" in change:
        r = replace(r, frame=Frame(r.rot, r.trans + change["shift"]))
    other = replace(one, gaussian=r, **fields)
    check_pdb(one)
    with pytest.raises(PdbLimit, match=words):
        write_ellipsoids(tmp_path / "a.pdb", other)
    assert not (tmp_path / "a.pdb").exists()
    write_ellipsoids(tmp_path / "a.cif", other)
    who, _, u = read_back(tmp_path / "a.cif")
    expected = anisotropic(other).numpy()
    assert who == list(zip(other.chains, other.numbers, other.residue_names, strict=True))
    assert np.abs(u - expected).max() <= 0.5e-5 + 1e-5 * np.abs(expected).max()


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="written as .pdb or .cif"):
        write_ellipsoids(tmp_path / "a.xyz", synthetic_structures(1, seed=1, lengths=(16, 17))[0])
